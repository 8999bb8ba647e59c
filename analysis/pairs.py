"""The pairs stage: at every block and step, what the one difference between two prompts does at equal noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..errors import HandscopeError
from ..files import atomic, write_csv
from ..labeling.table import SUBSETS
from ..progress import Progress, quiet
from ..run.design import design_of
from ..run.record import fresh, made_from, set_fresh
from ..stages import PAIRS
from .moments import MomentTotals
from .paired import PairedComparison, PairedEffect
from .statistics.multiple import benjamini_hochberg, family_p
from .statistics.paired import paired_rates

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore
    from ..run.folder import Run

Array = NDArray[np.float64]


@threadpool_limits.wrap(limits=1, user_api="blas")  # as in `analyze`
def compare_pairs(
    run: Run, permutations: int = 1000, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Compare the two members of each pair, drawn from one noise with two prompts, in every cell of a run.

    Writes the tables of `handscope.stages.PAIRS`, which says what their columns are, and ``analysis/pairs.safetensors``
    with the held-out difference of each pair in each cell; does nothing when they are there and belong to the present
    labels, activations and arguments. It needs no verdicts: the prompts are the classes.

    Parameters
    ----------
    permutations : patterns of signs, where not all are tried
    folds : of pairs, or of prompt pairs where there are several

    Returns
    -------
    The table of pairs.csv. A member's vector is the mean over the tokens that are of the subject in both members, or
    over all tokens where nothing is labelled, so that where the subject lies in one picture and not in the other is not
    read. `p` is of the signs of pairs, `q` over the cells, and `p_family` adjusted for all of them by the same
    patterns (`family_p`). pair_pictures.csv has the same of the noisy latents (x_t) and of the
    predicted clean ones (x0), all tokens of them, where trajectories were kept.

    Raises
    ------
    HandscopeError
        The run is of another design, there are too few pairs, or a cell holds NaN or infinity.
    """
    settings = {"permutations": permutations, "folds": folds, "seed": seed}
    now = made_from(run.path, PAIRS, settings)
    path = run.analysis_dir / "pairs.csv"
    if fresh(run.path, PAIRS, now):
        return pd.read_csv(path, dtype={"massive_channels": str, "reason": str})
    from ..extract.store.store import ActivationStore

    store = ActivationStore(run.activations_dir)
    tokens = PairTokens(store, pair_table(run))
    comparison = PairedComparison.of(tokens.pairs["prompts"].to_numpy(), permutations, folds, seed)
    counts = {"n_pairs": len(tokens.pairs), "units": comparison.units, "tokens": tokens.shared}
    found: dict[Cell, PairedEffect] = {}
    for number, cell in enumerate(store.cells):
        progress("pairs", number, len(store.cells))
        try:
            found[cell] = comparison.effect(*tokens.read(cell))
        except HandscopeError as error:
            raise HandscopeError(f"Cell {cell.block} at step {cell.step}: {error}") from error
    pictures = _pictures(run, store, tokens.pairs, comparison, progress)
    places = [{"block": str(cell.block), "step": cell.step, **counts} for cell in found]
    table = effect_table(places, list(found.values()), comparison)
    beyond = [effect.beyond(pictures["x0", cell.step]) for cell, effect in found.items()] if pictures else []
    for place, name in enumerate(("beyond_x0", "beyond_x0_lo", "beyond_x0_hi")):
        table.insert(table.columns.get_loc("p") + place, name, [row[place] for row in beyond] or np.nan)
    write_csv(path, table)
    places = [{"baseline": name, "step": step, **counts} for name, step in pictures]
    latents = effect_table(places, list(pictures.values()), comparison) if pictures else pd.DataFrame()
    _write_or_remove(run, "pair_pictures", latents.drop(columns="tokens", errors="ignore"))
    _write_or_remove(run, "pair_verdicts", _verdicts(run, tokens.pairs, comparison, seed))
    with atomic(run.analysis_dir / "pairs.safetensors") as temporary:
        save_file({str(cell): effect.difference.astype(np.float32) for cell, effect in found.items()}, temporary)
    set_fresh(run.path, PAIRS, now)
    progress("pairs", len(store.cells), len(store.cells))
    return pd.read_csv(path, dtype={"massive_channels": str, "reason": str})


def pair_table(run: Run) -> pd.DataFrame:
    """One row a pair: first and second, its samples; prompts, the number of its prompt pair; noise_sha256.

    Raises
    ------
    HandscopeError
        The run is not of a paired design.
    """
    samples = run.samples()
    design = design_of(samples, run.path)
    if design.kind != "paired":
        verb = {"own": "analyze and probe", "crossed": "crossed"}[design.kind]
        raise HandscopeError(
            f"Expected pairs, two prompts at each noise, in {run.path}, found the design {design.kind}: run {verb}, or "
            "generate with pairs."
        )
    parts = []
    for number, (first, second) in enumerate(design.pairs):
        members = [
            samples[samples["prompt"] == prompt][["noise_sha256", "sample"]].rename(columns={"sample": name})
            for prompt, name in ((first, "first"), (second, "second"))
        ]
        parts.append(members[0].merge(members[1], on="noise_sha256").assign(prompts=number))
    return pd.concat(parts, ignore_index=True)


