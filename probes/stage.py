"""The probe stage: a logistic probe of every cell, beside its baselines and what it adds to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..analysis.statistics.multiple import benjamini_hochberg
from ..analysis.subject_tokens import SubjectTokens
from ..extract.picture_statistics import predicted_statistics
from ..files import write_csv
from ..labeling.table import SUBSETS, labelled, sample_table
from ..progress import Progress, quiet
from ..run.freshness import fingerprint, is_fresh, set_fresh
from .baselines import Baseline, random_projection, run_baselines
from .calibration import platt
from .crossval import CrossValidation, cross_validate
from .gains import INSTEAD, gains
from .logistic import LogisticProbe
from .methods import calibration_rows, other_methods, statistics
from .nested import GRID
from .places import has_all_tokens
from .ridge import RidgeProbe
from .saved import save_probe
from .transfer import probe_transfer
from .whole import block_flat

if TYPE_CHECKING:
    from ..extract.store.store import ActivationStore
    from ..models.model import Model
    from ..run.folder import Run

Array = NDArray[np.float64]

VERSION = 5
"""Raised when the numbers that this stage writes change their meaning, so that a finished run is probed again."""

L2 = 100.0
"""Penalty of every probe and baseline, settled beforehand: chosen on the same samples, it would need nested folds."""

OUTPUTS = (
    "probes.csv",
    "baselines.csv",
    "added.csv",
    "whole_picture.csv",
    "conditional.csv",
    "methods.csv",
    "calibration.csv",
    "reliability.csv",
    "probe_transfer.csv",
)

FLAT = "block_flat.csv"
"""Written too where the store has all tokens of its samples."""

TRANSFERS = 50
"""At most so many permutations in the null of probe_transfer.csv, where cells go as their square."""


@threadpool_limits.wrap(limits=1, user_api="blas")  # as in `analyze`
def probe(
    run: Run, model: Model | None, permutations: int = 100, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Fit a probe of bad against good to the sample vectors of every cell, and say what it is worth.

    Writes `OUTPUTS` in ``analysis/`` and a probe for each cell, fitted to all sure samples, in ``probes/``; does
    nothing when they are there and belong to the present labels, activations and arguments.

    Parameters
    ----------
    model : not used: `extract` has decoded the predicted clean images
    permutations : labellings in each null, and as many again permuted inside prompts

    Returns
    -------
    The table of probes.csv. Rows with subset "sure" leave leaning verdicts out, those with "all" take them in. `auc` is
    over held-out samples of one fold; `within_auc` over held-out samples of one prompt, so that nothing a prompt says
    can help; both have intervals from draws of prompts, a permutation null, p, and q over the cells (or baselines) of a
    subset. In added.csv `added` is the gain in held-out AUC when the block joins the baseline's features, and
    `within_added` that of pairs within a prompt; whole_picture.csv has, in the same columns, the gain of a probe of the
    whole predicted picture (x0_flat) over that of the block. Their p is the share of draws of prompts without a gain,
    with the fits as they are; conditional.csv has a permutation null, see `conditional_gain`. The other tables are of
    sure samples: methods.csv (`other_methods`), calibration.csv and reliability.csv (`calibration_rows`),
    probe_transfer.csv (`probe_transfer`) and, where the store has all tokens, block_flat.csv (`block_flat`).

    Raises
    ------
    HandscopeError
        There are too few samples of a class or too few prompts, or a file that is needed is missing.
    """
    mark = fingerprint(run, version=VERSION, l2=L2, permutations=permutations, folds=folds, seed=seed)
    from ..extract.store.store import ActivationStore

    store = ActivationStore(run.activations_dir)
    whole = has_all_tokens(store)
    names = (*OUTPUTS, FLAT) if whole else OUTPUTS
    sidecar, outputs = run.probes_dir / "probe.json", [run.analysis_dir / name for name in names]
    files = [run.probes_dir / f"{cell.block}_{cell.step}.safetensors" for cell in store.cells]
    if is_fresh(sidecar, mark, [*outputs, *files]):
        return pd.read_csv(outputs[0])
    table = sample_table(run)
    present = SubjectTokens(store, table["sample"].tolist()).samples
    table = table[table["sample"].isin(present)]
    n_sure = len(labelled(table, "sure", folds, run.path))
    table = labelled(table, "all", folds, run.path)
    subject = SubjectTokens(store, table["sample"].tolist())
    cells, norms = _read(store, subject, progress)
    baselines = _baselines(run, store, subject, table, cells, norms, seed, progress)
    settings: dict[str, Any] = {"folds": folds, "permutations": permutations, "seed": seed}

    probed: dict[str, list[dict[str, Any]]] = {subset: [] for subset in SUBSETS}
    compared: dict[str, list[dict[str, Any]]] = {subset: [] for subset in SUBSETS}
    tables: dict[str, pd.DataFrame] = {}
    methods: list[dict[str, Any]] = []
    calibrated: list[dict[str, Any]] = []
    reliable: list[pd.DataFrame] = []
    for subset in SUBSETS:
        rows = np.flatnonzero(table["verdict"].isin(SUBSETS[subset]))
        if subset == "all" and len(rows) == n_sure:
            # No verdict leans, so the subset is the same samples again.
            probed[subset], compared[subset] = probed["sure"], compared["sure"]
            continue
        chosen = labelled(table, subset, folds, run.path)
        y, groups = chosen["bad"].to_numpy(), chosen["prompt"].to_numpy()
        total = len(cells) + len(baselines)
        for done, (cell, x) in enumerate(cells.items()):
            progress(f"probe {subset}", done, total)
            result = cross_validate(LogisticProbe(L2), x[rows], y, groups, **settings)
            place = {"block": str(cell.block), "step": cell.step}
            probed[subset].append({**place, **statistics(result, y)})
            if subset == "sure":
                _save(run, store, cell, x[rows], y, result, settings)
                methods += [place | row for row in other_methods(x[rows], y, groups, **settings)]
                summary, bins = calibration_rows(result, y, seed)
                calibrated += [place | row for row in summary]
                reliable.append(bins.assign(**place))
        for done, baseline in enumerate(baselines, len(cells)):
            progress(f"probe {subset}", done, total)
            # With the penalty that suits it best: a baseline that is weak for want of one would flatter the block.
            result = cross_validate(RidgeProbe(), baseline.x[rows], y, groups, l2=GRID, **settings)
            compared[subset].append({"baseline": baseline.name, "step": baseline.step, **statistics(result, y)})
        if subset == "sure":
            part = [replace(baseline, x=baseline.x[rows]) for baseline in baselines]
            own = {cell: (x[rows], norms[cell][rows]) for cell, x in cells.items()}
            added, conditional = gains(own, part, y, groups, L2, folds, permutations, seed, progress)
            tables |= _gain_tables(added, conditional)
            vectors = {cell: x[rows] for cell, x in cells.items()}
            limits = settings | {"permutations": min(permutations, TRANSFERS)}
            tables["probe_transfer.csv"] = _transfer(vectors, y, groups, limits, progress)
            if whole:
                names_of = chosen["sample"].tolist()
                tables[FLAT] = block_flat(store, names_of, part, y, groups, L2, folds, permutations, seed, progress)
    tables |= {"probes.csv": _corrected(probed), "baselines.csv": _corrected(compared).astype({"step": "Int64"})}
    tables |= {
        "methods.csv": _discovered(pd.DataFrame(methods), "method"),
        "calibration.csv": _discovered(pd.DataFrame(calibrated), "log_odds"),
        "reliability.csv": pd.concat(reliable, ignore_index=True),
    }
    if not whole:
        (run.analysis_dir / FLAT).unlink(missing_ok=True)  # of activations that are no longer there
    for path in outputs:
        write_csv(path, tables[path.name])
    set_fresh(sidecar, mark, l2=L2, **settings)
    return pd.read_csv(outputs[0])


