"""The probe stage: a logistic probe of every cell, beside its baselines and what it adds to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..analysis.freshness import fingerprint, is_fresh, set_fresh
from ..analysis.inference import benjamini_hochberg, grouped_folds
from ..analysis.table import SUBSETS, labelled, sample_table, write_csv
from ..analysis.vectors import HandTokens
from ..progress import Progress, quiet
from .baselines import Baseline, random_projection, run_baselines
from .crossval import CrossValidation, compare, cross_validate, held_out_scores
from .images import predicted_statistics
from .logistic import LogisticProbe
from .saved import save_probe

if TYPE_CHECKING:
    from ..extract.models import Model
    from ..extract.run import Run
    from ..extract.store import ActivationStore

Array = NDArray[np.float64]

VERSION = 3
"""Raised when the numbers that this stage writes change their meaning, so that a finished run is probed again."""

L2 = 100.0
"""Penalty of every probe and baseline, settled beforehand: chosen on the same samples, it would need nested folds."""

NESTED = ("prompt", "position", "x_t", "x0", "image")
"""Baselines whose features a block's join in one fit; the norm of the block's own tokens is one more of them."""

WIDE = "x0_flat"
"""The baseline with so many features that a block's would drown among them under one penalty: the logits of two fits
are added instead. "all" holds every other baseline, in one fit."""

INSTEAD = "block"
"""Names the rows that take a block as the baseline, and ask what `WIDE` would gain in its place."""

OUTPUTS = ("probes.csv", "baselines.csv", "added.csv", "whole_picture.csv")


@threadpool_limits.wrap(limits=1, user_api="blas")  # as in `analyze`
def probe(
    run: Run, model: Model | None, permutations: int = 100, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Fit a probe of bad against good to the sample vectors of every cell, and say what it is worth.

    Writes `OUTPUTS` in ``analysis/`` and a probe for each cell, fitted to all sure samples, in ``probes/``; does
    nothing when they are there and belong to the present labels, activations and arguments.

    Parameters
    ----------
    model : decodes predicted clean images; may be None when ``analysis/image_statistics.csv`` has them all
    permutations : labellings in each null, and as many again permuted inside prompts

    Returns
    -------
    The table of probes.csv. Rows with subset "sure" leave leaning verdicts out, those with "all" take them in. `auc` is
    over held-out samples of one fold; `within_auc` over held-out samples of one prompt, so that nothing a prompt says
    can help; both have intervals from draws of prompts, a permutation null, p, and q over the cells (or baselines) of a
    subset. In added.csv `added` is the gain in held-out AUC when the block joins the baseline's features, and
    `within_added` that of pairs within a prompt; whole_picture.csv has, in the same columns, the gain of a probe of the
    whole predicted picture (x0_flat) over that of the block. Their p is the share of draws of prompts without a gain.

    Raises
    ------
    HandscopeError
        There are too few samples of a class or too few prompts, or a file that is needed is missing.
    """
    mark = fingerprint(run, version=VERSION, l2=L2, permutations=permutations, folds=folds, seed=seed)
    sidecar, outputs = run.probes_dir / "probe.json", [run.analysis_dir / name for name in OUTPUTS]
    from ..extract.store import ActivationStore

    store = ActivationStore(run.activations_dir)
    files = [run.probes_dir / f"{cell.block}_{cell.step}.safetensors" for cell in store.cells]
    if is_fresh(sidecar, mark, [*outputs, *files]):
        return pd.read_csv(outputs[0])
    table = sample_table(run)
    present = HandTokens(store, table["sample"].tolist()).samples
    table = table[table["sample"].isin(present)]
    n_sure = len(labelled(table, "sure", folds, run.path))
    table = labelled(table, "all", folds, run.path)
    hands = HandTokens(store, table["sample"].tolist())
    cells, norms = _read(store, hands, progress)
    baselines = _baselines(run, model, store, hands, table, cells, norms, seed, progress)
    settings = {"folds": folds, "permutations": permutations, "seed": seed}

    probed: dict[str, list[dict[str, Any]]] = {subset: [] for subset in SUBSETS}
    compared: dict[str, list[dict[str, Any]]] = {subset: [] for subset in SUBSETS}
    added: list[dict[str, Any]] = []
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
            probed[subset].append({"block": str(cell.block), "step": cell.step, **_statistics(result, y)})
            if subset == "sure":
                _save(run, store, cell, x[rows], y, result, settings)
        for done, baseline in enumerate(baselines, len(cells)):
            progress(f"probe {subset}", done, total)
            result = cross_validate(LogisticProbe(L2), baseline.x[rows], y, groups, **settings)
            compared[subset].append({"baseline": baseline.name, "step": baseline.step, **_statistics(result, y)})
        if subset == "sure":
            part = [replace(baseline, x=baseline.x[rows]) for baseline in baselines]
            own = {cell: (x[rows], norms[cell][rows]) for cell, x in cells.items()}
            added = _added(own, part, y, groups, folds, seed, progress)
    write_csv(outputs[0], _corrected(probed))
    write_csv(outputs[1], _corrected(compared).astype({"step": "Int64"}))
    gains = pd.DataFrame(added)
    instead = gains["baseline"] == INSTEAD
    for path, table in ((outputs[2], gains[~instead].copy()), (outputs[3], gains[instead].drop(columns="baseline"))):
        for name in ("", "within_"):
            table.insert(table.columns.get_loc(f"{name}p") + 1, f"{name}q", benjamini_hochberg(table[f"{name}p"]))
        write_csv(path, table)
    set_fresh(sidecar, mark, l2=L2, **settings)
    return pd.read_csv(outputs[0])