class PairTokens:
    """Reads cells of a store as the vectors of both members of each pair, over the tokens that both have.

    Attributes
    ----------
    pairs : DataFrame, the rows of `pair_table` whose members have a token in common
    shared : float, tokens of a member that are read, in the mean over pairs

    Raises
    ------
    HandscopeError
        No pair has.
    """

    def __init__(self, store: ActivationStore, pairs: pd.DataFrame) -> None:
        self.store = store
        member = {sample: (row, k) for k in (0, 1) for row, sample in enumerate(pairs[("first", "second")[k]])}
        tokens = store.tokens
        place = tokens["sample"].map(member)
        instance = tokens["instance"].to_numpy() > 0
        wanted = place.notna().to_numpy()
        if (instance & wanted).any():
            wanted = wanted & instance
        rows = np.flatnonzero(wanted)
        pair, which = (np.array([place.iloc[row][k] for row in rows], np.intp) for k in (0, 1))
        at = np.stack([pair, *(tokens[name].to_numpy()[rows].astype(np.intp) for name in ("row", "col"))], axis=1)
        _, same, count = np.unique(at, axis=0, return_inverse=True, return_counts=True)
        both = count[same.ravel()] == 2
        if not both.any():
            raise HandscopeError(
                f"No pair of {len(pairs)} has a token that is stored of both members: extract both, or tokens='all'."
            )
        kept, number = np.unique(pair[both], return_inverse=True)
        self.pairs = pairs.iloc[kept].reset_index(drop=True)
        self.shared = float(both.sum() / 2 / len(kept))
        self._rows, self._of = rows[both], 2 * number.ravel() + which[both]

    def read(self, cell: Cell) -> tuple[Array, Array]:
        """First and second members, each an array of shape (pairs, width)."""
        totals = MomentTotals(2 * len(self.pairs))
        of = np.zeros(len(self.store.tokens), np.intp)
        of[self._rows] = self._of
        for x, rows in self.store.chunks(str(cell.block), cell.step, where=self._rows):
            if not np.isfinite(x).all():
                raise HandscopeError("its tokens hold NaN or infinity; extract it again, in bfloat16 or float32.")
            totals.add(x, of[rows])
        mean = totals.result().mean
        return mean[::2], mean[1::2]


def _pictures(
    run: Run, store: ActivationStore, pairs: pd.DataFrame, comparison: PairedComparison, progress: Progress
) -> dict[tuple[str, int], PairedEffect]:
    """The same of the latents, by their name and step; empty where trajectories lack."""
    names = [*pairs["first"], *pairs["second"]]
    if not all(run.latents_path(sample).exists() for sample in names):
        return {}
    steps = {step: store.plan.index(step) for step in store.plan.steps}
    found: dict[tuple[str, int], list[Array]] = {(name, step): [] for name in ("x_t", "x0") for step in steps}
    for number, sample in enumerate(names):
        progress("pairs: latents", number, len(names))
        latents = run.latents(sample)
        for step, index in steps.items():
            found["x_t", step].append(latents.noisy(index).float().numpy().ravel())
            found["x0", step].append(latents.x0(index).numpy().ravel())
    effects = {}
    for place, rows in found.items():
        x = np.stack(rows)
        first, second = x[: len(pairs)], x[len(pairs) :]
        if not (first == second).all():  # as the noise is that both begin with
            effects[place] = comparison.effect(first, second)
    return effects


def effect_table(
    places: list[dict[str, Any]], effects: list[PairedEffect], comparison: PairedComparison
) -> pd.DataFrame:
    """Rows with corrections over all of them."""
    nulls = np.stack([effect.null for effect in effects], axis=1)
    rows = []
    for place, effect, adjusted in zip(places, effects, family_p(nulls[0], nulls[1:]), strict=True):
        rows.append(
            place
            | {
                "dz": effect.dz, "dz_lo": effect.dz_interval[0], "dz_hi": effect.dz_interval[1],
                "mean": effect.mean, "mean_lo": effect.mean_interval[0], "mean_hi": effect.mean_interval[1],
                "auc": effect.auc, "lo": effect.interval[0], "hi": effect.interval[1],
                "within_auc": effect.within_auc, "within_lo": effect.within_interval[0],
                "within_hi": effect.within_interval[1],
                "p": effect.p, "p_family": adjusted,
                "p_floor": comparison.p_floor, "massive_channels": ";".join(map(str, effect.massive)),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    table.insert(table.columns.get_loc("p") + 1, "q", benjamini_hochberg(table["p"]))
    return table


def _verdicts(run: Run, pairs: pd.DataFrame, comparison: PairedComparison, seed: int) -> pd.DataFrame:
    """How often either member is bad, over pairs that have a sure verdict on both; no rows where there are none."""
    from ..labeling.database.labels import Labels

    if not run.labels_path.exists():
        return pd.DataFrame()
    verdict = Labels(run.labels_path).table().set_index("sample")["verdict"]
    bad = verdict[verdict.isin(SUBSETS["sure"])].eq("bad").astype(float)
    first, second = (pairs[name].map(bad).to_numpy(float) for name in ("first", "second"))
    if not (np.isfinite(first) & np.isfinite(second)).any():
        return pd.DataFrame()
    rates = paired_rates(first, second, comparison.unit, seed)
    return pd.DataFrame(
        [
            {
                "n": rates.n, "left_out": rates.left_out, "rate_first": rates.before, "rate_second": rates.after,
                "difference": rates.difference, "lo": rates.low, "hi": rates.high, "p": rates.p,
            }
        ]
    )  # fmt: skip


def _write_or_remove(run: Run, name: str, table: pd.DataFrame) -> None:
    path = run.analysis_dir / f"{name}.csv"
    if len(table):
        write_csv(path, table)
    else:
        path.unlink(missing_ok=True)
