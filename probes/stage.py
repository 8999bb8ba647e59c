"""The probe stage: a logistic probe of every cell, beside its baselines and what it adds to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..analysis.statistics.folds import grouped_folds
from ..analysis.statistics.multiple import benjamini_hochberg
from ..analysis.subject_tokens import SubjectTokens, groups_of, instance_table, mixed
from ..extract.picture_statistics import predicted_statistics
from ..files import write_csv
from ..labeling.table import SUBSETS, labelled, sample_table
from ..parallel import each
from ..progress import Progress, quiet
from ..run.record import fresh, made_from, set_fresh
from ..stages import PROBE
from .accessible import accessible_tables
from .baselines import Baseline, random_projection, run_baselines
from .between import pairs_of_cells
from .chosen import chosen_cells
from .crossval import CrossValidation, cross_validate, labellings
from .gains import INSTEAD, gains
from .logistic import LogisticProbe
from .methods import calibration_rows, family, other_methods
from .nested import GRID
from .places import has_all_tokens
from .ridge import RidgeProbe
from .saved import save_probe
from .transfer import probe_transfer
from .whole import block_flat

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore
    from ..run.folder import Run

Array = NDArray[np.float64]

L2 = 100.0
"""Penalty of every probe and baseline, settled beforehand: chosen on the same samples, it would need nested folds."""


@threadpool_limits.wrap(limits=1, user_api="blas")  # as in `analyze`
def probe(
    run: Run,
    permutations: int = 1000,
    folds: int = 5,
    seed: int = 0,
    primary: str | None = None,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Fit a probe of bad against good to the sample vectors of every cell, and say what it is worth.

    Where a picture has several instances, each has a vector of its own and is good or bad as its tokens are labelled;
    those of one picture are permuted together.

    Writes the tables of `handscope.stages.PROBE`, which says what their columns are, and a probe for each cell, fitted
    to all sure samples, in ``probes/``; does nothing when they are there and belong to the present labels, activations
    and arguments. It needs no model: `extract` has decoded the predicted clean images.

    Parameters
    ----------
    permutations : labellings in each null, and as many again permuted inside prompts
    primary : a cell such as ``single.3/14`` that is named before anything is fitted: the report tests it first, alone

    Returns
    -------
    The table of probes.csv. Rows with subset "sure" leave leaning verdicts out, those with "all" take them in. `auc` is
    over held-out samples of one fold; `within_auc` over held-out samples of one prompt, so that nothing a prompt says
    can help; both have intervals from draws of prompts, a permutation null, p, and q over the cells (or baselines) of a
    subset. In added.csv `added` is the gain in held-out AUC when the block joins the baseline's features, and
    `within_added` that of pairs within a prompt; whole_picture.csv has, in the same columns, the gain of a probe of the
    whole predicted picture (x0_flat) over that of the block. Their p is one-sided, of no gain (`compare`);
    conditional.csv has a permutation null, see `conditional_gain`. The other tables are of sure samples: chosen.csv
    (`chosen_cells`), pairs_of_cells.csv (`pairs_of_cells`), methods.csv (`other_methods`), calibration.csv and
    reliability.csv (`calibration_rows`), nonlinear.csv, information.csv and selectivity.csv of the middle step
    (`accessible_tables`), probe_transfer.csv (`probe_transfer`) and, where the store has all tokens, block_flat.csv
    (`block_flat`).

    Raises
    ------
    HandscopeError
        There are too few samples of a class or too few prompts, a file that is needed is missing, or the primary cell
        was not extracted.
    """
    settings: dict[str, Any] = {"permutations": permutations, "folds": folds, "seed": seed}
    now = made_from(run.path, PROBE, settings | {"primary": primary})
    if not fresh(run.path, PROBE, now):
        if primary is not None:
            from ..extract.store.store import ActivationStore

            ActivationStore(run.activations_dir).plan.cell(primary)
        samples = _Samples.read(run, folds, seed, progress)
        tables, saved = _asked(samples, settings, progress)
        _write(run, tables, saved)
        set_fresh(run.path, PROBE, now)
    return pd.read_csv(run.analysis_dir / "probes.csv")


