"""How well the direction found in one cell separates another, and whether one direction does for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..brief import brief
from ..errors import HandscopeError
from ..parallel import each
from ..progress import Progress, quiet
from .directions import contrast, unit
from .statistics.auc import AT_ONCE, PairWins, auc, pair_wins
from .statistics.folds import check_folds
from .statistics.intervals import bootstrap_weights, logit_interval, rarer_groups
from .statistics.multiple import benjamini_hochberg, family_p
from .statistics.nulls import p_floor, p_value, p_values, permuted_labels

if TYPE_CHECKING:
    import pandas as pd

    from ..extract.address import Cell

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SharedDirection:
    """One direction for all cells, the mean of their unit directions, judged on held-out samples of every cell.

    Attributes
    ----------
    direction : array of shape (width,), of length 1, from bad to good, fitted to all samples: for use, not for judging
    auc, p, p_family : arrays of shape (cells,), of the direction fitted without each sample's fold, in each cell;
        `p_family` is adjusted for all cells
    mean : mean of `auc` over cells
    interval : 95% interval of `mean`, by drawing prompts
    null : array of shape (permutations,), `mean` under permuted labels
    mean_p : permutation p value of `mean`
    p_floor : the smallest p that the null could have given
    """

    direction: Array
    auc: Array
    p: Array
    p_family: Array
    mean: float
    interval: tuple[float, float]
    null: Array
    mean_p: float
    p_floor: float

    __repr__ = brief


@dataclass(frozen=True)
class Transfer:
    """Held-out AUC of each cell's direction in each cell, with its null.

    Attributes
    ----------
    cells : the cells in order
    auc : array of shape (cells, cells): the direction of the row's cell, fitted without a fold, on that fold in the
        column's cell; the diagonal is a cell's own
    null_mean, null_sd, p : arrays of shape (cells, cells), from permuted labels
    p_family : array of shape (cells, cells), p adjusted for all pairs by `family_p`
    p_floor : the smallest p that the null could have given, adjusted or not
    shared : SharedDirection
    """

    cells: tuple[Cell, ...]
    auc: Array
    null_mean: Array
    null_sd: Array
    p: Array
    p_family: Array
    p_floor: float
    shared: SharedDirection

    __repr__ = brief

    def table(self) -> pd.DataFrame:
        """One row a pair: block_a, step_a, block_b, step_b, auc, null_mean, null_sd, p, its floor, p_family, and q over
        all pairs.
        """
        import pandas as pd

        a, b = (grid.ravel() for grid in np.indices(self.auc.shape))
        columns: dict[str, Any] = {}
        for name, chosen in (("a", a), ("b", b)):
            columns[f"block_{name}"] = [str(self.cells[k].block) for k in chosen]
            columns[f"step_{name}"] = [self.cells[k].step for k in chosen]
        for name in ("auc", "null_mean", "null_sd", "p"):
            columns[name] = getattr(self, name).ravel()
        columns |= {"p_floor": self.p_floor, "p_family": self.p_family.ravel()}
        return pd.DataFrame({**columns, "q": benjamini_hochberg(self.p).ravel()})


def transfer(
    vectors: Mapping[Cell, ArrayLike],
    y: ArrayLike,
    groups: ArrayLike,
    fold: ArrayLike,
    permutations: int = 1000,
    bootstraps: int = 500,
    seed: int = 0,
    progress: Progress = quiet,
) -> Transfer:
    """Fit a difference of means in every cell without a fold, and judge it on that fold in every cell.

    Parameters
    ----------
    vectors : of each cell, an array of shape (n_samples, width), all of one shape; massive channels set to 0
    y : array of shape (n_samples,), 1 for bad and 0 for good: the contrast that directions are of
    groups : array of shape (n_samples,), the prompt of each sample
    fold : int array of shape (n_samples,), as of ``grouped_folds``
    permutations : labellings in each null; each of them is fitted anew in every cell
    bootstraps : draws of prompts behind the interval of the shared direction

    Raises
    ------
    HandscopeError
        The cells' shapes differ, a vector is NaN or infinite, or a fold leaves one class only.

    Notes
    -----
    An AUC sees the order of projections inside one fold of one cell, so neither the scale nor the offset of a cell
    matters; in the shared direction every cell's counts with length 1. Channels are not standardised: the question is
    whether the same direction of the stream separates, and a scale for each cell would turn it.

    A direction is a weighted sum of sample vectors: where there are more channels than samples, projections are made of
    the products of samples, and never of directions.
    """
    cells = tuple(vectors)
    y, fold = np.asarray(y, np.float64), np.asarray(fold)
    check_folds(y, fold)
    x = _centred(vectors, len(y))
    labels = permuted_labels(y, groups, permutations, seed, fold)
    # A labelling that leaves no fold with both classes has no pair to compare, and no AUC.
    inside = np.stack([labels[:, fold == one].mean(1) for one in np.unique(fold)])
    labels = np.concatenate([y[None], labels[((inside > 0) & (inside < 1)).any(0)]])
    folds = [_Fold.of(x, labels, fold == one) for one in np.unique(fold)]

    def of_cell(a: int) -> Array:
        wins, pairs = np.zeros((len(labels), len(cells))), np.zeros((len(labels), 1))
        for one in folds:
            left, right = one.weights, one.away
            if left.shape[1] > x.shape[-1]:
                left = left @ x[a, one.train]
            else:
                right = x[a, one.train] @ right
            won, compared = one.compared(left, right)
            wins, pairs = wins + won, pairs + compared
        return wins / pairs

    aucs = np.stack(each(of_cell, range(len(cells)), progress, "carry directions"), axis=1)
    null = aucs[1:]
    return Transfer(
        cells,
        aucs[0],
        null.mean(0),
        null.std(0),
        p_values(aucs[0], null),
        family_p(aucs[0].ravel(), null.reshape(len(null), -1)).reshape(aucs[0].shape),
        p_floor(y, labels[1:], null[:, 0, 0]),
        _shared(x, y, np.asarray(groups), fold, labels, folds, bootstraps, seed),
    )


@dataclass(frozen=True, eq=False)
class _Fold:
    """One fold of all cells.

    Attributes
    ----------
    train, test : bool arrays of shape (n,)
    weights : float32 array of shape (labellings, samples outside), which give differences of means
    labels : array of shape (labellings, samples inside)
    away : float32 array of shape (width, cells x samples inside), what directions are judged on
    """

    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    weights: NDArray[np.float32]
    labels: Array
    away: NDArray[np.float32]

    @classmethod
    def of(cls, x: NDArray[np.float32], labels: Array, test: NDArray[np.bool_]) -> _Fold:
        away = x[:, test].reshape(-1, x.shape[-1]).T
        return cls(~test, test, contrast(labels[:, ~test]).astype(np.float32), labels[:, test], away)

    def compared(self, left: NDArray[np.float32], right: NDArray[np.float32]) -> tuple[Array, Array]:
        """Pairs won in each cell and pairs compared, (labellings, cells) and (labellings, 1), by ``left @ right``."""
        cells = right.shape[1] // self.labels.shape[1]
        wins = np.empty((len(left), cells))
        step = max(1, AT_ONCE // right.shape[1])
        for start in range(0, len(left), step):
            part = slice(start, start + step)
            scores = (left[part] @ right).reshape(-1, cells, self.labels.shape[1])
            wins[part] = pair_wins(scores, self.labels[part, None])[0]
        n_bad = self.labels.sum(1, keepdims=True)
        return wins, n_bad * (self.labels.shape[1] - n_bad)


def _centred(vectors: Mapping[Cell, ArrayLike], n: int) -> NDArray[np.float32]:
    """All cells' vectors less their mean, of one size: float32 of shape (cells, n, width)."""
    shapes = {cell: np.shape(x) for cell, x in vectors.items()}
    first = next(iter(shapes), None)
    if first is None:
        raise HandscopeError("A transfer needs the vectors of at least one cell, and was given none.")
    for cell, shape in shapes.items():
        if shape != shapes[first] or shape[0] != n:
            raise HandscopeError(
                f"A transfer needs vectors of one shape, {n} samples by a width: {first} has {shapes[first]} and "
                f"{cell} has {shape}. Give cells of one model, and the same samples of each."
            )
    x = np.empty((len(shapes), *shapes[first]), np.float32)
    for k, (cell, given) in enumerate(vectors.items()):
        one = np.asarray(given, np.float64)
        broken = int((~np.isfinite(one)).any(1).sum())
        if broken:
            raise HandscopeError(f"Cell {cell} holds NaN or infinity in {broken} of {n} sample vectors.")
        one = one - one.mean(0)
        x[k] = one / max(float(np.sqrt(np.square(one).mean())), np.finfo(np.float32).tiny)
    return x


