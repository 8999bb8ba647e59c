"""What the stages found in a run, read back for figures and words."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..errors import HandscopeError
from ..figures import LEVEL
from ..files import check_readable, read_csv, refuse_unusable
from ..labeling.database.labels import Annotation, Labels
from ..labeling.subject import Subject, subject_of
from ..labeling.table import sample_table
from ..run.record import entry_of
from ..stages import (
    ANALYZE,
    ANATOMY,
    CLASSES,
    COMMIT,
    FEATURES,
    HEADS,
    LENS,
    MEND,
    PATCH,
    PROBE,
    SURVEY,
    TABLES,
    TRIAGE,
    VALUES,
)

if TYPE_CHECKING:
    import numpy as np

    from ..run.folder import Run

REPORTED = (SURVEY, ANALYZE, PROBE, VALUES, CLASSES, PATCH, LENS, HEADS, FEATURES, COMMIT, TRIAGE, MEND, ANATOMY)
"""Stages whose tables the report reads."""
NEEDED = [table.name for stage in REPORTED for table in stage.tables if not table.optional]
OPTIONAL = [table.name for stage in REPORTED for table in stage.tables if table.optional]


@dataclass(frozen=True, eq=False)
class Results:
    """The tables of ``analysis/``, the samples with their verdicts, and what `run.yaml` says.

    Attributes
    ----------
    samples : DataFrame
        As of `sample_table`: every labelled sample.
    generated : int
        How many samples there are, labelled or not.
    cells, cosines, order, probes, baselines, added, whole_picture : DataFrame
        cells.csv, cosines.csv, samples.csv, probes.csv, baselines.csv, added.csv and whole_picture.csv.
    coordinates : dict of arrays
        cells.safetensors.
    annotations : dict of Annotation by sample
    settings : dict
    subject : Subject
        Whose words are used.
    primary : str or None
        The cell that the study file named before the probes were fitted, such as ``single.3/14``.
    optional : dict of DataFrame
        Those of `OPTIONAL` that are there.
    """

    samples: pd.DataFrame
    generated: int
    cells: pd.DataFrame
    cosines: pd.DataFrame
    order: pd.DataFrame
    probes: pd.DataFrame
    baselines: pd.DataFrame
    added: pd.DataFrame
    whole_picture: pd.DataFrame
    coordinates: dict[str, np.ndarray] = field(repr=False)
    annotations: dict[str, Annotation] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    subject: Subject = field(repr=False)
    primary: str | None = None
    optional: dict[str, pd.DataFrame] = field(repr=False, default_factory=dict)

    @classmethod
    def read(cls, run: Run) -> Results:
        """Read a run in which `analyze` and `probe` have ended.

        Raises
        ------
        HandscopeError
            A table is missing or damaged; the message names the file and the stage that writes it.
        """
        tables = {name: _table(run, name) for name in NEEDED}
        path = run.analysis_dir / "cells.safetensors"
        try:
            check_readable(path)
            coordinates = load_file(path)
        except (OSError, SafetensorError) as error:
            refuse_unusable(error, path)
            raise HandscopeError(f"{path} is missing or damaged ({error}): run analyze again.") from error
        return cls(
            samples=sample_table(run),
            generated=len(run.samples()),
            cells=tables["cells"],
            cosines=tables["cosines"],
            order=tables["samples"],
            probes=tables["probes"],
            baselines=tables["baselines"],
            added=tables["added"],
            whole_picture=tables["whole_picture"],
            coordinates=coordinates,
            annotations=Labels(run.labels_path).current(),
            settings=run.settings,
            subject=subject_of(run),
            primary=entry_of(run.path, PROBE).get("settings", {}).get("primary"),
            optional={name: _table(run, name) for name in OPTIONAL if (run.path / TABLES[name][0].path).exists()},
        )

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables of `OPTIONAL`; without rows or columns where the run lacks it."""
        return self.optional.get(name, pd.DataFrame())

    @property
    def tested(self) -> list[tuple[str, pd.DataFrame, str]]:
        """What was tested: a name, the table with a row a cell, and the prefix of its columns, for `power_table`."""
        probes = self.probe_of("sure")
        tables = [("direction", self.cells, "dom_"), ("probe", probes, "")]
        return [*tables, ("probe within prompts", probes, self.prefix)] if self.prefix else tables

    @cached_property
    def prefix(self) -> str:
        """As `headline` says."""
        return headline(self.probe_of("sure"))

    @cached_property
    def best_block(self) -> str:
        """The block whose probes have the highest AUC in the mean over steps, chosen on the samples it is shown on."""
        means = self.probe_of("sure").groupby("block", sort=False)[self.prefix + "auc"].mean()
        return str(means.fillna(-1).idxmax())

    def n(self, prefix: str) -> str:
        """What was counted: ``n = 509 of 32 prompts``, or for pairs within a prompt ``n = 509, 2,031 pairs of …``."""
        return counted(self.probe_of("sure"), self.order, prefix)

    def probe_of(self, subset: str) -> pd.DataFrame:
        """Probes fitted to the samples of a subset, ``sure`` or ``all``."""
        return self.probes[self.probes["subset"] == subset]

    def baseline(self, name: str, subset: str = "sure") -> pd.DataFrame:
        """The rows of one baseline; none where it was not made."""
        return self.baselines[(self.baselines["subset"] == subset) & (self.baselines["baseline"] == name)]

    @cached_property
    def baseline_names(self) -> list[str]:
        """The baselines that were made, in the order in which they stand in the table."""
        return list(dict.fromkeys(self.baselines.loc[self.baselines["subset"] == "sure", "baseline"]))

    @cached_property
    def added_of_best(self) -> pd.DataFrame:
        """What the best block adds to each baseline."""
        return self.added[self.added["block"] == self.best_block]

    @cached_property
    def steps(self) -> list[int]:
        """The steps that were read, noisiest first."""
        return sorted({int(step) for step in self.cells["step"]}, reverse=True)


def headline(probes: pd.DataFrame) -> str:
    """The prefix of the AUC that is shown first, of the rows of probes.csv.

    ``within_``, the columns of pairs within a prompt, if there are any; else empty, the columns of all pairs.
    """
    return "within_" if probes["within_auc"].notna().any() else ""


def counted(rows: pd.DataFrame, order: pd.DataFrame | None, prefix: str) -> str:
    """What rows with n_good and n_bad count, of the samples of samples.csv, where that is there.

    ``n = 509 of 32 prompts``, or for pairs within a prompt ``n = 509, 2,031 pairs of 30 prompts``.
    """
    n = f"n = {int(rows['n_good'].iloc[0] + rows['n_bad'].iloc[0])}"
    if order is None:
        return n
    if prefix != "within_":
        return f"{n} of {order['prompt'].nunique()} prompts"
    bad = order.groupby("prompt")["bad"].agg(["sum", "count"])
    pairs = bad["sum"] * (bad["count"] - bad["sum"])
    return f"{n}, {int(pairs.sum()):,} pairs of {int((pairs > 0).sum())} prompts"


def separable(row: Any, prefix: str = "") -> bool:
    """Whether a row's `q` lets it be told from chance; never where it could not be computed."""
    return bool(row[prefix + "q"] <= LEVEL)


def _table(run: Run, name: str) -> pd.DataFrame:
    table, stage = TABLES[name]
    path = run.path / table.path
    try:
        return read_csv(path)
    except FileNotFoundError as error:
        raise HandscopeError(f"There is no {path}: run {stage.name} first.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise HandscopeError(f"{path} is damaged ({error}): remove it and run {stage.name} again.") from error
