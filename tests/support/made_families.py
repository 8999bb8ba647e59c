"""Tiny pipelines of every family that handscope generates with: random weights, tokenizers and encoders and all.

Each is saved to a folder, as `handscope.load` wants it. Blocks are two or three of width 32 or so, tokens few.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

WORDS = "a an open left right hand palm view five fingers raised on blue green red background light brown skin".split()
CHAT = (
    "{% for m in messages if m['role'] == 'user' %}user "
    "{{ m['content'] if m['content'] is string else m['content'][0]['text'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)
TEXT = 24
MAKERS: dict[str, Callable[[], Any]] = {}


def made(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Enter a maker of a pipeline under a name."""

    def enter(maker: Callable[[], Any]) -> Callable[[], Any]:
        MAKERS[name] = maker
        return maker

    return enter


def save(name: str, folder: Path) -> None:
    """Save the tiny pipeline of a name: the same weights in each process."""
    torch.manual_seed(0)
    pipe = MAKERS[name]()
    for parameter in pipe.transformer.parameters():
        # Heads that begin as zeros would have every model predict nothing.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    pipe.save_pretrained(folder)


def tokenizer() -> PreTrainedTokenizerFast:
    """Words of prompts, and one token for any other."""
    words = ["<pad>", "<unk>", "user", "assistant", "system", *WORDS]
    whole = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    whole.pre_tokenizer = Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=whole, pad_token="<pad>", unk_token="<unk>", model_max_length=TEXT)
    made.chat_template = CHAT
    return made


def kl(channels: int, **config: Any) -> AutoencoderKL:
    """A VAE that makes 2 by 2 pixels of a latent."""
    return AutoencoderKL(**_blocks(), latent_channels=channels, shift_factor=0.06, scaling_factor=1.5, **config)


def _blocks() -> dict[str, Any]:
    return {
        "sample_size": 32,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (4, 4),
        "layers_per_block": 1,
        "norm_num_groups": 1,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }


def qwen3(layers: int) -> Qwen3ForCausalLM:
    """A language model of width 8."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=4,
            vocab_size=32,
            max_position_embeddings=512,
        )
    )


def t5(width: int) -> tuple[T5TokenizerFast, T5EncoderModel]:
    """A text encoder of T5, one token a word."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(("▁" + word, -1.0) for word in WORDS)]
    config = T5Config(vocab_size=len(words), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return T5TokenizerFast(vocab=words, extra_ids=0, model_max_length=TEXT), T5EncoderModel(config)


def clip(width: int) -> tuple[CLIPTokenizer, CLIPTextModelWithProjection]:
    """A text encoder of CLIP that spells."""
    letters = [chr(i) for i in range(33, 127)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    count = len(words)
    config = CLIPTextConfig(
        vocab_size=count,
        hidden_size=width,
        intermediate_size=16,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=count - 2,
        eos_token_id=count - 1,
        pad_token_id=count - 1,
    )
    spelt = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)
    return spelt, CLIPTextModelWithProjection(config)


def _sd3(**config: Any) -> StableDiffusion3Pipeline:
    one, other, third = clip(8), clip(8), t5(16)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=32,
            patch_size=2,
            in_channels=4,
            num_layers=3,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            out_channels=4,
            pos_embed_max_size=32,
            **config,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=kl(4),
        text_encoder=one[1],
        tokenizer=one[0],
        text_encoder_2=other[1],
        tokenizer_2=other[0],
        text_encoder_3=third[1],
        tokenizer_3=third[0],
    )


@made("sd3")
def sd3() -> StableDiffusion3Pipeline:
    """Stable Diffusion 3."""
    return _sd3()


