"""What differs between diffusion transformers: their blocks, their streams, their inputs.

An adapter says which blocks a transformer class has, where in a block's output the image stream is, and how a pipeline
calls it. It checks the output's form on every call, since a stream read from the wrong place looks like data.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule

from ..errors import HandscopeError

LAYER_SKIP = "layer_skip_hook"


class FluxAdapter:
    """FLUX.1: double blocks, then single blocks; both return (text, image), image tokens in rows of the token grid."""

    def blocks(self, transformer: Any) -> dict[str, nn.Module]:
        """The blocks by name, in the order in which they run."""
        double = {f"double.{i}": block for i, block in enumerate(transformer.transformer_blocks)}
        return double | {f"single.{i}": block for i, block in enumerate(transformer.single_transformer_blocks)}

    def lengths(self, kwargs: dict[str, Any]) -> tuple[int, int]:
        """Numbers of text and of image tokens in a call of the transformer, from its keyword arguments.

        Raises
        ------
        HandscopeError
            The two are equal, so that the streams could not be told apart by their form.
        """
        try:
            text, image = kwargs["encoder_hidden_states"].shape[1], kwargs["hidden_states"].shape[1]
        except (KeyError, AttributeError) as error:
            raise HandscopeError(
                "A FLUX transformer must be called with hidden_states and encoder_hidden_states as keyword arguments, "
                f"as FluxPipeline does; this call gave {sorted(kwargs)}."
            ) from error
        if text == image:
            raise HandscopeError(
                f"Text and image both have {text} tokens, so the two streams cannot be told apart: "
                "use another max_sequence_length or another image size."
            )
        return text, image

    def image_stream(self, output: object, text: int, image: int, width: int, block: str) -> Tensor:
        """The image stream of a block's output, a view of shape (batch, image tokens, width).

        Raises
        ------
        HandscopeError
            The output is not (text, image) of these lengths and this width, as in diffusers 0.35 and later.
        """
        form = (
            [tuple(part.shape) for part in output if isinstance(part, Tensor)]
            if isinstance(output, tuple)
            else type(output).__name__
        )
        expected = [(text, width), (image, width)]
        if not isinstance(output, tuple) or [shape[1:] for shape in form] != expected:
            raise HandscopeError(
                f"Expected {block} to return (text, image) of shapes (batch, {text}, {width}) and (batch, {image}, "
                f"{width}), "
                f"found {form}: this version of diffusers, or a hook on the block, orders its streams otherwise."
            )
        return output[1]

    def inputs(
        self, pipe: Any, prompts: Sequence[str], guidance: float, height: int, width: int, max_sequence_length: int
    ) -> dict[str, Any]:
        """What does not change from step to step in a call, made as `FluxPipeline.__call__` makes it."""
        transformer, device = pipe.transformer, pipe._execution_device
        text, pooled, text_ids = pipe.encode_prompt(
            prompt=list(prompts), prompt_2=None, device=device, max_sequence_length=max_sequence_length
        )
        rows, columns = self.grid(pipe, height, width)
        strength = (
            torch.full([1], guidance, device=device, dtype=torch.float32).expand(len(prompts))
            if transformer.config.guidance_embeds
            else None
        )
        return {
            "encoder_hidden_states": text,
            "pooled_projections": pooled,
            "txt_ids": text_ids,
            "guidance": strength,
            "img_ids": pipe._prepare_latent_image_ids(len(prompts), rows, columns, device, text.dtype),
            "joint_attention_kwargs": {},
            "return_dict": False,
        }

    def timestep(self, timestep: Tensor, latents: Tensor) -> Tensor:
        """The timestep argument of a call, of shape (batch,).

        Cast first and divided second, as the pipeline does, which rounds in bfloat16.
        """
        return timestep.to(latents.device).expand(latents.shape[0]).to(latents.dtype) / 1000

    def model_timestep(self, kwargs: dict[str, Any]) -> float:
        """The timestep of a call as the transformer sees it, 0 to 1000, after its cast to the latents' dtype."""
        return float((kwargs["timestep"].to(kwargs["hidden_states"].dtype) * 1000)[0])

    def noise(self, pipe: Any, seed: int, height: int, width: int) -> Tensor:
        """Packed initial noise of a seed, float32 of shape (tokens, channels), the same on every device.

        It comes from a CPU generator of its own.
        """
        rows, columns = self.grid(pipe, height, width)
        channels = pipe.transformer.config.in_channels // 4
        generator = torch.Generator("cpu").manual_seed(seed)
        noise = torch.randn((1, channels, 2 * rows, 2 * columns), generator=generator)
        return pipe._pack_latents(noise, 1, channels, 2 * rows, 2 * columns)[0]

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """Images of packed latents (batch, tokens, channels), float32 of shape (batch, 3, height, width) in [0, 1]."""
        vae = pipe.vae
        unpacked = pipe._unpack_latents(latents.to(vae.device, vae.dtype), height, width, pipe.vae_scale_factor)
        with torch.no_grad():
            images = vae.decode(unpacked / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        return (images.float() / 2 + 0.5).clamp(0, 1)

    def grid(self, pipe: Any, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the token grid of an image of `height` by `width` pixels.

        Raises
        ------
        HandscopeError
            The size is not a whole number of tokens.
        """
        token = 2 * pipe.vae_scale_factor
        for name, size in (("height", height), ("width", width)):
            if not isinstance(size, int) or size < token or size % token:
                raise HandscopeError(
                    f"Expected a {name} that is a multiple of {token} pixels, one token, found {size!r}."
                )
        return height // token, width // token


_ADAPTERS = {"FluxTransformer2DModel": FluxAdapter()}


def adapter_for(transformer: Any) -> FluxAdapter:
    """The adapter of a transformer, by its class.

    Raises
    ------
    HandscopeError
        There is none, or the transformer is in a state in which hooks on its blocks see something else than its
        residual stream, or nothing.
    """
    if isinstance(transformer, OptimizedModule) or transformer._compiled_call_impl is not None:
        raise HandscopeError(
            "The whole transformer is compiled by torch.compile, and hooks on its blocks would never fire: "
            "load it anew, and use compile_repeated_blocks() if it must be compiled."
        )
    name = type(transformer).__name__
    if name not in _ADAPTERS:
        raise HandscopeError(f"handscope reads the blocks of {', '.join(_ADAPTERS)}, found a {name}.")
    if transformer.is_cache_enabled:
        raise HandscopeError(
            f"A diffusers cache is enabled ({type(transformer._cache_config).__name__}), and a block that it skips "
            "returns its input: "
            "call transformer.disable_cache() first."
        )
    if getattr(transformer, "_parallel_config", None) is not None:
        raise HandscopeError(
            "The transformer runs in parallel over several devices, and each block sees only a part: load it without a "
            "parallel config."
        )
    for block, module in _ADAPTERS[name].blocks(transformer).items():
        if LAYER_SKIP in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}):
            raise HandscopeError(
                f"A layer skip is set on {block}, which then swaps or repeats its streams: remove it first."
            )
    return _ADAPTERS[name]
