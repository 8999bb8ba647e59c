"""A run as one of several that are compared: its tables, its samples, and how deep its blocks lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..analysis.subject_tokens import SubjectTokens, instance_table
from ..errors import HandscopeError
from ..files import read_csv
from ..labeling.subject import subject_of
from ..labeling.table import as_seen, labelled, sample_table
from ..run.record import entry_of
from ..stages import PROBE, TABLES

if TYPE_CHECKING:
    from ..extract.store.store import ActivationStore
    from ..run.folder import Run

NEEDED = ("cells", "probes")


@dataclass(frozen=True, eq=False)
class Compared:
    """One of the runs.

    Attributes
    ----------
    name : its folder's name, with that of the folder above where two are called alike
    model : what its pictures were drawn with
    cells : DataFrame, the rows of probes.csv of surely labelled samples, with `sigma` and `depth`
    """

    name: str
    run: Run = field(repr=False)
    model: str
    cells: pd.DataFrame = field(repr=False)

    @cached_property
    def store(self) -> ActivationStore | None:
        """Its activations; None where the run was kept without them."""
        if not any(self.run.activations_dir.glob("**/*.h5")):
            return None
        from ..extract.store.store import ActivationStore

        return ActivationStore(self.run.activations_dir)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """All its samples, prompts as the model sees them."""
        return as_seen(self.run)

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """Instances of samples that are surely labelled and stored, a row each, as `probe` takes them."""
        assert self.store is not None
        table = sample_table(self.run)
        present = SubjectTokens(self.store, table["sample"].tolist()).samples
        table = labelled(table[table["sample"].isin(present)], "sure", self.folds, self.run.path)
        return instance_table(self.store, table)

    @property
    def folds(self) -> int:
        return int(self._settings.get("folds", 5))

    @property
    def seed(self) -> int:
        return int(self._settings.get("seed", 0))

    @property
    def _settings(self) -> dict[str, Any]:
        return dict(entry_of(self.run.path, PROBE).get("settings", {}))

    @property
    def blocks(self) -> list[str]:
        """Those that were read, in the order in which they run."""
        return list(dict.fromkeys(self.cells["block"]))

    @cached_property
    def depth(self) -> dict[str, float]:
        """How deep each block that was read lies, from 0 to 1, the last."""
        return dict(zip(self.cells["block"], self.cells["depth"]))

    @cached_property
    def sigma(self) -> dict[int, float]:
        """The noise level of each step that was read, from the noisiest."""
        return dict(zip(self.cells["step"], self.cells["sigma"]))


def open_runs(runs: Sequence[Run]) -> list[Compared]:
    """Read what is compared of two runs or more.

    Raises
    ------
    HandscopeError
        There are fewer than two, one is given twice, one was not analysed and probed, or they were read at other places
        or of another subject.
    """
    paths = [Path(os.path.realpath(run.path)) for run in runs]
    if len(runs) < 2:
        raise HandscopeError(f"Expected at least two runs to compare, found {len(runs)}: name another.")
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise HandscopeError(f"The run {twice} is named twice, and is like itself: name each run once.")
    found = [_open(run, name) for run, name in zip(runs, _names(paths), strict=True)]
    for what, of in (("what is labelled", _noun), ("which tokens are read", _place)):
        said = {one.name: of(one) for one in found}
        other = next((name for name in said if said[name] != said[found[0].name]), None)
        if other is not None:
            raise HandscopeError(
                f"Expected runs that agree on {what}, found {said[found[0].name]} in {found[0].name} and {said[other]} "
                f"in {other}: compare runs of one kind."
            )
    return found


def _names(paths: list[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart."""
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}" for path in paths]


def _open(run: Run, name: str) -> Compared:
    tables = {}
    for table in NEEDED:
        path = run.path / TABLES[table][0].path
        if not path.exists():
            raise HandscopeError(
                f"There is no {path}: runs are compared by what analyze and probe wrote, so run these in {run.path} "
                "first (runs of pairs, and of crossed prompts and noises, have neither)."
            )
        tables[table] = read_csv(path)
    cells = tables["probes"]
    cells = cells[cells["subset"] == "sure"].merge(
        tables["cells"][["block", "step", "sigma"]], on=["block", "step"], how="left"
    )
    if cells["sigma"].isna().any():
        raise HandscopeError(
            f"{run.analysis_dir} has other cells in probes.csv than in cells.csv: run analyze and probe again."
        )
    depth = depths(list(dict.fromkeys(cells["block"])), run.settings.get("provenance", {}).get("blocks"))
    model = str(run.settings.get("provenance", {}).get("name", "a model"))
    return Compared(name, run, model, cells.assign(depth=cells["block"].map(depth)))


def depths(blocks: Sequence[str], of_model: dict[str, int] | None) -> dict[str, float]:
    """How much of the model lies before the output of each block, from 0 to 1.

    Parameters
    ----------
    blocks : in the order in which they run
    of_model : how many blocks of each kind the model has, in the order in which they run; of a run that does not say,
        the last block that was read of each kind is taken for the last one

    >>> depths(["double.1", "single.3"], {"double": 2, "single": 4})
    {'double.1': 0.3333333333333333, 'single.3': 1.0}
    """
    numbered = {name: (name.partition(".")[0], int(name.partition(":")[0].rpartition(".")[2])) for name in blocks}
    if of_model is None:
        of_model = {}
        for kind, number in numbered.values():
            of_model[kind] = max(of_model.get(kind, 0), number + 1)
    before, total = {}, 0
    for kind, count in of_model.items():
        before[kind], total = total, total + count
    return {name: (before[kind] + number + 1) / total for name, (kind, number) in numbered.items()}


def _noun(one: Compared) -> str:
    return subject_of(one.run).noun


def _place(one: Compared) -> str:
    if one.store is None:
        return "image tokens at the output of blocks"
    return f"{one.store.plan.stream} tokens at the {one.store.plan.at} of blocks"
