"""The classes stage: is a token of a class told from the other tokens of its picture, in every cell?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..analysis.statistics.multiple import benjamini_hochberg, family_p
from ..errors import HandscopeError
from ..files import listed, write_csv
from ..labeling.table import as_seen, check_noise, check_pictures
from ..labeling.token_classes import Masks, token_classes
from ..parallel import each
from ..progress import Progress, quiet
from ..run.folder import Run
from ..run.record import fresh, made_from, set_fresh
from ..stages import CLASSES
from .within_picture import FEWEST, Told, WithinPicture

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore

MOST = 576
"""Tokens of a picture that are read; of more, as many places, the same ones in all pictures."""


@threadpool_limits.wrap(limits=1, user_api="blas")  # as in `analyze`
def probe_classes(
    run: Run, permutations: int = 1000, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Tell the tokens of each class from the other tokens of their picture; see `probes.within_picture`.

    Classes are the subject, as it is labelled, and what RUN/classes.csv names. Writes the tables of
    `handscope.stages.CLASSES`, which says what their columns are; does nothing when they are there and belong to the
    present labels, classes, activations and arguments.

    Parameters
    ----------
    permutations : exchanges of masks between pictures of one prompt, in each null
    folds : of prompts

    Returns
    -------
    The table of class_probes.csv: one row a cell for each class.

    Raises
    ------
    HandscopeError
        Activations are not of all tokens; pictures have token grids of several sizes; no class is in enough pictures;
        or as in `analyze`.
    """
    settings = {"permutations": permutations, "folds": folds, "seed": seed}
    now = made_from(run.path, CLASSES, settings)
    path = run.analysis_dir / "class_probes.csv"
    if fresh(run.path, CLASSES, now):
        return pd.read_csv(path, dtype={"class": str})
    asked = _Asked.of(run, **settings)
    answers = each(asked.of_cell, asked.store.cells, progress, "classes")
    where = {name: one.within.where() for name, one in asked.classes.items()}
    write_csv(path, _table(answers, asked, where))
    baselines = [({"baseline": "place"}, where), *_latents(run, asked)]
    write_csv(run.analysis_dir / "class_baselines.csv", _table(baselines, asked))
    set_fresh(run.path, CLASSES, now)
    return pd.read_csv(path, dtype={"class": str})