def _read(
    store: ActivationStore, hands: HandTokens, progress: Progress
) -> tuple[dict[Any, NDArray[np.float32]], dict[Any, Array]]:
    """Sample vectors (n, width) and mean token norms (n,) of each cell."""
    vectors: dict[Any, NDArray[np.float32]] = {}
    norms: dict[Any, Array] = {}
    for number, cell in enumerate(store.cells):
        progress("read activations", number, len(store.cells))
        moments, norms[cell] = hands.read(cell)
        vectors[cell] = moments.mean.astype(np.float32)
    return vectors, norms


def _baselines(
    run: Run,
    model: Model | None,
    store: ActivationStore,
    hands: HandTokens,
    table: pd.DataFrame,
    cells: dict[Any, NDArray[np.float32]],
    norms: dict[Any, Array],
    seed: int,
    progress: Progress,
) -> list[Baseline]:
    steps = {step: store.plan.index(step) for step in store.plan.steps}
    x0 = predicted_statistics(model, run, table["sample"].tolist(), steps, progress)
    found = run_baselines(run, table, hands.tokens, int(store.attrs["columns"]), steps, x0, progress)
    deepest = {cell.step: cell for cell in store.cells}  # cells are in the order of blocks, so the last one stays
    for step, cell in deepest.items():
        found.append(Baseline("norm", step, norms[cell][:, None]))
        found.append(Baseline("random", step, random_projection(cells[cell].astype(np.float64), seed)))
    return found


def _statistics(result: CrossValidation, y: NDArray[Any]) -> dict[str, float]:
    within = result.within_null[~np.isnan(result.within_null)]
    return {
        "n_good": int((y == 0).sum()),
        "n_bad": int(y.sum()),
        "auc": result.auc,
        "lo": result.interval[0],
        "hi": result.interval[1],
        "null_mean": result.null.mean(),
        "null_sd": result.null.std(),
        "p": result.p,
        "q": np.nan,
        "within_auc": result.within_auc,
        "within_lo": result.within_interval[0],
        "within_hi": result.within_interval[1],
        "within_null_mean": within.mean() if len(within) else np.nan,
        "within_null_sd": within.std() if len(within) else np.nan,
        "within_p": result.within_p,
        "within_q": np.nan,
    }


def _corrected(rows: dict[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """One table, with false discovery rates over the rows of each subset."""
    parts = []
    for subset, some in rows.items():
        part = pd.DataFrame(some)
        part["q"], part["within_q"] = benjamini_hochberg(part["p"]), benjamini_hochberg(part["within_p"])
        part.insert(0, "subset", subset)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


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
        "held_out_within_auc": result.within_auc,
        "positive": "bad",
        "input": "mean of a sample's hand tokens",
    }
    save_probe(LogisticProbe(L2).fit(x, y), run.probes_dir / f"{cell.block}_{cell.step}.safetensors", metadata)


def _added(
    cells: dict[Any, tuple[NDArray[np.float32], Array]],
    baselines: list[Baseline],
    y: NDArray[Any],
    groups: NDArray[Any],
    folds: int,
    seed: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """What each cell, given as vectors and norms, adds to each baseline, on the same folds and draws of prompts."""
    fold = grouped_folds(groups, folds, seed)

    def logits(x: NDArray[Any]) -> Array:
        return held_out_scores(LogisticProbe(L2), x, y[None], fold)[0]

    features: dict[tuple[str, int], NDArray[Any]] = {}
    wide: dict[int, Array] = {}
    for step in {cell.step for cell in cells}:
        known = {b.name: b.x for b in baselines if b.step in (None, step)}
        wide[step] = logits(known[WIDE])
        features |= {(name, step): known[name] for name in NESTED}
    alone = {(name, step): logits(x) for (name, step), x in features.items()}
    rows = []
    for number, (cell, (x, norm)) in enumerate(cells.items()):
        progress("compare with baselines", number, len(cells))
        narrow = {name: features[name, cell.step] for name in NESTED}
        joined = np.hstack([*narrow.values(), norm[:, None]])
        block = logits(x)
        pairs = {name: (alone[name, cell.step], logits(np.hstack([known, x]))) for name, known in narrow.items()}
        pairs["norm"] = logits(norm[:, None]), logits(np.hstack([norm[:, None], x]))
        pairs["all"] = logits(joined), logits(np.hstack([joined, x]))
        pairs[WIDE] = wide[cell.step], wide[cell.step] + block
        pairs[INSTEAD] = block, wide[cell.step]
        for name, (before, both) in pairs.items():
            row: dict[str, Any] = {"block": str(cell.block), "step": cell.step, "baseline": name}
            for prefix, within in (("", False), ("within_", True)):
                gain = compare(before, both, y, groups, fold, within=within, seed=seed)
                row |= {
                    f"{prefix}auc_baseline": gain.auc_baseline,
                    f"{prefix}auc_both": gain.auc_both,
                    f"{prefix}added": gain.added,
                    f"{prefix}lo": gain.interval[0],
                    f"{prefix}hi": gain.interval[1],
                    f"{prefix}p": gain.p,
                }
            rows.append(row)
    return rows