@made("sd3.5-medium")
def sd35_medium() -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 medium: a second attention in the first blocks."""
    return _sd3(dual_attention_layers=(0, 1), qk_norm="rms_norm")


def _flux2(embedded: bool, text: int) -> dict[str, Any]:
    return {
        "transformer": Flux2Transformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * text,
            timestep_guidance_channels=32,
            axes_dims_rope=[4, 4, 4, 4],
            guidance_embeds=embedded,
        ),
        "vae": AutoencoderKLFlux2(**_blocks(), latent_channels=4),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


def _klein(distilled: bool) -> Flux2KleinPipeline:
    pipe = Flux2KleinPipeline(**_flux2(False, 8), text_encoder=qwen3(27), tokenizer=tokenizer(), is_distilled=distilled)
    with torch.no_grad():  # as after training: batch norm that changes something
        pipe.vae.bn.running_mean.uniform_(-0.5, 0.5)
        pipe.vae.bn.running_var.uniform_(0.5, 2.0)
    return pipe


@made("flux2-klein")
def flux2_klein() -> Flux2KleinPipeline:
    """FLUX.2 klein base: classifier-free guidance in two calls."""
    return _klein(distilled=False)


@made("flux2-klein-distilled")
def flux2_klein_distilled() -> Flux2KleinPipeline:
    """FLUX.2 klein: one call a step."""
    return _klein(distilled=True)


@made("flux2-dev")
def flux2_dev() -> Flux2Pipeline:
    """FLUX.2 dev: embedded guidance."""
    encoder = Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config={
                "model_type": "mistral",
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 30,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 4,
                "vocab_size": 32,
                "max_position_embeddings": 512,
            },
            vision_config={
                "model_type": "pixtral",
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "image_size": 16,
                "patch_size": 8,
            },
            image_token_index=31,
        )
    )
    return Flux2Pipeline(**_flux2(True, 8), text_encoder=encoder, tokenizer=tokenizer())


@made("qwen-image")
def qwen_image() -> QwenImagePipeline:
    """Qwen-Image."""
    encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "vocab_size": 32,
                "max_position_embeddings": 512,
                "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
            },
            vision_config={
                "depth": 1,
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_heads": 1,
                "out_hidden_size": 16,
                "fullatt_block_indexes": [0],
            },
        )
    )
    return QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            guidance_embeds=False,
            axes_dims_rope=(8, 4, 4),
        ),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1, 0.2, -0.1, 0.0],
            latents_std=[1.5, 0.5, 1.0, 2.0],
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=encoder,
        tokenizer=tokenizer(),
    )


@made("z-image")
def z_image() -> ZImagePipeline:
    """Z-Image: turbo without guidance, base with."""
    pipe = ZImagePipeline(
        transformer=ZImageTransformer2DModel(
            all_patch_size=(2,),
            all_f_patch_size=(1,),
            in_channels=4,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            norm_eps=1e-5,
            qk_norm=True,
            cap_feat_dim=8,
            rope_theta=256.0,
            t_scale=1000.0,
            axes_dims=[8, 4, 4],
            axes_lens=[256, 32, 32],
        ),
        vae=kl(4),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=qwen3(2),
        tokenizer=tokenizer(),
    )
    for token in (pipe.transformer.x_pad_token, pipe.transformer.cap_pad_token):
        torch.nn.init.normal_(token)
    return pipe


@made("sana")
def sana() -> SanaPipeline:
    """Sana with the Euler scheduler of flow matching."""
    return SanaPipeline(
        transformer=SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_attention_heads=4,
            attention_head_dim=8,
            num_cross_attention_heads=4,
            cross_attention_head_dim=8,
            cross_attention_dim=32,
            caption_channels=8,
            sample_size=8,
        ),
        vae=AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock",) * 3,
            decoder_block_types=("ResBlock",) * 3,
            encoder_block_out_channels=(8,) * 3,
            decoder_block_out_channels=(8,) * 3,
            encoder_qkv_multiscales=((),) * 3,
            decoder_qkv_multiscales=((),) * 3,
            encoder_layers_per_block=(1,) * 3,
            decoder_layers_per_block=[1] * 3,
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.5,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=Gemma2Model(
            Gemma2Config(
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                head_dim=4,
                vocab_size=32,
                max_position_embeddings=1024,
            )
        ),
        tokenizer=tokenizer(),
    )