@dataclass(frozen=True, eq=False)
class _Class:
    """One class: the pictures that have it, as places among all that are read, and what is asked of them."""

    pictures: NDArray[np.intp]
    within: WithinPicture


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is asked of every cell.

    Attributes
    ----------
    samples : list of str, those that have a class
    grid : rows and columns of their token grid
    places : int array of shape (tokens,), which of its tokens are read
    rows : int array of shape (n, tokens), where these lie in the store
    """

    store: ActivationStore
    samples: list[str]
    grid: tuple[int, int]
    places: NDArray[np.intp]
    rows: NDArray[np.intp]
    classes: dict[str, _Class]

    @classmethod
    def of(cls, run: Run, permutations: int, folds: int, seed: int) -> _Asked:
        from ..extract.store.store import ActivationStore

        masks, store = token_classes(run), ActivationStore(run.activations_dir)
        stored = set(store.samples)
        masks = {name: {one: mask for one, mask in of.items() if one in stored} for name, of in masks.items()}
        grid = _one_grid(masks, run)
        tokens = grid[0] * grid[1]
        samples = sorted({sample for of in masks.values() for sample in of})
        table = as_seen(run).set_index("sample", drop=False).loc[samples]
        check_noise(table, run.path)
        check_pictures(table, run.path)
        of_sample = store.records["sample"]
        held = {sample: np.flatnonzero(of_sample == store.samples.index(sample)) for sample in samples}
        partial = [sample for sample, rows in held.items() if len(rows) != tokens]
        if partial or store.plan.stream == "text":
            raise HandscopeError(
                f"Telling tokens of a class from the rest of their picture takes all {tokens} image tokens, and "
                f"{run.activations_dir} has {'those of the text' if not partial else f'{len(held[partial[0]])} of'} "
                f"{(partial or samples)[0]}: begin a run with tokens: all (extract --tokens all)."
            )
        random = np.random.default_rng(seed)
        places = np.arange(tokens) if tokens <= MOST else np.sort(random.choice(tokens, MOST, replace=False))
        rows = np.stack([held[sample][places] for sample in samples])
        classes, refused = {}, []
        for name, of in masks.items():
            flat = np.stack([of[one].ravel()[places] if one in of else np.zeros(len(places), bool) for one in samples])
            pictures = np.flatnonzero(flat.any(1) & ~flat.all(1))
            prompts = table["prompt"].to_numpy()[pictures]
            try:
                within = WithinPicture.of(flat[pictures], prompts, permutations, folds, seed)
            except HandscopeError as error:
                refused.append(f"{name}: {error}")
            else:
                classes[name] = _Class(pictures, within)
        if not classes:
            raise HandscopeError(f"No class can be asked for in {run.path}. Of {' Of '.join(refused)}")
        return cls(store, samples, grid, places, rows, classes)

    def of_cell(self, cell: Cell) -> tuple[dict[str, Any], dict[str, Told]]:
        """Read one cell and ask."""
        x, _ = self.store.read(cell.block, cell.step, rows=self.rows.ravel())
        if not np.isfinite(x).all():
            raise HandscopeError(
                f"Cell {cell.block} at step {cell.step} of the store holds NaN or infinity; extract it again, in "
                "bfloat16 or float32 if it was float16."
            )
        told = self.told(x.reshape(*self.rows.shape, -1))
        return {"block": str(cell.block), "step": cell.step}, told

    def told(self, x: NDArray[np.float32]) -> dict[str, Told]:
        """How well features of shape (n, tokens, width) tell each class."""
        return {name: one.within.told(x[one.pictures]) for name, one in self.classes.items()}


def _one_grid(masks: dict[str, Masks], run: Run) -> tuple[int, int]:
    grids = {mask.shape for of in masks.values() for mask in of.values()}
    if len(grids) == 1:
        rows, columns = grids.pop()
        return rows, columns
    if not grids:
        raise HandscopeError(
            f"No labelled sample with stored activations in {run.path} has a token of a class: label where the subject "
            f"is, or import classes, and need at least {FEWEST} pictures."
        )
    said = ", ".join(f"{rows} by {columns}" for rows, columns in sorted(grids))
    raise HandscopeError(
        f"The labelled pictures of {run.path} have token grids of several sizes ({said}), and masks are exchanged "
        "between pictures: label those of one size."
    )


def _latents(run: Run, asked: _Asked) -> list[tuple[dict[str, Any], dict[str, Told]]]:
    """The same of the half-finished picture: the clean latents predicted at each step, of a token and its neighbours.

    Empty where trajectories were not kept.
    """
    there = listed(run.trajectories_dir)
    if not all(run.trajectory_path(sample).name in there for sample in asked.samples):
        return []
    found, trajectories = [], [run.trajectory(sample) for sample in asked.samples]
    for step in asked.store.plan.steps:
        clean = np.stack([one.x0(asked.store.plan.index(step)).numpy() for one in trajectories])
        told = asked.told(_neighbours(clean, asked.grid)[:, asked.places])
        found.append(({"baseline": "predicted", "step": step}, told))
    return found


def _neighbours(tokens: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """Each token beside its eight neighbours, those at the border repeated: (n, tokens, channels) to 9 × channels."""
    rows, columns = grid
    padded = np.pad(tokens.reshape(len(tokens), rows, columns, -1), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    beside = [padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.ascontiguousarray(np.concatenate(beside, axis=3).reshape(len(tokens), rows * columns, -1))


def _table(
    found: Sequence[tuple[dict[str, Any], dict[str, Told]]], asked: _Asked, where: dict[str, Told] | None = None
) -> pd.DataFrame:
    """A row for each class at each place, with corrections over all of them; beside `where`, what is gained on it."""
    rows = []
    for place, told in found:
        for name, one in told.items():
            within = asked.classes[name].within
            row = {
                **place, "class": name, "n": len(within.mask), "n_prompts": len(np.unique(within.groups)),
                "share": within.mask.mean(), "auc": one.auc, "lo": one.interval[0], "hi": one.interval[1],
            }  # fmt: skip
            if where is not None:
                gain, (low, high) = within.gain(one, where[name])
                row |= {"place_auc": where[name].auc, "gain": gain, "gain_lo": low, "gain_hi": high}
            rows.append(row | {
                "match": one.match, "null_mean": one.null.mean(), "null_sd": one.null.std(), "p": one.p,
                "p_floor": within.p_floor,
            })  # fmt: skip
    table = pd.DataFrame(rows)
    null = np.stack([one.null for _, told in found for one in told.values()], axis=1)
    return table.assign(p_family=family_p(table["match"], null), q=benjamini_hochberg(table["p"]))