@dataclass(frozen=True, eq=False)
class _Samples:
    """The labelled instances of a run, as far as probes and baselines read them.

    Attributes
    ----------
    table : one row an instance of a sample with a verdict that is sure or leans, as of `instance_table`
    vectors, norms : of each cell, arrays of shape (n, width) and (n,): mean vectors and mean lengths of tokens
    """

    run: Run
    store: ActivationStore
    table: pd.DataFrame
    vectors: dict[Cell, NDArray[np.float32]]
    norms: dict[Cell, Array]
    baselines: list[Baseline]

    @classmethod
    def read(cls, run: Run, folds: int, seed: int, progress: Progress) -> _Samples:
        from ..extract.store.store import ActivationStore

        store = ActivationStore(run.activations_dir)
        table = sample_table(run)
        present = SubjectTokens(store, table["sample"].tolist()).samples
        table = table[table["sample"].isin(present)]
        labelled(table, "sure", folds, run.path)  # refuses too few of them before anything is read
        table = instance_table(store, labelled(table, "all", folds, run.path))
        subject = SubjectTokens(store, table["sample"].tolist(), table["instance"].tolist())
        vectors, norms = _read(store, subject, progress)
        baselines = _baselines(run, store, subject, table, vectors, norms, seed, progress)
        return cls(run, store, table, vectors, norms, baselines)

    def of(self, subset: str) -> _Samples:
        """Those of samples whose verdict is in a subset."""
        rows = np.flatnonzero(self.table["verdict"].isin(SUBSETS[subset]))
        if len(rows) == len(self.table):
            return self
        return replace(
            self,
            table=self.table.iloc[rows].reset_index(drop=True),
            vectors={cell: x[rows] for cell, x in self.vectors.items()},
            norms={cell: norm[rows] for cell, norm in self.norms.items()},
            baselines=[replace(baseline, x=baseline.x[rows]) for baseline in self.baselines],
        )

    @property
    def y(self) -> NDArray[Any]:
        return self.table["bad"].to_numpy()

    @property
    def groups(self) -> NDArray[Any]:
        return groups_of(self.table)


@dataclass(frozen=True, eq=False)
class _Judged:
    """Held-out results of one subset: of each cell, and rows of baselines.csv."""

    cells: dict[Cell, CrossValidation]
    baselines: pd.DataFrame

    def rows(self, samples: _Samples) -> pd.DataFrame:
        """Rows of probes.csv."""
        table = _placed(self.cells, family(list(self.cells.values()), samples.y))
        table.insert(table.columns.get_loc("n_bad") + 1, "n_mixed", mixed(samples.table))
        return table


@dataclass(frozen=True, eq=False)
class _Saved:
    """A probe that was fitted to all sure samples, and what its file says of it."""

    cell: Cell
    probe: LogisticProbe
    metadata: dict[str, Any]


def _asked(
    samples: _Samples, settings: dict[str, Any], progress: Progress
) -> tuple[dict[str, pd.DataFrame], list[_Saved]]:
    """All tables by name, and the probes that are kept."""
    sure, every = samples.of("sure"), samples.of("all")
    judged = _judge(sure, "sure", settings, progress)
    tables = _sure_tables(sure, judged, settings, progress)
    saved = [_fit(sure, cell, result, settings) for cell, result in judged.cells.items()]
    # Where no verdict leans, the subset is the same samples again.
    same = len(every.table) == len(sure.table)
    leaning = judged if same else _judge(every, "all", settings, progress)
    probed = {"sure": judged.rows(sure), "all": leaning.rows(every)}
    compared = {"sure": judged.baselines, "all": leaning.baselines}
    tables |= {"probes": _of_subsets(probed), "baselines": _of_subsets(compared).astype({"step": "Int64"})}
    return tables, saved


