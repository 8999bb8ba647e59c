"""Bad samples of one scope against good ones: faults seen in a part of an instance, or only in the whole of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import HandscopeError
from ..labeling.subject import SCOPES, Subject
from ..labeling.table import FEWEST
from .statistics.folds import check_folds


@dataclass(frozen=True, eq=False)
class Contrast:
    """Good samples, and those bad ones whose faults are all of one scope.

    Attributes
    ----------
    name : local or global
    rows : int array of shape (m,), rows of the table of samples
    n_good, n_bad : int
    reason : str, why this contrast cannot be made; empty where it can
    """

    name: str
    rows: NDArray[np.intp]
    n_good: int
    n_bad: int
    reason: str

    @property
    def counts(self) -> dict[str, int]:
        return {"n_good": self.n_good, "n_bad": self.n_bad}


def contrasts(table: pd.DataFrame, folds: int, subject: Subject) -> list[Contrast]:
    """The contrasts of a table of samples with bad, prompt, fold and kinds, as of ``Labels.table()``.

    Bad samples with faults of both scopes, or without a kind, are in neither.
    """
    bad = table["bad"].to_numpy() == 1
    scope = [subject.scopes(kinds) for kinds in table["kinds"]]
    made = []
    for name in SCOPES:
        alone = bad & np.array([scopes == {name} for scopes in scope])
        reason = _reason(name, table[alone | ~bad], folds)
        made.append(Contrast(name, np.flatnonzero(alone | ~bad), int((~bad).sum()), int(alone.sum()), reason))
    return made


def _reason(name: str, table: pd.DataFrame, folds: int) -> str:
    y, fold = table["bad"].to_numpy(), table["fold"].to_numpy()
    if y.sum() < FEWEST:
        return f"{int(y.sum())} bad samples have {name} faults alone, and {FEWEST} are needed: label more"
    if len(np.unique(fold)) < folds:
        return f"samples for {name} faults are left in {len(np.unique(fold))} of {folds} folds: label more prompts"
    try:
        check_folds(y, fold)
    except HandscopeError as error:
        return str(error)
    return ""

