"""Which parts of a pipeline are on the device, and when."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import cpu_offload_with_hook

from ..errors import HandscopeError

OFFLOADS = ("model", "sequential")
"""diffusers' two ways to keep weights on the CPU: a whole model at a time on the device, or a layer at a time."""


def check_offload(offload: str | None, device: torch.device) -> None:
    """Raise HandscopeError unless `offload` is None, or one of `OFFLOADS` and the device is not a CPU."""
    if offload is None:
        return
    if offload not in OFFLOADS:
        raise HandscopeError(f"Expected offload to be one of {', '.join(OFFLOADS)}, found {offload!r}.")
    if device.type == "cpu":
        raise HandscopeError("Offload moves weights from a GPU to the CPU, and the device is cpu: leave it out.")


def place(pipe: Any, encoders: Sequence[str], device: torch.device, offload: str | None) -> None:
    """Put a pipeline that was loaded onto the CPU where it will run; `encoders` are its text encoders.

    With `offload`, as diffusers does it. On a CPU nothing moves. Else the VAE goes to the device at once, and the text
    encoders and the transformer each when they are first called, so that prompts can be encoded and the encoders
    released before the transformer comes.

    Raises
    ------
    HandscopeError
        diffusers cannot offload this pipeline, for instance because of the way in which it is quantised.
    """
    if offload is not None:
        move = pipe.enable_model_cpu_offload if offload == "model" else pipe.enable_sequential_cpu_offload
        try:
            move(device=device)
        except (ValueError, NotImplementedError, RuntimeError) as error:
            raise HandscopeError(
                f"diffusers cannot offload this model with offload={offload!r} ({str(error).splitlines()[0]}): "
                "leave offload out, or load the weights unquantised."
            ) from error
    elif device.type != "cpu":
        pipe.vae.to(device)
        bring_when_called(pipe, encoders, device)


def bring_when_called(pipe: Any, encoders: Sequence[str], device: torch.device) -> None:
    """Let the text encoders and the transformer come to the device at their next call, and stay there.

    Weights that loading has put onto a device, as bitsandbytes does, stay where they are.
    """
    for encoder in _there(pipe, encoders):
        if _is_on_cpu(encoder):
            cpu_offload_with_hook(encoder, device)
    if _is_on_cpu(pipe.transformer):

        def bring(transformer: torch.nn.Module, args: tuple[Any, ...]) -> None:
            transformer.to(device)
            handle.remove()

        handle = pipe.transformer.register_forward_pre_hook(bring)


def release(pipe: Any, encoders: Sequence[str]) -> None:
    """Move the text encoders off the device; their next call brings them back. On a CPU this does nothing."""
    for encoder in _there(pipe, encoders):
        place_of = next(encoder.parameters()).device.type
        if hasattr(encoder, "_hf_hook") and place_of not in ("cpu", "meta"):
            encoder.to("cpu")
            if place_of == "cuda":
                torch.cuda.empty_cache()


def _there(pipe: Any, encoders: Sequence[str]) -> list[torch.nn.Module]:
    """The encoders that a pipeline has: Stable Diffusion 3 may go without T5."""
    return [encoder for encoder in (getattr(pipe, name) for name in encoders) if encoder is not None]


def _is_on_cpu(module: torch.nn.Module) -> bool:
    return next(module.parameters()).device.type == "cpu"
