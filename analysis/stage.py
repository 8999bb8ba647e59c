"""The analyze stage: for each cell a direction, a plane, components and distances, with what they are worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..errors import HandscopeError
from ..files import atomic, write_csv
from ..labeling.subject import subject_of
from ..labeling.table import labelled, sample_table
from ..parallel import each
from ..progress import Progress, quiet
from ..run.record import fresh, made_from, set_fresh
from ..stages import ANALYZE
from . import held_out
from .class_parts import CellSums, ClassParts
from .comparison import Comparison
from .contrasts import Contrast, contrasts
from .directions import cosines, difference_of_means, half_directions, unit
from .distance import Bhattacharyya
from .statistics.folds import check_folds, grouped_folds
from .statistics.multiple import benjamini_hochberg, family_p
from .subject_tokens import SubjectTokens, instance_table, mixed
from .transfer import SharedDirection, Transfer, transfer

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore
    from ..run.folder import Run

Array = NDArray[np.float64]

Tested = tuple[dict[str, Any], dict[str, Array]]
"""Columns of a row, and the statistics of its tests, as of `comparison.Answered`."""

CONTRAST_COLUMNS = [
    "contrast", "block", "step", "n_good", "n_bad", "dom_auc", "dom_lo", "dom_hi", "dom_null_mean", "dom_null_sd",
    "dom_p", "dom_p_floor", "dom_auc_in_sample", "dom_within_auc", "cosine_all", "db", "db_mean_term",
    "db_variance_term", "db_null_mean", "db_null_sd", "db_excess", "db_lo", "db_hi", "db_z", "db_p", "db_p_floor",
    "reason",
]  # fmt: skip

GAUSSIANITY_COLUMNS = [
    "block", "step", "effective_rank", "kurtosis", "kurtosis_max", "norm_outliers", "bayes_lo", "bayes_hi",
    "llr_auc_implied", "llr_auc_in_sample", "llr_auc", "reason",
]  # fmt: skip

ALPHA = 1.0
"""Contrast of the components of bad against good samples; `contrastive_sweep` looks at other ones."""

UNPAIRED = "no prompt has both good and bad samples, so nothing can be compared within one"
UNHALVED = "no halving of the prompts leaves both classes on both sides"


# Matrices here are small: threads gain nothing, and on a busy machine their waiting for one another cost ten times.
@threadpool_limits.wrap(limits=1, user_api="blas")
def analyze(
    run: Run, permutations: int = 1000, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Compare bad with good samples in every cell of a run's activations, on samples whose verdict is sure.

    Where a picture has several instances, each counts as a sample of its own, good or bad as its tokens are labelled,
    and those of one picture are permuted together.

    Writes the tables of `handscope.stages.ANALYZE`, which says what their columns are, and
    ``analysis/cells.safetensors``; does nothing when they are there and belong to the present labels, activations and
    arguments.

    Parameters
    ----------
    permutations : labellings in each null
    folds : of prompts

    Returns
    -------
    The table of cells.csv. `dom` is the difference of means (the null of `dom_p` is that good and bad are of one
    distribution, that of `dom_student_p` an AUC of 1/2 whatever their spread: `studentised_auc`), `db` the
    Bhattacharyya distance in nats, `c2st` the classifier two-sample test. AUCs are of projections of sample vectors
    (the mean of a sample's tokens of the subject) on directions fitted without their fold; `dom_auc_in_sample` alone is
    not. `db` is in-sample too, and `db_excess`, with its interval `db_lo` to `db_hi`, is what remains of it above the
    null; `n_mixed` pictures have good and bad instances. `massive_channels` were left out, and so were
    `constant_channels`, which do not vary in one class; both are numbers joined by semicolons. `reason` says why a
    number is missing.

    Raises
    ------
    HandscopeError
        There are too few samples of a class or too few prompts, or a cell holds NaN or infinity, or never varies.
    """
    settings = {"permutations": permutations, "folds": folds, "seed": seed}
    now = made_from(run.path, ANALYZE, settings)
    if fresh(run.path, ANALYZE, now):
        text = {"massive_channels": str, "constant_channels": str, "reason": str}
        return pd.read_csv(run.analysis_dir / "cells.csv", dtype=text)
    questions = _Questions.of(run, **settings)
    cells = questions.store.cells
    answers = each(questions.answer, cells, progress, "analyze")
    whole = questions.whole
    vectors = {answer.cell: answer.vectors for answer in answers}
    carried = transfer(vectors, whole.y, whole.groups, whole.fold, permutations, seed=seed, progress=progress)
    tables = _tables(questions, answers, carried)
    _write(run, tables, _arrays(answers, carried.shared))
    set_fresh(run.path, ANALYZE, now)
    return tables["cells"]


