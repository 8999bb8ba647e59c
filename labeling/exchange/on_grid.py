"""What others say of places in a picture, as verdicts and tokens of a grid."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ...errors import HandscopeError
from ..database.annotation import VERDICTS
from ..subject import Subject
from .fit import Fit
from .pixels import share
from .sources import Source

OUTSIDE = "outside"
"""Said of a place that is of no instance."""
NAMED = 5
"""Unknown words that a refusal names."""
_LABEL = {"good": 2, "good?": 2, "bad?": 3, "bad": 3, "unsure": 0}


def verdicts(
    subject: Subject, found: Sequence[Source], good: Iterable[str], bad: Iterable[str], told: object
) -> Callable[[str], str]:
    """A function from what a file says to a verdict or `OUTSIDE`; "" for what is to be passed over.

    Raises
    ------
    HandscopeError
        Something is said that is no verdict, and neither `good` nor `bad` is given.
    """
    known = {"": "", subject.classes.outside: OUTSIDE}
    known |= {subject.classes.good: "good", subject.classes.bad: "bad", subject.classes.unsure: "unsure"}
    known |= {subject.noun: "unsure"} | {word: verdict for verdict, word in subject.verdicts.items()}
    known |= {verdict: verdict for verdict in VERDICTS}
    known |= dict.fromkeys(good, "good") | dict.fromkeys(bad, "bad")
    every = sorted({said for one in found for said in (one.said, *(region.said for region in one.regions))})
    unknown = [said for said in every if said not in known]
    if unknown and not (good or bad):
        raise HandscopeError(
            f"{told} says {', '.join(map(repr, unknown[:NAMED]))}, which is no verdict that handscope knows: say which "
            "are good and which are bad, with --good and --bad; others are then passed over."
        )
    return lambda said: known.get(said, "")


def on_grid(
    source: Source, fit: Fit, original: tuple[int, int], grid: tuple[int, int], verdict: Callable[[str], str]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Labels and instances on the token grid, and the verdict on the whole; "" where nothing is said.

    A token belongs to an instance if at least half of it does; an instance without such a token has the one that it
    fills most. A verdict without a place is of the whole picture: all of its tokens are those of one instance.

    Raises
    ------
    HandscopeError
        There are too many instances, or all are cut away; without the picture's name.
    """
    labels, instances = np.zeros(grid, np.uint8), np.zeros(grid, np.uint8)
    whole = (verdict(source.said) or verdict(str(source.columns.get("folder", "")))).replace(OUTSIDE, "")
    judged = [(verdict(region.said) or ("" if region.said else whole), region) for region in source.regions]
    outside = [mask for said, region in judged if said == OUTSIDE for mask in region.masks(original)]
    judged = [(said, region) for said, region in judged if said != OUTSIDE]
    kept = [(said or "unsure", region) for said, region in judged if said or not region.said]
    masks = [(said, mask) for said, region in kept for mask in region.masks(original)]
    if not masks:
        if whole and not source.regions:
            instances[share(fit.inside().astype(np.float32), *grid) >= 0.5] = 1
            labels[instances > 0] = _LABEL[whole]
        _mark_outside(labels, instances, outside, fit, grid)
        return labels, instances, whole if instances.any() else ""
    shares = np.stack([share(fit.mask(mask), *grid) for _, mask in masks])
    if len(masks) > 255:
        raise HandscopeError(f"it has {len(masks)} instances, and a picture has at most 255")
    best = shares.argmax(0)
    for number, (said, _) in enumerate(masks):
        own = (best == number) & (shares[number] >= 0.5)
        if not own.any() and shares[number].any():
            own = shares[number] == shares[number].max()
        instances[own], labels[own] = number + 1, _LABEL[said]
    if not instances.any():
        raise HandscopeError("all that is labelled in it is cut away: say --fit pad")
    _mark_outside(labels, instances, outside, fit, grid)
    shown = [masks[number - 1][0] for number in np.unique(instances) if number]
    return labels, instances, whole or next(one for one in ("bad", "bad?", "unsure", "good?", "good") if one in shown)


def _mark_outside(
    labels: np.ndarray, instances: np.ndarray, outside: Iterable[np.ndarray], fit: Fit, grid: tuple[int, int]
) -> None:
    """Label tokens that are said to be of no instance, and are not."""
    for mask in outside:
        labels[(share(fit.mask(mask), *grid) >= 0.5) & (instances == 0)] = 1