def _shared(
    x: NDArray[np.float32],
    y: Array,
    groups: NDArray[Any],
    fold: NDArray[np.intp],
    labels: Array,
    folds: list[_Fold],
    bootstraps: int,
    seed: int,
) -> SharedDirection:
    def of_fold(one: _Fold) -> tuple[Array, Array, NDArray[np.float32]]:
        together = np.zeros((len(labels), x.shape[-1]), np.float32)
        for cell in x:
            directions = one.weights @ cell[one.train]
            length = np.sqrt(np.einsum("pk,pk->p", directions, directions))
            together += directions / np.maximum(length, np.finfo(np.float32).tiny)[:, None]
        return *one.compared(together, one.away), together[0] @ one.away

    found = each(of_fold, folds)
    values = np.sum([won for won, _, _ in found], axis=0) / np.sum([pairs for _, pairs, _ in found], axis=0)
    means = values.mean(1)
    scores = np.empty((len(x), len(y)), np.float32)
    for one, (_, _, observed) in zip(folds, found, strict=True):
        scores[:, one.test] = observed.reshape(len(x), -1)
    weights = bootstrap_weights(groups, bootstraps, seed)
    drawn = np.mean([PairWins.of(cell_scores, y, groups, fold).auc(weights) for cell_scores in scores], axis=0)
    given = auc(scores, labels[1:, None], fold).mean(1)
    widening = max(1.0, means[1:].std() / max(given.std(), np.finfo(float).tiny))
    centre = float(np.clip(means[0], 1e-6, 1 - 1e-6))
    bounds = logit_interval(centre, widening * np.nanstd(drawn), rarer_groups(y, groups))
    direction = unit(np.mean([unit(-contrast(y) @ one.astype(np.float64)) for one in x], axis=0))
    return SharedDirection(
        direction,
        values[0],
        p_values(values[0], values[1:]),
        family_p(values[0], values[1:]),
        float(means[0]),
        bounds,
        means[1:],
        p_value(means[0], means[1:]),
        p_floor(y, labels[1:], means[1:]),
    )