@dataclass(frozen=True, eq=False)
class _Answer:
    """What was found in one cell.

    Attributes
    ----------
    row, diagnosis : columns of cells.csv and of gaussianity.csv
    tested : the statistics of each test of the row, as of `comparison.Answered`
    contrasted : rows of contrasts.csv, with theirs
    arrays : for cells.safetensors
    vectors, halves : array of shape (n, width), and as of `half_directions`
    """

    cell: Cell
    row: dict[str, Any]
    tested: dict[str, Array]
    diagnosis: dict[str, Any]
    contrasted: list[Tested]
    arrays: dict[str, Array]
    vectors: NDArray[np.float32]
    halves: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Questions:
    """What is asked of every cell alike: all bad samples against all good ones, and those of each scope of fault.

    Attributes
    ----------
    table : the samples that are compared, with `bad` and `fold`
    compared : the contrasts that can be made, by name
    """

    store: ActivationStore
    table: pd.DataFrame
    parts: ClassParts
    whole: Comparison
    contrasts: list[Contrast]
    compared: dict[str, Comparison]
    sigma: pd.Series
    seed: int

    @classmethod
    def of(cls, run: Run, permutations: int, folds: int, seed: int) -> _Questions:
        from ..extract.store.store import ActivationStore

        store = ActivationStore(run.activations_dir)
        table = sample_table(run)
        present = SubjectTokens(store, table["sample"].tolist()).samples
        table = instance_table(store, labelled(table[table["sample"].isin(present)], "sure", folds, run.path))
        table["fold"] = grouped_folds(table["prompt"].to_numpy(), folds, seed)
        check_folds(table["bad"].to_numpy(), table["fold"].to_numpy())
        parts = ClassParts(store, table)
        scopes = contrasts(table, folds, subject_of(run))
        return cls(
            store,
            table,
            parts,
            Comparison.of(table, np.arange(len(table)), permutations, seed),
            scopes,
            {one.name: Comparison.of(table, one.rows, permutations, seed) for one in scopes if not one.reason},
            store.steps.set_index("step")["sigma"],
            seed,
        )

    def answer(self, cell: Cell) -> _Answer:
        """Read one cell and compare its samples."""
        address = {"block": str(cell.block), "step": cell.step}
        sums = self.parts.read(cell)
        try:
            row, tested, arrays = _compare(self.whole, sums, self.seed)
        except HandscopeError as error:
            raise HandscopeError(f"Cell {cell.block} at step {cell.step}: {error}") from error
        contrasted = [
            _contrast(one, self.compared.get(one.name), sums, arrays["direction"], self.seed) for one in self.contrasts
        ]
        halves = half_directions(sums.vectors, self.whole.y, self.whole.groups, seed=self.seed)
        return _Answer(
            cell,
            {
                **address,
                "sigma": float(self.sigma.loc[cell.step]),
                **self.whole.counts,
                "n_mixed": mixed(self.table),
                **row,
            },
            tested,
            {**address, **asdict(self.parts.diagnose(cell, sums)), **_bounds(row)},
            [
                ({"contrast": one.name, **address, **row}, statistics)
                for one, (row, statistics) in zip(self.contrasts, contrasted, strict=True)
            ],
            arrays,
            sums.vectors.astype(np.float32),
            halves.astype(np.float32),
        )


def _tables(questions: _Questions, answers: list[_Answer], carried: Transfer) -> dict[str, pd.DataFrame]:
    """The tables of the stage, by name."""
    cells = _cell_table(answers, carried.shared)
    pairs = cosines([answer.arrays["direction"] for answer in answers], [answer.halves for answer in answers])
    return {
        "cells": cells,
        "samples": questions.table[["sample", "instance", "prompt", "bad", "fold", "verdict"]],
        "cosines": _long(pairs, cells),
        "contrasts": _contrast_table([answered for answer in answers for answered in answer.contrasted]),
        "gaussianity": pd.DataFrame([answer.diagnosis for answer in answers])[GAUSSIANITY_COLUMNS],
        "transfer": carried.table(),
        "shared": _shared_table(carried.shared, len(cells)),
    }


def _arrays(answers: list[_Answer], shared: SharedDirection) -> dict[str, Array]:
    found = {f"{answer.cell}/{name}": array for answer in answers for name, array in answer.arrays.items()}
    return found | {"shared/direction": shared.direction}


def _write(run: Run, tables: dict[str, pd.DataFrame], arrays: dict[str, Array]) -> None:
    for table in ANALYZE.tables:
        write_csv(run.path / table.path, tables[table.name])
    with atomic(run.analysis_dir / "cells.safetensors") as temporary:
        save_file({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}, temporary)


