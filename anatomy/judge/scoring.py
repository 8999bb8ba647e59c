"""Whether hands are plausible: the verdict of a method on each hand of a batch of pictures.

    scores = score(images)                    # any pictures: tensors, arrays, PIL, paths
    scores.table()                            # a row a hand, and one for each picture without a hand that was found
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from ...errors import HandscopeError
from ..measure.examine import Examined, examine
from ..read.detect import Boxes, Detector, Search
from ..read.given import single_precision
from ..read.networks import Size
from .calibration import Calibration
from .reasons import outside_limits, violations
from .scores import Verdict, any_violation, paper
from .words import WORDS, by_kind

if TYPE_CHECKING:
    import pandas as pd

    from ..read.given import Images

Method = Literal["calibrated", "any-violation", "paper"]
METHODS: tuple[Method, ...] = ("calibrated", "any-violation", "paper")
NEITHER = "nothing speaks clearly against it, and too little for it"
LEAST_SHARE = 0.3  # of the log-odds, from which a piece of evidence is named as a reason


@dataclass(frozen=True, eq=False)
class Scores:
    """The hands of n pictures and the verdict on each.

    Attributes
    ----------
    method : str
    examined : what was read: hands, angles, ratios, count, evidence.
    verdicts : one a hand, in the order of ``examined.hands``.
    """

    method: Method
    examined: Examined
    verdicts: list[Verdict]

    @property
    def undetected(self) -> list[int]:
        """Pictures in which no hand was found: neither plausible nor implausible."""
        return self.examined.undetected

    def outcomes(self) -> list[str]:
        """Of each picture the gravest of its hands: "implausible", "cannot tell", "plausible"; or "undetected"."""
        outcome = ["undetected"] * self.examined.pictures
        for i, verdict in zip(self.examined.hands.image.tolist(), self.verdicts, strict=True):
            outcome[i] = max(outcome[i], verdict.outcome, key=GRAVITY.index)
        return outcome

    def table(self) -> pd.DataFrame:
        """A row a hand, and one for each picture without one.

        Columns: image, hand (from 1; 0 where none was found), outcome (plausible, implausible, cannot tell,
        undetected), score (higher is more plausible), reasons, found_by, presence, side, x, y, size, rotation
        (degrees), count (4 for fewer than five, 6 for more, 0 unknown), count_probability, and the method's subscores.
        Where no hand was found the numbers are missing and the outcome says why.
        """
        import pandas as pd

        rows, seen = [], dict.fromkeys(range(self.examined.pictures), 0)
        hands = self.examined.hands
        for k, verdict in enumerate(self.verdicts):
            image = int(hands.image[k])
            seen[image] += 1
            x, y, size, turn = hands.region[k].tolist()
            rows.append(
                {
                    "image": image,
                    "hand": seen[image],
                    "outcome": verdict.outcome,
                    "score": verdict.score,
                    "reasons": "; ".join(verdict.reasons),
                    "found_by": hands.found_by[k],
                    "presence": float(hands.presence[k]),
                    "side": "right" if hands.right[k] > 0.5 else "left",
                    "x": x,
                    "y": y,
                    "size": size,
                    "rotation": turn * 180 / torch.pi,
                    "count": max(int(self.examined.count[k]), 0),
                    "count_probability": float(self.examined.sure[k]),
                    **{f"subscore_{name}": value for name, value in verdict.subscores.items()},
                }
            )
        rows += [{"image": i, "hand": 0, "outcome": "undetected", "reasons": NOT_FOUND} for i in self.undetected]
        table = pd.DataFrame(rows, columns=COLUMNS if not rows else None)
        return table.sort_values(["image", "hand"], kind="stable", ignore_index=True)


NOT_FOUND = "no hand was found"
GRAVITY = ("undetected", "plausible", "cannot tell", "implausible")
COLUMNS = (
    "image hand outcome score reasons found_by presence side x y size rotation count count_probability"
).split()


@single_precision()
def score(
    images: Images,
    method: Method = "calibrated",
    *,
    networks: Size = "full",
    search: Search = "thorough",
    boxes: Sequence[Boxes | None] | None = None,
    detector: Detector | None = None,
    max_hands: int = 2,
    raised: Sequence[int | None] | None = None,
    calibration: Calibration | None = None,
) -> Scores:
    """Find the hands of pictures and say of each whether it is plausible, and why not.

    Parameters
    ----------
    images : n pictures: a tensor or array (n, 3, h, w) or (n, h, w, 3) of bytes or of numbers in [0, 1], or a list of
        such pictures of any sizes, PIL pictures and paths of files
    method : "calibrated", "any-violation" or "paper"
    networks : "full", or "lite", which is faster and less exact
    search, boxes, detector, max_hands : as in `detect`
    raised : for each picture how many digits it should show raised, or None; only `calibrated` looks at it
    calibration : weights for `calibrated`; the shipped general ones unless given

    Returns
    -------
    Scores; a picture without a hand that was found is ``undetected``, which is an outcome of its own

    Raises
    ------
    HandscopeError
        The method, the networks or the search are unknown, a picture is none, or `raised` or `boxes` do not fit.

    Examples
    --------
    >>> scores = score(torch.rand(4, 3, 256, 256))                              # doctest: +SKIP
    >>> scores.outcomes()                                                       # doctest: +SKIP
    ['undetected', 'undetected', 'undetected', 'undetected']
    """
    check_method(method)
    read = examine(
        images, networks=networks, search=search, boxes=boxes, detector=detector, max_hands=max_hands, raised=raised
    )
    return judge(read, method, calibration)


def judge(read: Examined, method: Method = "calibrated", calibration: Calibration | None = None) -> Scores:
    """The verdicts of a method on hands that were examined before."""
    check_method(method)
    if method == "calibrated":
        verdicts = calibrated(read, calibration or Calibration.load())
    else:
        verdicts = (paper if method == "paper" else any_violation)(read.count, read.angles, read.ratios)
    return Scores(method, read, verdicts)


def calibrated(read: Examined, calibration: Calibration) -> list[Verdict]:
    """Verdicts of a logistic regression on the evidence; the score is the probability that a hand is good.

    A hand is implausible from the calibration's threshold on, or where evidence leaves its `flags`, and plausible below
    `passes`; between the two nothing can be told of it, nor where evidence leaves its `limits`: then the probability is
    brought between the two. Reasons are what leaves these; of an implausible hand the violated limits of hands and the
    count, and then the evidence that spoke most against it. A plausible hand has none.
    """
    x = read.matrix(calibration.names).numpy()
    p, shares = calibration.probability(x), calibration.shares(x)
    broken = violations(read.count, read.angles, read.ratios)
    beyond, flagged = outside_limits(read, calibration.limits), outside_limits(read, calibration.flags)
    low, high = calibration.passing, calibration.threshold
    verdicts = []
    for i, said in enumerate(broken):
        bad = float(p[i])
        plausible = False if bad >= high else True if bad < low else None
        if flagged[i] and not set(beyond[i]) - set(flagged[i]):
            plausible, bad = False, max(bad, high)
        elif beyond[i]:
            plausible, bad = None, min(max(bad, low), max(high - 1e-6, low))
        kinds = by_kind(dict(zip(calibration.names, shares[i].tolist(), strict=True)))
        against = [f"{WORDS.get(kind, kind)} (+{share:.1f})" for kind, share in kinds.items() if share >= LEAST_SHARE]
        reasons = beyond[i]
        if plausible is False:
            reasons = [*(said or flagged[i]), *against[:3]] or ["many small signs, none of which stands out"]
        elif plausible is None and not reasons:
            reasons = [NEITHER]
        subscores = {kind: -share for kind, share in kinds.items()}
        verdicts.append(Verdict("calibrated", plausible, 1 - bad, subscores, reasons))
    return verdicts


def check_method(method: str) -> None:
    """HandscopeError for a method that there is not."""
    if method not in METHODS:
        raise HandscopeError(f"There is no method {method!r}: choose one of {', '.join(METHODS)}.")
