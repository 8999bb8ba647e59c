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
from ..extract.hooks import Call, following, visiting
from ..models.clean import predicted_clean, stepped
from ..models.family import Family
from ..models.registry import family_of
from .correction import LIMIT, Strength, at_clean, gradient_of, length
from .losses import Loss, ProbeLoss
from .scheduler_step import StepReader
from .travel import OwnNoise, noised_back

FORMS = ("exact", "frozen")


@dataclass(frozen=True)
class Guided:
    """What guidance did at one step; with time travel, one of the times that the step was made.

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
    travel: int = 1,
) -> Iterator[list[Guided]]:
    """Guide whatever the pipeline draws within the block by the gradient of a loss.

    >>> with guide(model.pipe, loss, 0.1, steps=range(18, 9, -1), of=20, relative=True) as trace:    # doctest: +SKIP
    ...     model.pipe("an open hand", num_inference_steps=20, max_sequence_length=16, height=96, width=96)
    >>> trace[0].share                                                  # doctest: +SKIP
    (0.1,)

    The first step is never guided: what goes in is pure noise, and the factor of the correction diverges. With
    classifier-free guidance the correction is added to both sides. Where one call has both, it is made from what they
    give together; where each has a call, from the conditional one.

    Parameters
    ----------
    pipe : a pipeline of a family that predicts the velocity, such as FLUX.1, with its own scheduler
    loss : function or ProbeLoss
        From the predicted clean latents (batch, tokens, channels) to losses (batch,), such as a `PictureLoss`; or
        probes on activations, for which the gradient runs through the blocks up to the deepest probed one and no
        further.
    scale, limit, relative : see `Strength`
    steps : sequence of int
        Steps that remain, as in a `Plan`.
    of : int
        Number of steps that the pipeline makes; in image to image its steps times the strength.
    form : str
        ``exact``: the gradient runs through the transformer. ``frozen``: the velocity is taken as constant, so that a
        change of x_t is a change of the predicted clean latents; cheaper, and of no use for probes.
    checkpoint : bool
        Recompute each block in the backward pass instead of keeping what is inside it (`exact` only).
    travel : int
        How often each guided step is made: what it made is noised back to where it began, and it is made again from
        there, at one more evaluation of transformer and loss each. The noise is seeded by what each image began with.
        Captures within the block see the last time, steering works each time. For steps of Euler, without true
        classifier-free guidance.

    Yields
    ------
    list of Guided, which grows as the generation goes on

    Raises
    ------
    HandscopeError
        The form is not known or does not fit the loss, no step is left to guide, `travel` is below 1 or meets true
        classifier-free guidance, the loss gives another shape or is not finite; or as in `capture`.
    """
    if form not in FORMS:
        raise HandscopeError(f"Expected form to be one of {', '.join(FORMS)}, found {form!r}.")
    if form == "frozen" and isinstance(loss, ProbeLoss):
        raise HandscopeError("A probe reads activations, which a frozen velocity does not have: use the exact form.")
    if travel != int(travel) or travel < 1:
        raise HandscopeError(f"Expected travel, how often a guided step is made, to be 1 or more, found {travel!r}.")
    trace: list[Guided] = []
    with ExitStack() as stack:
        strength = Strength(scale, limit, relative)
        guidance = _Guidance(pipe, loss, strength, window(steps, of), of, form, int(travel), trace)
        doing = (
            f"guide by {getattr(loss, '__qualname__', type(loss).__name__)}, {strength}, steps {guidance.steps} of "
            f"{of}, {form}, travel {guidance.travel}"
        )
        counter = stack.enter_context(following(pipe.transformer, range(of, 0, -1), again=True, doing=doing))
        if form == "exact":
            stack.enter_context(_differentiable(pipe.transformer, checkpoint))
        if isinstance(loss, ProbeLoss):
            plan = Plan(list(loss.probes), guidance.steps, of)
            stack.enter_context(visiting(pipe.transformer, counter, plan, guidance.collect))

        def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return guidance.called(counter.call, args, kwargs)

        stack.enter_context(pipe.transformer.register_forward_pre_hook(called, with_kwargs=True))
        # Before all others: while a step is made again, steering and captures still take it for the call that runs.
        stack.enter_context(
            pipe.transformer.register_forward_hook(guidance.returned, with_kwargs=True, prepend=True)
        )
        guidance.own = counter.own
        stack.enter_context(pipe.transformer.register_forward_hook(guidance.ended, always_call=True))
        yield trace


def guidance_callback(
    loss: Loss, scale: float, steps: Sequence[int], limit: float = LIMIT, relative: bool = False
) -> Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any]]:
    """The frozen form as a diffusers ``callback_on_step_end``; it needs no hook on the transformer.

    What the model said is read where the scheduler is given it. A part of the latents that the pipeline has put
    something else into since, as one that inpaints does, is left alone.

    Parameters
    ----------
    As in `guide`; the number of steps is the pipeline's, in image to image those that it makes.
    """
    strength, reader = Strength(scale, limit, relative), StepReader()

    def callback(pipe: Any, index: int, timestep: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        family = _flow_family(pipe)
        times = family.times(pipe)
        made = reader.after(pipe, index, times)
        if made is not None and made.step in window(steps, len(times.timesteps)):
            noisy, velocity = (family.from_pipeline(one).float() for one in (made.latents, made.output))
            losses, gradient = at_clean(loss, predicted_clean(noisy, velocity, "flow", made.sigma))
            change = (made.later - made.sigma) * strength.correction(gradient, velocity, made.sigma)
            latents = family.from_pipeline(kwargs["latents"])
            own = latents == family.from_pipeline(made.stepped).to(latents.dtype)
            latents = torch.where(own, (latents.float() + change).to(latents.dtype), latents)
            kwargs["latents"] = family.to_callback(latents, kwargs["latents"])
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


def _flow_family(pipe: Any) -> Family:
    """The family of a pipeline; one that the correction is not derived for is refused."""
    family = family_of(pipe)
    if family.prediction != "flow":
        raise HandscopeError(
            f"Guidance corrects the velocity of flow matching, and {family.name} predicts {family.prediction}."
        )
    return family


class _Guidance:
    """What the hooks of one guided generation share."""

    own: Callable[[], bool]

    def __init__(
        self,
        pipe: Any,
        loss: Any,
        strength: Strength,
        steps: list[int],
        of: int,
        form: str,
        travel: int,
        trace: list[Guided],
    ) -> None:
        self.pipe, self.loss, self.strength = pipe, loss, strength
        self.family = _flow_family(pipe)
        self.steps, self.of, self.form, self.travel, self.trace = steps, of, form, travel, trace
        self.noise = OwnNoise()
        self.call: Call | None = None
        self.latents: Tensor | None = None
        self.collected: dict[str, Tensor] = {}
        self.correction: Tensor | None = None
        self.outer: bool | None = None  # whether gradients were on outside the call

    def called(
        self, call: Call | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.call, self.latents = None, None
        if call is not None and self.travel > 1:
            self._may_travel(call)
        if call is None or call.step not in self.steps:
            return args, kwargs
        self.call = call
        if call.unconditional:
            return args, kwargs
        if self.form == "exact":
            self.outer = torch.is_grad_enabled()
            torch.set_grad_enabled(True)
        return self._follow(self.family.noisy(call.arguments), args, kwargs)

    def collect(self, call: Call, side: str, block: Block, image: Tensor) -> None:
        """Keep the loss of a probed block; after the last of them no gradient is needed."""
        if self.latents is not None:
            self.collected[str(block)] = self.loss.of_block(str(block), image, call)
            if len(self.collected) == len(self.loss.probes):
                torch.set_grad_enabled(False)

    def returned(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        call = self.call
        if call is None:
            return None
        velocity = self._velocity(call, output)
        if not call.unconditional:
            self.correction = self._correct(call, velocity)
        assert self.correction is not None
        change = self.correction
        if self.travel > 1:
            drawn = velocity.detach().float()
            change = self._make_again(call, module, args, kwargs, drawn + change) - drawn
        return self.family.shifted(output, change)

    def ended(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if self.outer is not None and self.own():
            torch.set_grad_enabled(self.outer)
            self.outer = None

    def _follow(
        self, latents: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of an evaluation at packed latents, which become those whose gradient is wanted."""
        self.latents, self.collected = latents.detach(), {}
        if self.form == "exact":
            self.latents.requires_grad_()
        given = self.family.with_latents(self.family.arguments(args, kwargs), self.latents)
        return self.family.replaced(args, kwargs, self.family.latents, given)

    def _velocity(self, call: Call, output: Any) -> Tensor:
        """The velocity of the picture's tokens, packed: of both sides together where the call has them."""
        rows = self.family.predictions(output)[:, : call.count("image")]
        if len(call.rows) == 1:
            return rows
        return self.family.combined(rows[call.rows["cond"]], rows[call.rows["uncond"]], self.pipe.guidance_scale)

    def _correct(self, call: Call, velocity: Tensor) -> Tensor:
        assert self.latents is not None
        if velocity.shape != self.latents.shape:
            raise HandscopeError(
                f"The transformer is given {self.latents.shape[-1]} channels and predicts {velocity.shape[-1]}, as one "
                "for Control or Fill does, and guide knows one that predicts what it is given: use guidance_callback."
            )
        began = time.perf_counter()
        sigma, drawn = self._sigmas(call.step)[0], velocity.float()
        if self.form == "frozen":
            losses, gradient = at_clean(self.loss, self._clean(drawn, sigma))
        else:
            with torch.enable_grad():
                if isinstance(self.loss, ProbeLoss):
                    losses = torch.stack(list(self.collected.values())).sum(0)
                else:
                    losses = self.loss(self._clean(drawn, sigma))
            gradient = gradient_of(losses, self.latents)
        drawn = drawn.detach()
        correction = self.strength.correction(gradient.float(), drawn, sigma)
        shares = (length(correction) / length(drawn)).flatten().tolist()
        self.trace.append(Guided(call.step, tuple(losses.tolist()), tuple(shares), time.perf_counter() - began))
        return correction

    def _clean(self, velocity: Tensor, sigma: float) -> Tensor:
        """The clean latents predicted of the picture's tokens."""
        assert self.latents is not None
        return predicted_clean(self.latents.float(), velocity, "flow", sigma)

    def _may_travel(self, call: Call) -> None:
        if call.unconditional:
            raise HandscopeError(
                "Time travel makes the conditional call again but not the unconditional one: with true classifier-free "
                "guidance use travel=1."
            )
        if call.step == self.of:
            self.noise.begin(self.family.noisy(call.arguments))

    def _make_again(
        self, call: Call, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], velocity: Tensor
    ) -> Tensor:
        """The velocity that takes the step's own latents to where its last repeat ends, from that of its first time.

        Both packed, (batch, tokens, channels), float32. The transformer's forward is called past its hooks, which count
        calls; those of its blocks run.
        """
        assert self.latents is not None
        sigma, later = self._sigmas(call.step)
        first = latents = self.latents.detach()
        for repeat in range(1, self.travel):
            end = stepped(latents.float(), velocity, "flow", sigma, later)
            latents = noised_back(end, later, sigma, self.noise.draw(call.step, repeat, end)).to(first.dtype)
            with torch.set_grad_enabled(self.form == "exact"):
                again, named = self._follow(latents, args, kwargs)
                drawn = self._velocity(call, module.forward(*again, **named))
            velocity = self._correct(call, drawn) + drawn.detach().float()
        return velocity + (latents.float() - first.float()) / (later - sigma)

    def _sigmas(self, step: int) -> tuple[float, float]:
        """The noise where a step begins and where it ends.

        Counted from the schedule's end: image to image begins in its middle.
        """
        sigmas = self.family.times(self.pipe).sigmas
        if len(sigmas) < self.of + 1:
            raise HandscopeError(
                f"The scheduler has {len(sigmas) - 1} steps, and the guidance is for a run of {self.of}: make `of` the "
                "number of steps that the pipeline makes, in image to image its steps times the strength."
            )
        return float(sigmas[-step - 1]), float(sigmas[-step])


@contextmanager
def _differentiable(transformer: Any, checkpoint: bool) -> Iterator[None]:
    """Gradients with respect to the latents alone: none are kept for the weights."""
    weights = [weight for weight in transformer.parameters() if weight.requires_grad]
    was, outer = transformer.is_gradient_checkpointing, torch.is_grad_enabled()
    for weight in weights:
        weight.requires_grad_(False)
    if checkpoint and not was:
        transformer.enable_gradient_checkpointing()
    try:
        yield
    except BaseException:  # an interrupt from the keyboard inside a call skips the hooks that would end it
        torch.set_grad_enabled(outer)
        raise
    finally:
        for weight in weights:
            weight.requires_grad_(True)
        if checkpoint and not was:
            transformer.disable_gradient_checkpointing()
