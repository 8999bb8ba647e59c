"""Bend a generation down the gradient of a loss: the velocity is corrected within a window of steps.

With ``x_t = (1 - sigma) x0 + sigma noise`` and the velocity ``v = noise - x0``, sampling from the model's distribution
times ``exp(-scale * loss)`` adds ``scale * sigma / (1 - sigma) * gradient`` to the velocity: the score of the tilt,
``-scale * gradient``, times ``-sigma / (1 - sigma)``. The sign follows from x0 = x_t - sigma v: a velocity that grows
with the gradient moves the predicted clean image against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HandscopeError
from ..extract.address import Block, Plan
from .hooks import Call, changing, counting
from .losses import Loss, ProbeLoss

FORMS = ("exact", "frozen")
LIMIT = 4.0  # sigma / (1 - sigma) diverges towards pure noise; this is sigma = 0.8


@dataclass(frozen=True)
class Guided:
    """What guidance did at one step.

    Attributes
    ----------
    step : int
        Steps that remain.
    loss : tuple of float, one an image, before the correction
    share : tuple of float, the length of the correction over that of the velocity, one an image
    seconds : float
        What the loss and its gradient took, without the transformer's forward pass.
    """

    step: int
    loss: tuple[float, ...]
    share: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Strength:
    """How far the velocity is corrected.

    Attributes
    ----------
    scale : float
        The weight of the loss in ``exp(-scale * loss)``; or, where `relative`, the length of the correction as a share
        of the velocity's.
    limit : float
        Upper limit of the factor sigma / (1 - sigma).
    relative : bool
        Take of the gradient its direction alone.
    """

    scale: float
    limit: float = LIMIT
    relative: bool = False

    def correction(self, gradient: Tensor, velocity: Tensor, sigma: float) -> Tensor:
        """What is added to the velocity (batch, tokens, channels), float32, for the gradient of the loss at x_t."""
        if self.relative:
            return self.scale * gradient * (_length(velocity) / _length(gradient).clamp_min(1e-20))
        factor = self.limit if sigma >= 1 else min(sigma / (1 - sigma), self.limit)
        return self.scale * factor * gradient


@contextmanager
def guide(
    pipe: Any,
    loss: Loss | ProbeLoss,
    scale: float,
    steps: Sequence[int],
    of: int,
    form: str = "exact",
    limit: float = LIMIT,
    relative: bool = False,
    checkpoint: bool = False,
) -> Iterator[list[Guided]]:
    """Guide whatever the pipeline draws within the block by the gradient of a loss.

    >>> with guide(model.pipe, loss, 0.1, steps=range(18, 9, -1), of=20, relative=True) as trace:    # doctest: +SKIP
    ...     model.pipe("an open hand", num_inference_steps=20, max_sequence_length=16, height=96, width=96)
    >>> trace[0].share                                                  # doctest: +SKIP
    (0.1,)

    The first step is never guided: what goes in is pure noise, and the factor of the correction diverges. With true
    classifier-free guidance the correction is made at the conditional call and added to both.

    Parameters
    ----------
    pipe : a FluxPipeline, or another pipeline around a FLUX.1 transformer with FLUX's scheduler
    loss : function or ProbeLoss
        From the predicted clean latents (batch, tokens, channels) to losses (batch,), such as a `PictureLoss`; or
        probes on activations, for which the gradient runs through the blocks up to the deepest probed one and no
        further.
    scale, limit, relative : see `Strength`
    steps : sequence of int
        Steps that remain, as in a `Plan`.
    of : int
        Number of steps that the pipeline makes.
    form : str
        ``exact``: the gradient runs through the transformer. ``frozen``: the velocity is taken as constant, so that a
        change of x_t is a change of the predicted clean latents; cheaper, and of no use for probes.
    checkpoint : bool
        Recompute each block in the backward pass instead of keeping what is inside it (`exact` only).

    Yields
    ------
    list of Guided, which grows as the generation goes on

    Raises
    ------
    HandscopeError
        The form is not known or does not fit the loss, no step is left to guide, the loss gives another shape or is
        not finite; or as in `capture`.
    """
    if form not in FORMS:
        raise HandscopeError(f"Expected form to be one of {', '.join(FORMS)}, found {form!r}.")
    if form == "frozen" and isinstance(loss, ProbeLoss):
        raise HandscopeError("A probe reads activations, which a frozen velocity does not have: use the exact form.")
    trace: list[Guided] = []
    with ExitStack() as stack:
        guidance = _Guidance(pipe, loss, Strength(scale, limit, relative), window(steps, of), of, form, trace)
        counter = stack.enter_context(counting(pipe.transformer, of))
        if form == "exact":
            stack.enter_context(_differentiable(pipe.transformer, checkpoint))
        if isinstance(loss, ProbeLoss):
            plan = Plan(list(loss.probes), guidance.steps, of)
            stack.enter_context(changing(pipe.transformer, counter, plan, guidance.collect))

        def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return args, guidance.called(counter.call, kwargs)

        stack.enter_context(pipe.transformer.register_forward_pre_hook(called, with_kwargs=True))
        stack.enter_context(pipe.transformer.register_forward_hook(guidance.returned))
        stack.enter_context(pipe.transformer.register_forward_hook(guidance.ended, always_call=True))
        yield trace


def guidance_callback(
    loss: Loss, scale: float, steps: Sequence[int], limit: float = LIMIT, relative: bool = False
) -> Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any]]:
    """The frozen form as a diffusers ``callback_on_step_end``; it needs no hook on the transformer.

    The velocity is inferred from the latents before and after the step, which in bfloat16 costs it some bits: `guide`
    has it whole.

    Parameters
    ----------
    As in `guide`; the number of steps is the pipeline's.
    """
    strength = Strength(scale, limit, relative)
    before: list[Tensor] = []

    def callback(pipe: Any, index: int, timestep: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        latents, sigmas = kwargs["latents"], pipe.scheduler.sigmas
        of = len(sigmas) - 1
        if index and of - index in window(steps, of):
            sigma, later = float(sigmas[index]), float(sigmas[index + 1])
            velocity = (latents.float() - before[0].float()) / (later - sigma)
            losses, gradient = _at_clean(loss, before[0].float() - sigma * velocity)
            change = (later - sigma) * strength.correction(gradient, velocity, sigma)
            latents = kwargs["latents"] = (latents.float() + change).to(latents.dtype)
        before[:] = [latents]
        return kwargs

    return callback


def window(steps: Sequence[int], of: int) -> list[int]:
    """The steps of a window that can be guided: all but the first of the generation."""
    kept = [step for step in steps if step != of]
    if not kept or not set(kept) <= set(range(1, of)):
        raise HandscopeError(
            f"Expected steps to guide between 1 and {of - 1} (the first, {of}, is pure noise), found {list(steps)}."
        )
    return kept


class _Guidance:
    """What the hooks of one guided generation share."""

    def __init__(
        self, pipe: Any, loss: Any, strength: Strength, steps: list[int], of: int, form: str, trace: list[Guided]
    ) -> None:
        self.pipe, self.loss, self.strength = pipe, loss, strength
        self.steps, self.of, self.form, self.trace = steps, of, form, trace
        self.call: Call | None = None
        self.latents: Tensor | None = None
        self.collected: dict[str, Tensor] = {}
        self.correction: Tensor | None = None
        self.outer: bool | None = None  # whether gradients were on outside the call

    def called(self, call: Call | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        self.call, self.latents = None, None
        if call is None or call.step not in self.steps:
            return kwargs
        self.call = call
        if call.unconditional:
            return kwargs
        self.latents = kwargs["hidden_states"].detach()
        if self.form == "frozen":
            return kwargs
        self.latents = self.latents.requires_grad_()
        self.collected = {}
        self.outer = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        return {**kwargs, "hidden_states": self.latents}

    def collect(self, call: Call, block: Block, image: Tensor) -> Tensor:
        """Keep the loss of a probed block; after the last of them no gradient is needed."""
        if self.latents is not None and not call.unconditional:
            self.collected[str(block)] = self.loss.of_block(str(block), image)
            if len(self.collected) == len(self.loss.probes):
                torch.set_grad_enabled(False)
        return image

    def returned(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        call = self.call
        if call is None:
            return None
        velocity = output[0]
        if not call.unconditional:
            self.correction = self._correct(call, velocity)
        assert self.correction is not None
        changed = velocity.detach().clone()
        changed[:, : call.lengths.image] += self.correction.to(velocity.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else type(output)(sample=changed)

    def ended(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self.outer is not None:
            torch.set_grad_enabled(self.outer)
            self.outer = None

    def _correct(self, call: Call, velocity: Tensor) -> Tensor:
        assert self.latents is not None
        began = time.perf_counter()
        sigma, tokens = self._sigma(call.step), call.lengths.image
        drawn = velocity[:, :tokens].float()
        if self.form == "frozen":
            losses, gradient = _at_clean(self.loss, self.latents[:, :tokens].float() - sigma * drawn)
        else:
            with torch.enable_grad():
                if isinstance(self.loss, ProbeLoss):
                    losses = torch.stack(list(self.collected.values())).sum(0)
                else:
                    losses = self.loss(self.latents[:, :tokens].float() - sigma * drawn)
            gradient = _gradient(losses, self.latents)[:, :tokens]
        drawn = drawn.detach()
        correction = self.strength.correction(gradient.float(), drawn, sigma)
        shares = (_length(correction) / _length(drawn)).flatten().tolist()
        self.trace.append(Guided(call.step, tuple(losses.tolist()), tuple(shares), time.perf_counter() - began))
        return correction

    def _sigma(self, step: int) -> float:
        sigmas = self.pipe.scheduler.sigmas
        if len(sigmas) != self.of + 1:
            raise HandscopeError(
                f"The scheduler has {len(sigmas) - 1} steps, and the guidance is for a run of {self.of}."
            )
        return float(sigmas[self.of - step])


def _at_clean(loss: Loss, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (batch,) of predicted clean latents, and their gradient, with the velocity taken as constant."""
    with torch.enable_grad():
        clean = clean.detach().requires_grad_()
        losses = loss(clean)
        return losses.detach(), _gradient(losses, clean)


def _gradient(losses: Tensor, of: Tensor) -> Tensor:
    if losses.shape != of.shape[:1]:
        raise HandscopeError(
            f"Expected the loss to be one number an image, of shape ({len(of)},), found shape {tuple(losses.shape)}."
        )
    if not bool(losses.isfinite().all()):
        raise HandscopeError(f"Expected finite losses, found {losses.tolist()}: there is no gradient to follow.")
    if not losses.requires_grad:
        raise HandscopeError("The loss does not depend on what it was given: there is no gradient to follow.")
    (gradient,) = torch.autograd.grad(losses, of, torch.ones_like(losses))
    return gradient


def _length(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)[:, None, None]


@contextmanager
def _differentiable(transformer: Any, checkpoint: bool) -> Iterator[None]:
    """Gradients with respect to the latents alone: none are kept for the weights."""
    weights = [weight for weight in transformer.parameters() if weight.requires_grad]
    was = transformer.is_gradient_checkpointing
    for weight in weights:
        weight.requires_grad_(False)
    if checkpoint and not was:
        transformer.enable_gradient_checkpointing()
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
        if checkpoint and not was:
            transformer.disable_gradient_checkpointing()