def _judge(samples: _Samples, subset: str, settings: dict[str, Any], progress: Progress) -> _Judged:
    """Cross-validate the probe of every cell, and every baseline."""
    y, groups = samples.y, samples.groups

    def of_cell(x: NDArray[np.float32]) -> CrossValidation:
        return cross_validate(LogisticProbe(L2), x, y, groups, **settings)

    def of_baseline(baseline: Baseline) -> CrossValidation:
        # With the penalty that suits it best: a baseline that is weak for want of one would flatter the block.
        return cross_validate(RidgeProbe(), baseline.x, y, groups, l2=GRID, **settings)

    fold = grouped_folds(groups, settings["folds"], settings["seed"])
    labellings(y.astype(np.float64), groups, fold, settings["permutations"], settings["seed"])
    stage, count = f"probe {subset}", len(samples.vectors)
    total = count + len(samples.baselines)
    cells = each(of_cell, list(samples.vectors.values()), progress, stage, 0, total)
    baselines = each(of_baseline, samples.baselines, progress, stage, count, total)
    table = family(baselines, y)
    table.insert(0, "step", [baseline.step for baseline in samples.baselines])
    table.insert(0, "baseline", [baseline.name for baseline in samples.baselines])
    return _Judged(dict(zip(samples.vectors, cells, strict=True)), table)


def _sure_tables(
    sure: _Samples, judged: _Judged, settings: dict[str, Any], progress: Progress
) -> dict[str, pd.DataFrame]:
    """The tables that are of sure samples only."""
    y, groups = sure.y, sure.groups
    tables = _calibration_tables(judged, y, groups, settings["seed"])
    tables["chosen"] = chosen_cells(judged.cells, y, groups, settings["seed"])
    tables["pairs_of_cells"] = pairs_of_cells(judged.cells, y, groups, settings["seed"])
    methods = other_methods(list(sure.vectors.values()), y, groups, progress, **settings)
    tables["methods"] = pd.concat([_placed(sure.vectors, table) for table in methods], ignore_index=True)
    measured = {cell: (x, sure.norms[cell]) for cell, x in sure.vectors.items()}
    tables |= _gain_tables(*gains(measured, sure.baselines, y, groups, L2, **settings, progress=progress))
    tables |= accessible_tables(sure.vectors, sure.baselines, y, groups, L2, **settings, progress=progress)
    tables["probe_transfer"] = _transfer(sure.vectors, y, groups, settings, progress)
    if has_all_tokens(sure.store):
        names = sure.table["sample"].tolist()
        tables["block_flat"] = block_flat(
            sure.store, names, sure.baselines, y, groups, L2, **settings, progress=progress
        )
    return tables


def _write(run: Run, tables: dict[str, pd.DataFrame], saved: list[_Saved]) -> None:
    for one in saved:
        save_probe(one.probe, run.probes_dir / f"{one.cell.block}_{one.cell.step}.safetensors", one.metadata)
    for table in PROBE.tables:
        if table.name in tables:
            write_csv(run.path / table.path, tables[table.name])
        else:
            (run.path / table.path).unlink(missing_ok=True)  # of activations that are no longer there


def _place(cell: Cell) -> dict[str, Any]:
    return {"block": str(cell.block), "step": cell.step}


def _placed(cells: Iterable[Cell], table: pd.DataFrame) -> pd.DataFrame:
    """A table with a row for each cell, and its place before it."""
    return pd.concat([pd.DataFrame([_place(cell) for cell in cells]), table], axis=1)


def _read(
    store: ActivationStore, subject: SubjectTokens, progress: Progress
) -> tuple[dict[Cell, NDArray[np.float32]], dict[Cell, Array]]:
    """Vectors (n, width) and mean token norms (n,) of the instances of each cell."""
    vectors: dict[Cell, NDArray[np.float32]] = {}
    norms: dict[Cell, Array] = {}
    for number, cell in enumerate(store.cells):
        progress("read activations", number, len(store.cells))
        moments, norms[cell] = subject.read(cell)
        vectors[cell] = moments.mean.astype(np.float32)
    return vectors, norms


