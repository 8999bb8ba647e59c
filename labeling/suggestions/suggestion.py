"""What a suggestion is: somebody must take it over before it is a label."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Suggestion:
    """One source's suggestion for a sample.

    Attributes
    ----------
    source : str
        The name of the suggester.
    labels : uint8 array of shape (rows, columns)
        1 where it sees no instance, else 0: whether an instance is good is for whoever takes it over to say. All 0 of a
        probe.
    instances : uint8 array of shape (rows, columns)
        Instance numbers, from 1. All 0 of a probe.
    map : float32 array of shape (rows, columns) or None
        A probe's log-odds of bad at each token; NaN where it is not known.
    score : float or None
        A detector's least probability that an instance is there; of a probe, the mean of its map.
    """

    source: str
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    map: NDArray[np.float32] | None = None
    score: float | None = None


@dataclass(frozen=True)
class Suggestions:
    """The suggestions for a sample, and why other sources have none.

    Attributes
    ----------
    found : list of Suggestion
    absent : dict of str
        A sentence by source.
    """

    found: list[Suggestion] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
