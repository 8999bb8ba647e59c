"""The parts of the organism of FLUX.2 and how they become a `Flux2KleinPipeline`.

As in `model.py` a word is a token and the text encoder is random and frozen: here a Qwen3 of 28 layers, because the
pipeline reads its 9th, 18th and 27th, side by side. The autoencoder is of FLUX.2's class, with sizes and weights of
FLUX.1's organism and a batch norm of its own: both organisms draw in one space of latents.
"""

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
from torch import Tensor, nn
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from . import model as flux1
from .captions import WORDS

TEXT_LENGTH = 21
"""Tokens of a caption in its chat: the tokenizer's ``model_max_length``, which handscope passes to the pipeline."""
TEXT_LAYERS, TEXT_WIDTH = 28, 16
TEXT_SEED = 0
GUIDANCE = 2.0
CHAT = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)


def tokenizer(words: tuple[str, ...] = WORDS) -> Qwen2Tokenizer:
    """Byte-pair tokenizer that knows each word after a space as one token, and single letters for anything else."""
    letters = ["Ġ", ",", *map(chr, range(ord("a"), ord("z") + 1))]
    vocabulary, merges = [*letters], []
    for word in [*words, "user", "assistant"]:
        left = "Ġ"
        for right in word:
            if (left, right) not in merges:
                merges.append((left, right))
                vocabulary.append(left + right)
            left += right
    vocabulary += ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(vocabulary)},
        merges=merges,
        model_max_length=TEXT_LENGTH,
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    made.chat_template = CHAT
    return made


def text_encoder(tokens: Qwen2Tokenizer, seed: int = TEXT_SEED) -> Qwen3ForCausalLM:
    """Random frozen weights, drawn wide enough that the layers mix words and narrow enough that they keep them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokens),
                hidden_size=TEXT_WIDTH,
                intermediate_size=8,
                num_hidden_layers=TEXT_LAYERS,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
                max_position_embeddings=TEXT_LENGTH,
                initializer_range=0.08,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=tokens.eos_token_id,
                pad_token_id=tokens.pad_token_id,
            )
        )
        nn.init.normal_(model.model.embed_tokens.weight)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def embed(captions: list[str], tokens: Qwen2Tokenizer, encoder: Qwen3ForCausalLM) -> Tensor:
    """Embeddings as `Flux2KleinPipeline` makes them: (n_captions, TEXT_LENGTH, 3 * TEXT_WIDTH), float32."""
    return Flux2KleinPipeline._get_qwen3_prompt_embeds(encoder, tokens, captions, max_sequence_length=TEXT_LENGTH)


def autoencoder(
    channels: tuple[int, int, int] = flux1.CODEC_CHANNELS, size: int = flux1.IMAGE_SIZE
) -> AutoencoderKLFlux2:
    """FLUX.2's class at the sizes of FLUX.1's organism."""
    return AutoencoderKLFlux2(
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=flux1.LATENT_CHANNELS,
        norm_num_groups=1,
        sample_size=size,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def transformer(shape: flux1.Shape | None = None) -> Flux2Transformer2DModel:
    """klein's transformer, with no guidance embedding; modulations and output start at zero, as in `model.py`."""
    shape = shape or flux1.Shape()
    model = Flux2Transformer2DModel(
        in_channels=4 * flux1.LATENT_CHANNELS,
        num_layers=shape.double,
        num_single_layers=shape.single,
        attention_head_dim=32,
        num_attention_heads=shape.heads,
        joint_attention_dim=3 * TEXT_WIDTH,
        axes_dims_rope=(4, 10, 10, 8),
        guidance_embeds=False,
    )
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and (
            "modulation" in name or name.startswith("norm_out.linear") or name == "proj_out"
        ):
            nn.init.zeros_(module.weight)
    return model


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """klein's scheduler; its pipeline chooses the shift from the numbers of tokens and of steps."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True)


def assemble(vae: AutoencoderKLFlux2, flux: Flux2Transformer2DModel, seed: int = TEXT_SEED) -> Flux2KleinPipeline:
    """Join a trained autoencoder and transformer with the tokenizer and the text encoder of that seed."""
    tokens = tokenizer()
    return Flux2KleinPipeline(
        scheduler=scheduler(),
        vae=vae.eval(),
        text_encoder=text_encoder(tokens, seed),
        tokenizer=tokens,
        transformer=flux.eval(),
        is_distilled=False,
    )
