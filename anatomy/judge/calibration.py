"""How evidence is weighed for `calibrated`: a logistic regression, kept as plain numbers with where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError
from ...files import atomic, refuse_unusable

SHIPPED = {
    "general": Path(__file__).with_name("calibrated.json"),
    "renders": Path(__file__).with_name("calibrated_renders.json"),
    "organism": Path(__file__).with_name("calibrated_organism.json"),
}
"""Those that ship: "general", whose picture head learnt from faults planted in photographs; "renders", fitted to
renders and photographs without that head; and "organism", fitted to its hand-labelled pictures."""
SCHEMA = 1
CLIP = 6.0  # standard deviations beyond which evidence counts no more: one wild number must not decide


@dataclass(frozen=True)
class Calibration:
    """Weights, and how far the verdicts that they give agreed with a person's.

    Attributes
    ----------
    names : evidence that is weighed, in order. mean, scale, weights : one number each. intercept : float.
    threshold : probability of "bad" from which a hand is called implausible.
    passes : that below which it is called plausible, at most the threshold, which it is where None; between the two
        nothing can be told.
    flags : names of evidence to the least and the most (or None) beyond which a hand is implausible, if anything can be
        told of it at all.
    limits : names of evidence to the least and the most (or None) between which anything can be told of a hand.
    trust : what each method did on labelled hands that it was not fitted to; see `calibrate.agreement`.
    provenance : what it was fitted to, and by what.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    threshold: float
    passes: float | None = None
    flags: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    limits: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    trust: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passing(self) -> float:
        """`passes`, or the threshold."""
        return self.threshold if self.passes is None else self.passes

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability of "bad" for rows of evidence (m, n_names): (m,)."""
        return 1 / (1 + np.exp(-(self.shares(x).sum(1) + self.intercept)))

    def shares(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each piece of evidence adds to the log-odds of "bad", beside an average hand: (m, n_names)."""
        return standardised(x, np.array(self.mean), np.array(self.scale)) * np.array(self.weights)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; all of it or nothing."""
        text = json.dumps({"handscope_calibration": SCHEMA, **asdict(self)}, indent=1, allow_nan=False)
        with atomic(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str] = "general") -> Calibration:
        """Read a file, or one of `SHIPPED` by its name; HandscopeError where the file is not a calibration."""
        path = SHIPPED.get(str(path), Path(path))
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(card, dict) or card.pop("handscope_calibration", None) != SCHEMA:
                raise ValueError(f"no calibration of schema {SCHEMA}")
            values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in card.items()}
            read = cls(**values)
            lengths = {len(part) for part in (read.names, read.mean, read.scale, read.weights)}
            numbers = [*read.mean, *read.scale, *read.weights, read.intercept, read.threshold]
            bounds = [*read.limits.values(), *read.flags.values()]
            numbers += [read.passing, *(end for ends in bounds for end in ends if end is not None)]
            if len(lengths) != 1 or not np.isfinite(np.array(numbers, float)).all() or min(read.scale, default=1) <= 0:
                raise ValueError("its numbers do not fit each other")
            if read.passing > read.threshold or any(len(ends) != 2 for ends in bounds):
                raise ValueError("its thresholds do not fit each other")
        except FileNotFoundError:
            raise HandscopeError(
                f"There is no calibration {path}: make one with handscope anatomy calibrate."
            ) from None
        except (OSError, ValueError, TypeError) as error:
            refuse_unusable(error, path)
            raise HandscopeError(
                f"{path} is not a calibration, or is damaged ({error}): make it again with handscope anatomy calibrate."
            ) from error
        return read


def standardised(
    x: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rows (m, k) in standard deviations from the mean, at most `CLIP` of them."""
    return np.clip((x - mean) / scale, -CLIP, CLIP)


def fit(
    x: NDArray[np.float64],
    bad: NDArray[np.bool_],
    names: Sequence[str],
    *,
    l2: float,
    weight: NDArray[np.float64] | None = None,
    threshold: float = 0.5,
) -> Calibration:
    """Logistic regression on standardised, clipped evidence.

    Parameters
    ----------
    x : (m, n_names); bad : (m,), 1 for bad; weight : (m,), how much a row counts, 1 unless given
    l2 : half of it times the squared length of the weights is added to the sum of log losses

    Returns
    -------
    Calibration without trust or provenance

    Raises
    ------
    HandscopeError
        All hands have one label, so that there is nothing to tell apart.
    """
    from sklearn.linear_model import LogisticRegression

    if bad.min(initial=1) == bad.max(initial=0):
        kinds = "bad" if len(bad) and bad[0] else "good"
        raise HandscopeError(
            f"Expected good and bad hands to fit a calibration to; all {len(bad)} are {kinds}: label more."
        )
    weight = np.ones(len(bad)) if weight is None else weight
    mean = np.average(x, axis=0, weights=weight)
    scale = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    scale = np.where(scale > 1e-9, scale, 1.0)  # a constant tells nothing, and divides by nothing
    z = standardised(x, mean, scale)
    model = LogisticRegression(C=1 / l2, max_iter=5000, tol=1e-6).fit(z, bad, sample_weight=weight)
    return Calibration(
        tuple(names),
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(model.coef_[0].tolist()),
        float(model.intercept_[0]),
        threshold,
    )
