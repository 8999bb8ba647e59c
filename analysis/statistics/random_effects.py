"""The mean of an effect over a few models, each known with an error of its own, for models that were not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import chi2
from scipy.stats import t as student

from ...errors import HandscopeError


@dataclass(frozen=True)
class RandomEffects:
    """A mean over models.

    Attributes
    ----------
    n : how many
    mean, low, high : with its 95% interval
    between : standard deviation of the models' true effects
    heterogeneity_p : of all true effects being equal, by Cochran's Q
    """

    n: int
    mean: float
    low: float
    high: float
    between: float
    heterogeneity_p: float


def random_effects(values: ArrayLike, errors: ArrayLike, level: float = 0.95) -> RandomEffects:
    """Estimate a mean from estimates with standard errors, where the true effects differ.

    Parameters
    ----------
    values, errors : arrays of shape (n,)

    Raises
    ------
    HandscopeError
        There are none, or a standard error is not a positive number.

    Notes
    -----
    The variance between models is that of DerSimonian and Laird (1986); the interval that of Hartung and Knapp (2001)
    and Sidik and Jonkman (2002), Student's t with n - 1 degrees of freedom, whose variance is not taken to be smaller
    than the usual one (Röver, Knapp and Friede 2015, https://doi.org/10.1186/s12874-015-0091-1). It takes the models as
    drawn from those of their kind, and the errors as independent: what the same prompts do to all of them is not in it.
    With one model nothing is known of others.
    """
    x, error = np.asarray(values, np.float64), np.asarray(errors, np.float64)
    if x.ndim != 1 or not len(x) or x.shape != error.shape or not (np.isfinite(error).all() and (error > 0).all()):
        raise HandscopeError(
            f"Expected estimates with a standard error above 0 each, found {x.size} estimates and {error.size} errors"
            f"{', some of which are 0 or not finite' if x.shape == error.shape else ''}: leave those out."
        )
    fixed = 1 / error**2
    q = float(fixed @ np.square(x - fixed @ x / fixed.sum()))
    spare = len(x) - 1
    if not spare:
        return RandomEffects(1, float(x[0]), float("-inf"), float("inf"), float("nan"), float("nan"))
    between = max(0.0, (q - spare) / (fixed.sum() - np.square(fixed).sum() / fixed.sum()))
    weight = 1 / (error**2 + between)
    mean = float(weight @ x / weight.sum())
    inflation = max(1.0, float(weight @ np.square(x - mean)) / spare)
    half = float(student.ppf(0.5 + level / 2, spare) * np.sqrt(inflation / weight.sum()))
    return RandomEffects(len(x), mean, mean - half, mean + half, float(np.sqrt(between)), float(chi2.sf(q, spare)))
