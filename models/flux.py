"""What differs between diffusion transformers: their blocks, their streams, their inputs.

An adapter says which blocks a transformer class has, where in a block's output the image stream is, and how a pipeline
calls it. It checks the output's form on every call, since a stream read from the wrong place looks like data.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import HandscopeError
from .condition import check_readable, check_whole
from .condition import conditions as conditions

if TYPE_CHECKING:
    from .model import Model

_BLOCK_ARGUMENTS = ("hidden_states", "encoder_hidden_states")


class Lengths(NamedTuple):
    """Numbers of tokens in a call: of text, of the image, and of a reference picture behind the image."""

    text: int
    image: int
    reference: int = 0


class Streams(NamedTuple):
    """What enters or leaves a block."""

    text: Tensor
    image: Tensor


class FluxAdapter:
    """FLUX.1: double blocks, then single blocks; both return (text, image), image tokens in rows of the token grid."""

    def blocks(self, transformer: Any) -> dict[str, nn.Module]:
        """The blocks by name, in the order in which they run."""
        double = {f"double.{i}": block for i, block in enumerate(transformer.transformer_blocks)}
        return double | {f"single.{i}": block for i, block in enumerate(transformer.single_transformer_blocks)}

    def lengths(self, kwargs: dict[str, Any]) -> Lengths:
        """Numbers of text, image and reference tokens in a call of the transformer, from its keyword arguments.

        Reference tokens are those of the picture that FLUX.1 Kontext edits: they follow the image tokens, and their ids
        begin with another number than 0.

        Raises
        ------
        HandscopeError
            The call is not a FLUX pipeline's, or text and picture have equally many tokens, so that the streams could
            not be told apart by their form.
        """
        try:
            text, total = kwargs["encoder_hidden_states"].shape[1], kwargs["hidden_states"].shape[1]
            ids = kwargs["img_ids"]
            reference = (ids[0] if ids.ndim == 3 else ids)[:, 0] != 0
        except (KeyError, AttributeError) as error:
            raise HandscopeError(
                "A FLUX transformer must be called with hidden_states, encoder_hidden_states and img_ids as keyword "
                f"arguments, as FluxPipeline does; this call gave {sorted(kwargs)}."
            ) from error
        if text == total:
            raise HandscopeError(
                f"Text and image both have {text} tokens, so the two streams cannot be told apart: "
                "use another max_sequence_length or another image size."
            )
        lengths = Lengths(text, total - int(reference.sum()), int(reference.sum()))
        if not lengths.image or bool(reference[: lengths.image].any()):
            raise HandscopeError(
                "Expected the image's tokens first and those of a reference picture after them, as in Kontext; the "
                f"first number of img_ids is not 0 at {int(reference.sum())} of {total} tokens."
            )
        return lengths

    def output_streams(self, output: object, lengths: Lengths, width: int, block: str) -> Streams:
        """The streams that leave a block; views of shape (batch, tokens, width), without reference tokens.

        Raises
        ------
        HandscopeError
            The output is not (text, image) of these lengths and this width, as in diffusers 0.35 and later.
        """
        return _streams(output, lengths, width, f"{block} to return")

    def input_streams(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], lengths: Lengths, width: int, block: str
    ) -> Streams:
        """The streams that enter a block, from its arguments; as in `output_streams`.

        A block is called by keyword, and under gradient checkpointing by position.
        """
        image, text = (kwargs.get(name, *args[i : i + 1]) for i, name in enumerate(_BLOCK_ARGUMENTS))
        return _streams((text, image), lengths, width, f"{block} to be given")

    def rowwise(self, block: nn.Module) -> dict[str, list[nn.Module]]:
        """Linear layers of a block that come after its attention and mix no tokens, by the stream whose rows they take.

        ``both`` are those of a single block, which take text and image tokens in one sequence, text first.
        """
        parts: Any = block
        if hasattr(block, "proj_mlp"):
            return {"both": [parts.proj_mlp, parts.proj_out]}
        image = [parts.attn.to_out[0], parts.ff.net[0].proj, parts.ff.net[2]]
        return {"image": image, "text": [parts.attn.to_add_out, parts.ff_context.net[0].proj, parts.ff_context.net[2]]}

    def inputs(
        self, model: "Model", prompts: Sequence[str], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """What does not change from step to step in a call, with the bits that `FluxPipeline.__call__` would make."""
        pipe, transformer, device = model.pipe, model.transformer, model.device
        text, pooled, text_ids = model.encode(prompts).batch(prompts, device, model.dtype)
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

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The times of a generation, as the pipeline makes them; its own scheduler stays as it is.

        Returns
        -------
        sigmas : Tensor of shape (steps + 1,), float32
        timesteps : Tensor of shape (steps,), float32

        Raises
        ------
        HandscopeError
            The scheduler does not take one Euler step a call, without noise of its own, as trajectories are read.
        """
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

        rows, columns = self.grid(pipe, height, width)
        kind, config = type(pipe.scheduler), pipe.scheduler.config
        if kind.__name__ != "FlowMatchEulerDiscreteScheduler" or config.stochastic_sampling:
            raise HandscopeError(
                f"Expected FLUX's own scheduler, FlowMatchEulerDiscreteScheduler without stochastic_sampling, found "
                f"{kind.__name__}: a trajectory is read as Euler steps. Load the model with its own scheduler."
            )
        scheduler = kind.from_config(config)
        mu = calculate_shift(
            rows * columns, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
        )
        retrieve_timesteps(scheduler, steps, "cpu", sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        return scheduler.sigmas.float(), scheduler.timesteps.float()

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
        """Images of packed latents (batch, tokens, channels), float32 of shape (batch, 3, height, width) in [0, 1].

        Gradients pass, where they are asked for.
        """
        vae = pipe.vae
        latents = latents.to(pipe._execution_device, vae.dtype)
        unpacked = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
        images = vae.decode(unpacked / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]
        return (images * 0.5 + 0.5).clamp(0, 1).float()  # in the decoder's dtype first, as the pipeline does

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


def _streams(pair: object, lengths: Lengths, width: int, expected: str) -> Streams:
    parts = pair if isinstance(pair, tuple) else (pair,)
    found = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
    text, image = lengths.text, lengths.image + lengths.reference
    if [shape[1:] for shape in found] != [(text, width), (image, width)]:
        raise HandscopeError(
            f"Expected {expected} (text, image) of shapes (batch, {text}, {width}) and (batch, {image}, {width}), "
            f"found {found}: this version of diffusers, or a hook on the block, orders its streams otherwise."
        )
    return Streams(parts[0], parts[1][:, : lengths.image])


_ADAPTERS = {"FluxTransformer2DModel": FluxAdapter()}


def adapter_for(transformer: Any) -> FluxAdapter:
    """The adapter of a transformer, by its class.

    Raises
    ------
    HandscopeError
        There is none, or the transformer is in a state in which hooks on its blocks see something else than its
        residual stream, or nothing.
    """
    check_whole(transformer)
    name = type(transformer).__name__
    if name not in _ADAPTERS:
        raise HandscopeError(f"handscope reads the blocks of {', '.join(_ADAPTERS)}, found a {name}.")
    check_readable(transformer, _ADAPTERS[name].blocks(transformer))
    return _ADAPTERS[name]