def _read(
    store: ActivationStore, subject: SubjectTokens, progress: Progress
) -> tuple[dict[Any, NDArray[np.float32]], dict[Any, Array]]:
    """Sample vectors (n, width) and mean token norms (n,) of each cell."""
    vectors: dict[Any, NDArray[np.float32]] = {}
    norms: dict[Any, Array] = {}
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
    cells: dict[Any, NDArray[np.float32]],
    norms: dict[Any, Array],
    seed: int,
    progress: Progress,
) -> list[Baseline]:
    steps = {step: store.plan.index(step) for step in store.plan.steps}
    x0 = predicted_statistics(run, table["sample"].tolist(), steps)
    found = run_baselines(run, table, subject.tokens, int(store.attrs["columns"]), steps, x0, progress)
    deepest = {cell.step: cell for cell in store.cells}  # cells are in the order of blocks, so the last one stays
    for step, cell in deepest.items():
        found.append(Baseline("norm", step, norms[cell][:, None]))
        found.append(Baseline("random", step, random_projection(cells[cell].astype(np.float64), seed)))
    return found


def _corrected(rows: dict[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """One table, with false discovery rates over the rows of each subset."""
    parts = []
    for subset, some in rows.items():
        part = pd.DataFrame(some)
        part["q"], part["within_q"] = benjamini_hochberg(part["p"]), benjamini_hochberg(part["within_p"])
        part.insert(0, "subset", subset)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _discovered(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """False discovery rates over the rows of each value of a column, beside the p values they come from."""
    for prefix in ("", "within_"):
        if f"{prefix}p" in table:
            table[f"{prefix}q"] = table.groupby(by, sort=False)[f"{prefix}p"].transform(benjamini_hochberg)
    return table


def _gain_tables(added: list[dict[str, Any]], conditional: list[dict[str, Any]]) -> dict[str, pd.DataFrame]:
    found = pd.DataFrame(added)
    instead = found["baseline"] == INSTEAD
    tables = {
        "added.csv": found[~instead].copy(),
        "whole_picture.csv": found[instead].drop(columns="baseline"),
        "conditional.csv": pd.DataFrame(conditional),
    }
    for table in tables.values():
        for prefix in ("", "within_"):
            where = table.columns.get_loc(f"{prefix}p") + 1
            table.insert(where, f"{prefix}q", benjamini_hochberg(table[f"{prefix}p"]))
    return tables


def _transfer(
    vectors: dict[Any, NDArray[np.float32]],
    y: NDArray[Any],
    groups: NDArray[Any],
    settings: dict[str, int],
    progress: Progress,
) -> pd.DataFrame:
    table = probe_transfer(LogisticProbe(L2), vectors, y, groups, **settings, progress=progress)
    for place, name in enumerate(("fitted", "judged")):
        table.insert(2 * place, f"{name}_block", [str(cell.block) for cell in table[name]])
        table.insert(2 * place + 1, f"{name}_step", [cell.step for cell in table[name]])
    table.insert(table.columns.get_loc("p") + 1, "q", benjamini_hochberg(table["p"]))
    return table.drop(columns=["fitted", "judged"])


def _save(
    run: Run,
    store: ActivationStore,
    cell: Any,
    x: NDArray[np.float32],
    y: NDArray[Any],
    result: CrossValidation,
    settings: dict[str, int],
) -> None:
    source = ("model", "revision", "weight_hash", "plan")
    metadata: dict[str, Any] = {
        **{key: str(store.attrs[key]) for key in source if key in store.attrs},
        **settings,
        "block": str(cell.block),
        "step": cell.step,
        "n_good": int((y == 0).sum()),
        "n_bad": int(y.sum()),
        "held_out_auc": result.auc,
        "held_out_interval": list(result.interval),
        "held_out_p": result.p,
        "held_out_within_auc": result.within_auc if np.isfinite(result.within_auc) else None,
        "held_out_balanced_accuracy": result.balanced_accuracy,
        "held_out_platt": platt(result.scores, y),
        "tokens": "subject",
        "positive": "bad",
        "input": "mean of a sample's tokens of the subject",
    }
    save_probe(LogisticProbe(L2).fit(x, y), run.probes_dir / f"{cell.block}_{cell.step}.safetensors", metadata)
