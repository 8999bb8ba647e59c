"""Reject a picture whose hands look wrong, and draw it again with another seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import HandscopeError
from ..judge.scoring import Scores, score

if TYPE_CHECKING:
    from ..read.given import Images

IMPLAUSIBLE = ("implausible",)
"""The outcomes that are rejected unless others are named."""


def rejected(scores: Scores, outcomes: Sequence[str] = IMPLAUSIBLE) -> list[bool]:
    """Of each picture, whether its outcome (as `Scores.outcomes` has it) is among those named."""
    return [outcome in outcomes for outcome in scores.outcomes()]


def worst(scores: Scores) -> list[float | None]:
    """The lowest score of each picture's hands; None where no hand has one."""
    lowest: list[float | None] = [None] * scores.examined.pictures
    for i, verdict in zip(scores.examined.hands.image.tolist(), scores.verdicts, strict=True):
        before = lowest[i]
        if verdict.score is not None:
            lowest[i] = verdict.score if before is None else min(before, verdict.score)
    return lowest


def reasons(scores: Scores) -> list[list[str]]:
    """What speaks against each picture's hands, in words, those of its first hand first."""
    said: list[list[str]] = [[] for _ in range(scores.examined.pictures)]
    for i, verdict in zip(scores.examined.hands.image.tolist(), scores.verdicts, strict=True):
        said[i] += verdict.reasons
    return said


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was drawn at last.

    Attributes
    ----------
    made : what the function that draws gave. seed : with which. scores : of it. attempts : how often it drew.
    accepted : whether it passed; where none did, it is the one with the best worst hand.
    """

    made: Any
    seed: int
    scores: Scores
    attempts: int
    accepted: bool


def redraw(
    draw: Callable[[int], Any],
    seeds: Sequence[int],
    *,
    pictures: Callable[[Any], Images] = lambda made: made,
    reject: Sequence[str] = IMPLAUSIBLE,
    **options: Any,
) -> Drawn:
    """Draw with one seed after the other until no picture of a drawing is rejected.

    >>> def draw(seed):                                                         # doctest: +SKIP
    ...     return pipe(prompt, generator=torch.Generator().manual_seed(seed)).images
    >>> redraw(draw, range(4)).made[0].save("hand.png")                         # doctest: +SKIP

    Parameters
    ----------
    draw : from a seed to what was drawn
    seeds : tried in this order
    pictures : from what was drawn to its pictures, as `score` takes them
    reject : outcomes that are not taken; with "undetected" among them a picture must show a hand
    options : of `score`

    Raises
    ------
    HandscopeError
        There are no seeds.
    """
    best: tuple[tuple[float, float], Drawn] | None = None
    for attempt, seed in enumerate(seeds, 1):
        made = draw(seed)
        scores = score(pictures(made), **options)
        turned_down = sum(rejected(scores, reject))
        if not turned_down:
            return Drawn(made, seed, scores, attempt, True)
        known = [one for one in worst(scores) if one is not None]
        rank = (-turned_down, min(known, default=-1.0))
        if best is None or rank > best[0]:
            best = rank, Drawn(made, seed, scores, attempt, False)
    if best is None:
        raise HandscopeError("There are no seeds to draw with.")
    taken = best[1]
    return Drawn(taken.made, taken.seed, taken.scores, len(seeds), False)