def _baselines(
    run: Run,
    store: ActivationStore,
    subject: SubjectTokens,
    table: pd.DataFrame,
    cells: dict[Cell, NDArray[np.float32]],
    norms: dict[Cell, Array],
    seed: int,
    progress: Progress,
) -> list[Baseline]:
    steps = {step: store.plan.index(step) for step in store.plan.steps}
    x0 = predicted_statistics(run, table["sample"].drop_duplicates().tolist(), steps)
    found = run_baselines(run, table, subject.tokens, int(store.attrs["columns"]), steps, x0, progress)
    deepest = {cell.step: cell for cell in store.cells}  # cells are in the order of blocks, so the last one stays
    for step, cell in deepest.items():
        found.append(Baseline("norm", step, norms[cell][:, None]))
        found.append(Baseline("random", step, random_projection(cells[cell].astype(np.float64), seed)))
    return found


def _of_subsets(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    parts = []
    for subset, table in tables.items():
        part = table.copy()
        part.insert(0, "subset", subset)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _discovered(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """False discovery rates over the rows of each value of a column, beside the p values they come from."""
    for prefix in ("", "within_"):
        if f"{prefix}p" in table:
            table[f"{prefix}q"] = table.groupby(by, sort=False)[f"{prefix}p"].transform(benjamini_hochberg)
    return table


def _gain_tables(added: list[dict[str, Any]], conditional: pd.DataFrame) -> dict[str, pd.DataFrame]:
    found = pd.DataFrame(added)
    instead = found["baseline"] == INSTEAD
    tables = {
        "added": found[~instead].copy(),
        "whole_picture": found[instead].drop(columns="baseline"),
        "conditional": conditional,
    }
    for table in tables.values():
        for prefix in ("", "within_"):
            before = "p_family" if f"{prefix}p_family" in table else "p_floor"
            where = table.columns.get_loc(f"{prefix}{before}") + 1
            table.insert(where, f"{prefix}q", benjamini_hochberg(table[f"{prefix}p"]))
    return tables


def _transfer(
    vectors: dict[Cell, NDArray[np.float32]],
    y: NDArray[Any],
    groups: NDArray[Any],
    settings: dict[str, Any],
    progress: Progress,
) -> pd.DataFrame:
    table = probe_transfer(LogisticProbe(L2), vectors, y, groups, **settings, progress=progress)
    for place, name in enumerate(("fitted", "judged")):
        table.insert(2 * place, f"{name}_block", [str(cell.block) for cell in table[name]])
        table.insert(2 * place + 1, f"{name}_step", [cell.step for cell in table[name]])
    table.insert(table.columns.get_loc("p_family") + 1, "q", benjamini_hochberg(table["p"]))
    return table.drop(columns=["fitted", "judged"])


def _calibration_tables(
    judged: _Judged, y: NDArray[Any], groups: NDArray[Any], seed: int
) -> dict[str, pd.DataFrame]:
    rows: list[dict[str, Any]] = []
    bins: list[pd.DataFrame] = []
    for cell, result in judged.cells.items():
        summary, curve = calibration_rows(result, y, groups, seed)
        rows += [_place(cell) | row for row in summary]
        bins.append(curve.assign(**_place(cell)))
    return {
        "calibration": _discovered(pd.DataFrame(rows), "log_odds"),
        "reliability": pd.concat(bins, ignore_index=True),
    }


def _fit(sure: _Samples, cell: Cell, result: CrossValidation, settings: dict[str, Any]) -> _Saved:
    x, y = sure.vectors[cell], sure.y
    source = ("model", "revision", "weight_hash", "plan")
    metadata: dict[str, Any] = {
        **{key: str(sure.store.attrs[key]) for key in source if key in sure.store.attrs},
        **settings,
        **_place(cell),
        "n_good": int((y == 0).sum()),
        "n_bad": int(y.sum()),
        "held_out_auc": result.auc,
        "held_out_interval": list(result.interval),
        "held_out_p": result.p,
        "held_out_within_auc": result.within_auc if np.isfinite(result.within_auc) else None,
        "held_out_balanced_accuracy": result.balanced_accuracy,
        "tokens": "subject",
        "positive": "bad",
        "input": "mean of an instance's tokens",
    }
    return _Saved(cell, LogisticProbe(L2).fit(x, y), metadata)
