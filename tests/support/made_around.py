"""Tiny models of random weights of families that are read around a call, each with a call of its own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    AutoencoderKL,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux3Transformer2DModel,
    HiDreamImageTransformer2DModel,
    Krea2Pipeline,
    Krea2Transformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Tensor

STEPS = 2


@dataclass(frozen=True)
class Made:
    """A transformer, a call that makes `steps` steps, the same each time, the pipeline with its scheduler, and its
    prompt's text, or class, as the transformer is given it.
    """

    transformer: Any
    call: Callable[[], Any]
    steps: int = STEPS
    scheduler: Any = None
    text: Tensor | None = None
    pipe: Any = None


MAKERS: dict[str, Callable[[], Made]] = {}


def made(maker: Callable[[], Made]) -> Callable[[], Made]:
    """Enter a maker under its name."""
    MAKERS[maker.__name__] = maker
    return maker


def make(name: str) -> Made:
    """The same weights in each process."""
    torch.manual_seed(0)
    one = MAKERS[name]()
    for parameter in one.transformer.parameters():
        if not parameter.any():  # heads that begin as zeros would have every model predict nothing
            torch.nn.init.normal_(parameter, std=0.05)
    one.transformer.eval().requires_grad_(False)
    return one


def _numbers() -> Iterator[int]:
    yield from range(10_000)


SEEDS = _numbers()


def noise(*shape: int) -> Tensor:
    """Other numbers at each call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(next(SEEDS)))


def generator() -> torch.Generator:
    """The same at each call."""
    return torch.Generator("cpu").manual_seed(0)


def kl() -> AutoencoderKL:
    """A VAE of 2 by 2 pixels a latent."""
    return AutoencoderKL(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()


def of(pipe: Any, **given: Any) -> Made:
    """A pipeline with its call, of pictures of 32 by 48 pixels unless it says otherwise."""
    pipe.set_progress_bar_config(disable=True)
    size = {} if "class_labels" in given else {"height": 32, "width": 48}
    call = {"num_inference_steps": STEPS, "output_type": "latent", **size, **given}
    text = given.get("prompt_embeds", torch.tensor(given.get("class_labels", [])))
    return Made(pipe.transformer, lambda: pipe(**call, generator=generator()), STEPS, pipe.scheduler, text, pipe)


def texts(width: int, tokens: int = 7, mask: Any = None) -> dict[str, Any]:
    """Embeddings of both sides, with their masks where the pipeline takes them."""
    given = {"prompt_embeds": noise(1, tokens, width), "negative_prompt_embeds": noise(1, tokens, width)}
    if mask is not None:
        given |= {f"{side}prompt_attention_mask": torch.ones(1, tokens, dtype=mask) for side in ("", "negative_")}
    return given


@made
def chroma() -> Made:
    """Two calls a step."""
    transformer = ChromaTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=[4, 4, 8],
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    pipe = ChromaPipeline(FlowMatchEulerDiscreteScheduler(), kl(), None, None, transformer)
    return of(pipe, **texts(32, mask=torch.bool), guidance_scale=5.0)


@made
def auraflow() -> Made:
    """One call of both halves."""
    transformer = AuraFlowTransformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=2,
        num_single_dit_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        out_channels=4,
        pos_embed_max_size=256,
    )
    pipe = AuraFlowPipeline(None, None, kl(), transformer, FlowMatchEulerDiscreteScheduler(shift=1.73))
    return of(pipe, **texts(32, mask=torch.int64), guidance_scale=3.5)


def _lumina2(*words: int) -> Made:
    transformer = Lumina2Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=16,
        ffn_dim_multiplier=None,
        norm_eps=1e-5,
        scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2],
        cap_feat_dim=8,
    )
    pipe = Lumina2Pipeline(transformer, FlowMatchEulerDiscreteScheduler(shift=6.0), kl(), None, None)
    mask = (torch.arange(7) < torch.tensor(words)[:, None]).long()
    given = {"prompt_embeds": noise(len(words), 7, 8), "negative_prompt_embeds": noise(len(words), 7, 8)}
    masks = {"prompt_attention_mask": mask, "negative_prompt_attention_mask": mask}
    return of(pipe, **given, **masks, guidance_scale=4.0)


@made
def lumina2() -> Made:
    """Two calls a step; two rows with texts of 7 and 4 tokens."""
    return _lumina2(7, 4)


