"""The cheapest mend: look at an early step, drop what looks bad, and start another seed.

Prior art on whole images: Probe-Select (arXiv 2603.02829) and Diffusion Probe (arXiv 2602.23783).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..brief import brief
from ..errors import HandscopeError
from ..extract.address import Plan
from ..extract.capture import reading
from ..models.clean import predicted_clean
from ..models.registry import family_of
from ..models.sampling import Sampling
from ..progress import Progress, quiet
from .scheduler_step import StepReader


@dataclass(frozen=True, eq=False)
class Look:
    """What is known of a batch of unfinished samples.

    Attributes
    ----------
    prompts : sequence of str
    steps : int
        Steps that remain.
    latents : Tensor of shape (batch, tokens, channels)
        What went into the step.
    clean : Tensor of shape (batch, tokens, channels), float32
        The clean latents predicted there; with no step remaining, the finished ones.
    activations : dict of Tensor of shape (batch, tokens, width), by the selector's blocks
    """

    prompts: Sequence[str]
    steps: int
    latents: Tensor
    clean: Tensor
    activations: dict[str, Tensor]

    __repr__ = brief


class Selector(Protocol):
    """How bad samples look: the higher, the worse. `blocks` names those whose output it reads."""

    @property
    def blocks(self) -> tuple[str, ...]: ...

    def __call__(self, look: Look) -> Tensor:
        """Scores of shape (batch,)."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """One picture for each prompt, and what it took.

    Attributes
    ----------
    images : uint8 array of shape (n, height, width, 3)
    latents : Tensor of shape (n, tokens, channels), finished
    seeds : int array of shape (n,), of the sample that was taken
    scores : float array of shape (n,), of the sample that was taken
    attempts : int array of shape (n,), samples begun
    accepted : bool array of shape (n,)
        Whether the sample was below the threshold; where none was, the best is taken.
    calls : float
        Calls of the transformer for each picture; a plain generation has one a step.
    """

    images: NDArray[np.uint8]
    latents: Tensor
    seeds: NDArray[np.int64]
    scores: NDArray[np.float64]
    attempts: NDArray[np.int64]
    accepted: NDArray[np.bool_]
    calls: float

    __repr__ = brief


def triage(
    sampling: Sampling,
    prompts: Sequence[str],
    seeds: Sequence[Sequence[int]],
    selector: Selector,
    step: int,
    threshold: float | None,
    batch_size: int = 16,
    progress: Progress = quiet,
) -> Chosen:
    """Draw one picture for each prompt, from seeds tried in turn until one looks good enough.

    >>> chosen = triage(sampling, [prompt] * 8, [range(4 * i, 4 * i + 4) for i in range(8)], probe, step=12,
    ...                 threshold=-1.0)                                  # doctest: +SKIP
    >>> chosen.calls                                                    # doctest: +SKIP
    31.5

    Parameters
    ----------
    sampling : Sampling
    prompts : sequence of n str
    seeds : n sequences of int
        What may be tried for each; the first comes first.
    selector : Selector
    step : int
        Steps that remain at the look: the selector sees what goes into that step and what comes out of it. 0 looks at
        finished samples: best-of-n.
    threshold : float or None
        A sample with a score below it is taken at once. None begins all seeds and takes the best.
    batch_size : int
        Samples in one call.

    Raises
    ------
    HandscopeError
        There are not as many lists of seeds as prompts, one is empty, the step is not of this generation, or scores are
        not finite numbers of shape (batch,).
    """
    n = len(prompts)
    if not n or len(seeds) != n or not all(len(tried) for tried in seeds):
        raise HandscopeError(
            f"Expected a list of at least one seed for each prompt, found {n} prompts and {len(seeds)} lists of seeds."
        )
    if not 0 <= step < sampling.steps:
        raise HandscopeError(f"Expected a step to look at between 0 and {sampling.steps - 1}, found {step}.")
    began = sampling.calls
    best: list[_Held | None] = [None] * n
    attempts = np.zeros(n, np.int64)
    open_ = list(range(n))
    while open_:
        for first in range(0, len(open_), batch_size):
            some = open_[first : first + batch_size]
            tried = [seeds[i][attempts[i]] for i in some]
            for i, held in zip(some, _begin(sampling, [prompts[i] for i in some], tried, selector, step)):
                kept = best[i]
                if kept is None or held.score < kept.score:
                    best[i] = held
                attempts[i] += 1
        open_ = [
            i
            for i in open_
            if attempts[i] < len(seeds[i]) and (threshold is None or _held(best[i]).score >= threshold)
        ]
        progress("triage", n - len(open_), n)
    taken = [_held(held) for held in best]
    latents = _finish(sampling, prompts, torch.stack([held.latents for held in taken]), step, batch_size)
    scores = np.array([held.score for held in taken])
    return Chosen(
        np.concatenate([sampling.images(latents[i : i + batch_size]) for i in range(0, n, batch_size)]),
        latents,
        np.array([held.seed for held in taken]),
        scores,
        attempts,
        np.ones(n, bool) if threshold is None else scores < threshold,
        (sampling.calls - began) / n,
    )


def stop_callback(selector: Selector, step: int, threshold: float) -> Callable[..., dict[str, Any]]:
    """A diffusers ``callback_on_step_end`` that interrupts the pipeline where an image of the batch looks bad.

    For one image at a time, in a pipeline of a known family, and for a selector that reads no blocks.
    What the pipeline returns after it was interrupted is unfinished: ``pipe.interrupt`` says so.

    Parameters
    ----------
    step : int
        Steps that remain at the look, below the pipeline's number of steps.
    threshold : float
    """
    if selector.blocks:
        raise HandscopeError("A callback sees latents only, and this selector reads blocks: use triage.")
    reader = StepReader()

    def callback(pipe: Any, index: int, timestep: Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        family = family_of(pipe)
        made = reader.after(pipe, index, family.times(pipe))
        if made is not None and made.step == step:
            noisy, output = family.from_pipeline(made.latents), family.from_pipeline(made.output)
            clean = predicted_clean(noisy.float(), output.float(), family.prediction, made.sigma)
            if float(selector(Look([], step, noisy, clean, {})).max()) >= threshold:
                pipe._interrupt = True
        return kwargs

    return callback


def cost(pass_share: float, attempts: int, step: int, steps: int) -> float:
    """Expected calls for each picture when a share of samples passes the look, in units of a plain generation.

    Parameters
    ----------
    pass_share : float
        Share of samples below the threshold, 0 to 1.
    attempts : int
        Seeds that are tried at most.
    step, steps : int
        Steps that remain at the look, and of the whole generation.

    >>> cost(1.0, 4, 12, 20), round(cost(0.5, 4, 12, 20), 3)
    (1.0, 1.394)
    """
    fail = 1 - pass_share
    begun = attempts if fail == 1 else (1 - fail**attempts) / pass_share
    return calls_of(begun, step, steps) / steps


def calls_of(begun: Any, step: int, steps: int) -> Any:
    """Calls of the transformer when so many samples are begun and one is finished."""
    before = min(steps, steps - step + 1)
    return before * begun + steps - before


def threshold_for(scores: NDArray, wanted: float, attempts: int, step: int, steps: int) -> float:
    """The strictest threshold whose expected cost is at most `wanted` times a plain generation.

    Parameters
    ----------
    scores : array of shape (n,)
        Of samples that the selector was not fitted to.
    wanted, attempts, step, steps : as of `cost`
    """
    if not wanted >= 1:
        raise HandscopeError(f"A picture costs at least one generation; expected a cost of 1 or more, found {wanted}.")
    ordered = np.sort(np.asarray(scores, np.float64))
    if not len(ordered) or not np.isfinite(ordered).all():
        raise HandscopeError(f"Expected finite scores of at least one sample, found {len(ordered)}.")
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    fits = [cost(float(share), attempts, step, steps) <= wanted for share in shares]
    place = int(np.argmax(fits))  # the smallest share that is cheap enough; all of them pass at the cost of 1
    return float(np.nextafter(ordered[place], np.inf))


@dataclass(frozen=True, eq=False)
class _Held:
    """A sample that was begun: its score at the look, and the latents that go into the step after it."""

    seed: int
    score: float
    latents: Tensor


def _held(held: _Held | None) -> _Held:
    assert held is not None
    return held


def _begin(
    sampling: Sampling, prompts: Sequence[str], seeds: Sequence[int], selector: Selector, step: int
) -> list[_Held]:
    """Draw up to the look, which is after the step's call."""
    x = sampling.noise(seeds)
    look_at = sampling.steps - step
    for index in range(min(look_at, sampling.steps)):
        x, _ = sampling.step(x, prompts, index)
    activations: dict[str, Tensor] = {}
    clean, before = x.float(), x
    if step:
        plan = Plan(list(selector.blocks), [step], sampling.steps) if selector.blocks else None
        if plan is None:
            x, output = sampling.step(before, prompts, look_at)
        else:
            with reading(sampling.model.transformer, plan, [step], None, None) as seen:
                x, output = sampling.step(before, prompts, look_at)
            activations = {block: seen[block, step].to(before.device) for block in selector.blocks}
        clean = sampling.clean(before, output, look_at)
    scores = selector(Look(prompts, step, before, clean, activations)).double().cpu()
    if scores.shape != (len(seeds),) or not bool(scores.isfinite().all()):
        raise HandscopeError(
            f"Expected finite scores of shape ({len(seeds)},) from the selector, found shape {tuple(scores.shape)}: "
            f"{scores.flatten()[:4].tolist()} …"
        )
    return [_Held(int(seed), float(score), row) for seed, score, row in zip(seeds, scores, x)]


def _finish(sampling: Sampling, prompts: Sequence[str], latents: Tensor, step: int, batch_size: int) -> Tensor:
    """The steps after the look."""
    done = []
    for first in range(0, len(prompts), batch_size):
        x, some = latents[first : first + batch_size], prompts[first : first + batch_size]
        for index in range(min(sampling.steps, sampling.steps - step + 1), sampling.steps):
            x, _ = sampling.step(x, some, index)
        done.append(x)
    return torch.cat(done)
