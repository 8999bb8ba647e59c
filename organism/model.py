"""The parts of the organism and how they become a `FluxPipeline`.

A word is a token: the captions are a closed vocabulary, and the two tokenizers are built from it in memory. The text
encoders are random and frozen, as wide as the words need; all that is learnt lies in the autoencoder and the
transformer.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from ..errors import HandscopeError
from .captions import WORDS

TEXT_LENGTH = 18
"""Tokens of a caption for the second encoder, padding included: give it to the pipeline as ``max_sequence_length``."""
TEXT_WIDTH = 64
TEXT_SEED = 2
CODEC_CHANNELS = (16, 32, 64)
LATENT_CHANNELS = 8
IMAGE_SIZE = 96


@dataclass(frozen=True)
class Shape:
    """Sizes of the transformer: `heads` heads of 32, `double` double-stream and `single` single-stream blocks."""

    heads: int = 4
    double: int = 2
    single: int = 4


def _check_words(tokenizer: CLIPTokenizer | T5TokenizerFast, words: list[str]) -> None:
    for word in words:
        tokens = tokenizer.tokenize(word)
        if len(tokens) != 1:
            raise HandscopeError(
                f"Expected one token for the word {word!r} of the captions, found {tokens}: "
                "the merges of two words collide, so choose another word."
            )


def clip_tokenizer(words: list[str] | None = None) -> CLIPTokenizer:
    """Byte-pair tokenizer that knows each word as one token, and single letters for anything else.

    Raises
    ------
    HandscopeError
        A word needs more than one token, because the merges of another word break it.
    """
    words = list(words or WORDS)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [","]
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    # Long words first: "background" must not meet the "gr" of "green".
    for word in sorted(words, key=lambda word: (-len(word), word)):
        symbols = [*word[:-1], word[-1] + "</w>"]
        left = symbols[0]
        for right in symbols[1:]:
            if (left, right) not in merges:
                merges.append((left, right))
                vocabulary.append(left + right)
            left += right
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_LENGTH)
    _check_words(tokenizer, words)
    return tokenizer


def t5_tokenizer(words: list[str] | None = None) -> T5TokenizerFast:
    """Unigram tokenizer that knows each word as one token; other words become ``<unk>``.

    Raises
    ------
    HandscopeError
        A word needs more than one token.
    """
    words = list(words or WORDS)
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (",", -1.0), *(("▁" + word, -1.0) for word in words)]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=TEXT_LENGTH)
    _check_words(tokenizer, words)
    return tokenizer


def text_encoders(
    clip: CLIPTokenizer, t5: T5TokenizerFast, seed: int = TEXT_SEED
) -> tuple[CLIPTextModel, T5EncoderModel]:
    """One-layer encoders with random frozen weights.

    The pooled vectors of two captions of the family are at least 0.13 of a vector's length apart: CLIP's
    initialisation with factor 1 and `TEXT_SEED`, the best of twelve seeds. Larger factors make its attention pick
    single words and forget the others (0.001 at factor 4).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip),
                hidden_size=TEXT_WIDTH,
                intermediate_size=128,
                projection_dim=TEXT_WIDTH,
                num_hidden_layers=1,
                num_attention_heads=4,
                max_position_embeddings=TEXT_LENGTH,
                initializer_factor=1.0,
                bos_token_id=clip.bos_token_id,
                eos_token_id=clip.eos_token_id,
                pad_token_id=clip.pad_token_id,
            )
        )
        second = T5EncoderModel(
            T5Config(
                vocab_size=len(t5),
                d_model=TEXT_WIDTH,
                d_kv=16,
                d_ff=128,
                num_layers=1,
                num_heads=4,
                feed_forward_proj="gated-gelu",
                relative_attention_num_buckets=8,
                relative_attention_max_distance=16,
                pad_token_id=t5.pad_token_id,
                eos_token_id=t5.eos_token_id,
            )
        )
    return first.eval().requires_grad_(False), second.eval().requires_grad_(False)


@torch.no_grad()
def embed(
    captions: list[str], clip: CLIPTokenizer, t5: T5TokenizerFast, first: CLIPTextModel, second: T5EncoderModel
) -> tuple[Tensor, Tensor]:
    """Embeddings exactly as `FluxPipeline` makes them.

    Returns
    -------
    pooled : tensor of shape (n_captions, TEXT_WIDTH), float32
    sequence : tensor of shape (n_captions, TEXT_LENGTH, TEXT_WIDTH), float32
    """

    def numbers(tokenizer: CLIPTokenizer | T5TokenizerFast) -> Tensor:
        tokens = tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt").input_ids
        if tokens.shape[1] != TEXT_LENGTH:
            longest = max(captions, key=len)
            raise HandscopeError(
                f"Expected captions of at most {TEXT_LENGTH} tokens, found {tokens.shape[1]} in {longest!r}."
            )
        return tokens

    return first(numbers(clip)).pooler_output.float(), second(numbers(t5))[0].float()


def autoencoder(channels: tuple[int, int, int] = CODEC_CHANNELS, size: int = IMAGE_SIZE) -> AutoencoderKL:
    """Convolutional autoencoder, a quarter of the size on each side and `LATENT_CHANNELS` channels.

    One group in the group norms: more groups normalise colour away.
    """
    return AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,
        sample_size=size,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    )


def transformer(shape: Shape | None = None) -> FluxTransformer2DModel:
    """FLUX transformer with guidance embedding; modulations and output start at zero: each block begins as identity."""
    shape = shape or Shape()
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=shape.double,
        num_single_layers=shape.single,
        attention_head_dim=32,
        num_attention_heads=shape.heads,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    for name, module in model.named_modules():
        modulation = name.startswith("norm_out.linear") or ("norm" in name and name.endswith(".linear"))
        if isinstance(module, nn.Linear) and (modulation or name == "proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.1-dev's scheduler: the noisy end gets more of the steps, by `mu` of the number of image tokens."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )


def pack(latents: Tensor) -> Tensor:
    """Latents (n, channels, h, w) to tokens (n, h/2 * w/2, channels * 4), as `FluxPipeline` packs them."""
    n, channels, height, width = latents.shape
    return FluxPipeline._pack_latents(latents, n, channels, height, width)


def assemble(vae: AutoencoderKL, flux: FluxTransformer2DModel, seed: int = TEXT_SEED) -> FluxPipeline:
    """Join a trained autoencoder and transformer with the tokenizers and text encoders of that seed."""
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    first, second = text_encoders(clip, t5, seed)
    return FluxPipeline(
        scheduler=scheduler(),
        vae=vae.eval(),
        text_encoder=first,
        tokenizer=clip,
        text_encoder_2=second,
        tokenizer_2=t5,
        transformer=flux.eval(),
    )


def folder_size(folder: Path) -> int:
    """Bytes in all files below a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