def _compare(whole: Comparison, sums: CellSums, seed: int) -> tuple[dict[str, Any], dict[str, Array], dict[str, Array]]:
    """A cell's columns, the statistics of its tests, and its arrays for cells.safetensors."""
    x, y, fold = sums.vectors, whole.y, whole.fold
    coordinates, shares = held_out.components(x, fold, seed)
    direction, tested = whole.direction(sums, seed)
    distance, of_distance = whole.distance(sums, seed)
    classifier, of_classifier = whole.classifier(sums, seed)
    row: dict[str, Any] = {
        **direction,
        **distance,
        **classifier,
        "pca_var1": shares[0],
        "pca_var2": shares[1],
        "massive_channels": ";".join(map(str, sums.massive)),
        "constant_channels": ";".join(map(str, sums.constant)),
    }
    row["reason"] = UNPAIRED if np.isnan(row["dom_within_auc"]) else ""
    arrays = {
        "pca": coordinates,
        "cpca": held_out.contrastive(x, y, fold, ALPHA),
        "plane": held_out.on_planes(x, y, fold),
        "direction": unit(difference_of_means(x[y == 0], x[y == 1])),
    }
    return row, tested | of_distance | of_classifier, arrays


def _contrast(one: Contrast, comparison: Comparison | None, sums: CellSums, direction: Array, seed: int) -> Tested:
    """Columns of a contrast in a cell, with the statistics of its tests; the reason where there is no comparison."""
    if comparison is None:
        return {**one.counts, "reason": one.reason}, {}
    x, y = sums.vectors[comparison.rows], comparison.y
    own = unit(difference_of_means(x[y == 0], x[y == 1]))
    found, tested = comparison.direction(sums, seed)
    row: dict[str, Any] = {**one.counts, **found, "cosine_all": float(own @ direction)}
    row["reason"] = UNPAIRED if np.isnan(row["dom_within_auc"]) else ""
    try:
        distance, of_distance = comparison.distance(sums, seed)
    except HandscopeError as error:
        return {**row, "reason": "; ".join(filter(None, (row["reason"], str(error))))}, tested
    return row | distance, tested | of_distance


def _cell_table(answers: list[_Answer], shared: SharedDirection) -> pd.DataFrame:
    cells = pd.DataFrame([answer.row for answer in answers])
    cells["shared_auc"], cells["shared_p"], cells["shared_p_floor"] = shared.auc, shared.p, shared.p_floor
    cells["shared_p_family"] = shared.p_family
    cells = _corrected(cells, [answer.tested for answer in answers])
    cells.insert(len(cells.columns) - 1, "reason", cells.pop("reason"))
    return cells


def _contrast_table(answered: list[Tested]) -> pd.DataFrame:
    table = pd.DataFrame([row for row, _ in answered]).reindex(columns=CONTRAST_COLUMNS)
    parts = [
        _corrected(part.copy(), [answered[place][1] for place in part.index])
        for _, part in table.groupby("contrast", sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def _corrected(table: pd.DataFrame, tested: list[dict[str, Array]]) -> pd.DataFrame:
    """The table with, behind every p, one adjusted for all its rows and a false discovery rate over them.

    Parameters
    ----------
    tested : of each row the statistics of its tests, as of `comparison.Answered`; no p where a row lacks a test
    """
    for name in [column.removesuffix("_p") for column in table.columns if column.endswith("_p")]:
        adjusted = f"{name}_p_family"
        if adjusted not in table:
            behind = table.columns.get_loc(f"{name}_p_floor") + 1
            table.insert(behind, adjusted, _adjusted([row.get(name) for row in tested]))
        table.insert(table.columns.get_loc(adjusted) + 1, f"{name}_q", benjamini_hochberg(table[f"{name}_p"]))
    return table


def _adjusted(statistics: list[Array | None]) -> Array:
    there = [one for one in statistics if one is not None]
    none = np.full(len(there[0]) if there else 1, np.nan)
    both = np.stack([none if one is None else one for one in statistics], axis=1)
    return family_p(both[0], both[1:])


def _bounds(row: dict[str, Any]) -> dict[str, float]:
    """The Bayes error of single tokens if the model and the distance in-sample were true."""
    low, high = Bhattacharyya(row["db_mean_term"], row["db_variance_term"]).bayes_error
    return {"bayes_lo": low, "bayes_hi": high}


def _shared_table(shared: SharedDirection, cells: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "cells": cells,
                "auc": shared.mean,
                "lo": shared.interval[0],
                "hi": shared.interval[1],
                "null_mean": np.nanmean(shared.null),
                "null_sd": np.nanstd(shared.null),
                "p": shared.mean_p,
                "p_floor": shared.p_floor,
            }
        ]
    )


def _long(pairs: tuple[Array, Array], cells: pd.DataFrame) -> pd.DataFrame:
    first, second = (grid.ravel() for grid in np.indices(pairs[0].shape))
    block, step = cells["block"].to_numpy(), cells["step"].to_numpy()
    table = pd.DataFrame(
        {
            "block_a": block[first],
            "step_a": step[first],
            "block_b": block[second],
            "step_b": step[second],
            "cosine": pairs[0].ravel(),
            "cosine_split": pairs[1].ravel(),
        }
    )
    table["reason"] = np.where(table["cosine_split"].isna(), UNHALVED, "")
    return table