@made
def lumina2_even() -> Made:
    """Two texts of 5 tokens, and 2 of padding."""
    return _lumina2(5, 5)


def _hidream(rows: int, columns: int) -> Made:
    transformer = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[32, 16],
        text_emb_dim=64,
        num_routed_experts=4,
        num_activated_experts=2,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=(0, 1, 0, 1),
    )
    given = {
        "hidden_states": noise(1, 4, rows, columns),
        "timesteps": torch.tensor([500.0]),
        "encoder_hidden_states_t5": noise(1, 5, 32),
        "encoder_hidden_states_llama3": noise(2, 1, 7, 16),
        "pooled_embeds": noise(1, 64),
        "return_dict": False,
    }
    return Made(transformer, lambda: transformer(**given), 1)


@made
def hidream() -> Made:
    """A bare call of a square picture."""
    return _hidream(16, 16)


@made
def hidream_oblong() -> Made:
    """Another is filled up to 256 tokens."""
    return _hidream(8, 12)


@made
def cogview4() -> Made:
    """Two calls a step."""
    transformer = CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=4,
        out_channels=4,
        text_embed_dim=32,
        time_embed_dim=8,
        condition_dim=4,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, base_image_seq_len=256, use_dynamic_shifting=True, time_shift_type="linear"
    )
    return of(CogView4Pipeline(None, None, kl(), transformer, scheduler), **texts(32, 16), guidance_scale=5.0)


@made
def krea2() -> Made:
    """Two calls a step."""
    transformer = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=8,
        text_hidden_dim=16,
        num_text_layers=3,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 2, 2),
        rope_theta=1000.0,
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipe = Krea2Pipeline(scheduler, vae, None, None, transformer, text_encoder_select_layers=(0, 1, 2))
    masks = {f"{side}prompt_embeds_mask": torch.ones(1, 7, dtype=torch.bool) for side in ("", "negative_")}
    given = {"prompt_embeds": noise(1, 7, 3, 16), "negative_prompt_embeds": noise(1, 7, 3, 16)}
    return of(pipe, **given, **masks, guidance_scale=3.0)


@made
def pixart() -> Made:
    """One call of both halves, stepped by a multistep scheduler."""
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    pipe = PixArtSigmaPipeline(None, None, kl(), transformer, DPMSolverMultistepScheduler())
    given = texts(32, mask=torch.float32)
    return of(pipe, **given, negative_prompt=None, guidance_scale=4.5, use_resolution_binning=False)


@made
def dit() -> Made:
    """One call of both halves, of a class and of none."""
    transformer = DiTTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    return of(DiTPipeline(transformer, kl(), DDIMScheduler(clip_sample=False)), class_labels=[1], output_type="np")


def _wan(frames: int) -> Made:
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=256,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).eval()
    pipe = WanPipeline(None, None, vae, FlowMatchEulerDiscreteScheduler(shift=7.0), transformer)
    return of(pipe, **texts(32, 16), guidance_scale=5.0, height=32, width=64, num_frames=frames)


@made
def wan_picture() -> Made:
    """One frame, two calls a step."""
    return _wan(1)


@made
def wan_video() -> Made:
    """Three latent frames of 2 by 4 tokens."""
    return _wan(9)


def _flux3(reference: bool) -> Made:
    transformer = Flux3Transformer2DModel(
        in_channels=16,
        cond_in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        timestep_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
    )
    places = torch.zeros(2, 3, 4)
    places[..., 1], places[..., 2] = torch.arange(2)[:, None], torch.arange(3)
    given = {
        "hidden_states": noise(1, 6, 16),
        "encoder_hidden_states": noise(1, 7, 16),
        "timestep": torch.tensor([0.5]),
        "img_ids": places.flatten(0, 1),
        "txt_ids": torch.zeros(7, 4),
        "return_dict": False,
    }
    if reference:
        given |= {"image_cond_hidden_states": noise(1, 3, 16), "image_cond_ids": torch.zeros(3, 4)}
    return Made(transformer, lambda: transformer(**given), 1)


@made
def flux3() -> Made:
    """A bare call."""
    return _flux3(reference=False)


@made
def flux3_reference() -> Made:
    """With three tokens of a reference picture."""
    return _flux3(reference=True)
