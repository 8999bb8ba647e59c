"""Within which bounds an effect lies: what "no effect worth naming" may be said from.

That a test finds nothing says nothing of how large an effect may be; an interval does. An effect lies within bounds at
95% when two one-sided tests at 5% each reject what lies beyond them (Schuirmann 1987), which is when its 90% interval
lies between the bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import norm

from ...errors import HandscopeError


@dataclass(frozen=True)
class Estimate:
    """An effect with its interval, such as a gain in AUC with `lo` and `hi` of a table.

    Attributes
    ----------
    value, low, high : float, `value` from `low` to `high`
    level : float, the level of the interval

    Notes
    -----
    Other levels are had from the two halves of the interval with quantiles of the normal distribution. Where the
    interval was made with Student's t, narrower ones come out a little too wide: the safe side.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __post_init__(self) -> None:
        if not (self.low <= self.value <= self.high and 0 < self.level < 1):
            raise HandscopeError(
                f"Expected a value inside its interval and a level between 0 and 1, found {self.value:g} of "
                f"{self.low:g} to {self.high:g} at {self.level:g}."
            )

    def at(self, level: float) -> tuple[float, float]:
        """The interval at another level.

        >>> [round(end, 2) for end in Estimate(0.0, -1.96, 1.96).at(0.90)]
        [-1.64, 1.64]
        """
        ratio = norm.ppf(0.5 + level / 2) / norm.ppf(0.5 + self.level / 2)
        low = self.value - (self.value - self.low) * ratio
        high = self.value + (self.high - self.value) * ratio
        return float(low), float(high)

    def within(self, confidence: float = 0.95, centre: float = 0.0) -> float:
        """The least distance from `centre` within which the effect lies at this confidence, by two one-sided tests.

        >>> Estimate(0.01, -0.02, 0.04).within() > 0.03
        True
        """
        low, high = self.at(2 * confidence - 1)
        return max(abs(low - centre), abs(high - centre))

    def equivalence_p(self, bound: float, centre: float = 0.0) -> float:
        """The larger p of two one-sided tests: that the effect is `bound` or more below, or above, `centre`."""
        if not bound > 0:
            raise HandscopeError(f"Expected a bound above 0 for what counts as no effect, found {bound:g}.")
        scale = norm.ppf(0.5 + self.level / 2)
        below = _beyond(self.value - (centre - bound), (self.value - self.low) / scale)
        above = _beyond(centre + bound - self.value, (self.high - self.value) / scale)
        return max(below, above)


def _beyond(distance: float, spread: float) -> float:
    """One-sided p that a bound `distance` away from the estimate, towards its outside, is passed."""
    if spread == 0:
        return float(distance <= 0)
    return float(norm.sf(distance / spread))
