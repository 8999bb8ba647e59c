"""The streams of two runs at every noise level that both have: all blocks of one beside all blocks of the other."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..analysis.statistics.folds import codes
from ..analysis.statistics.intervals import jackknife_interval
from ..analysis.statistics.multiple import family_p
from ..analysis.statistics.nulls import p_value
from ..analysis.statistics.paired import half_width
from ..files import atomic, sha256
from ..parallel import each
from ..progress import Progress, quiet
from .linear_maps import RidgeMap, Side
from .similarity import Dependence, procrustes
from .streams import Shared

Array = NDArray[np.float64]

MEASURES = ("cka", "procrustes", "ridge_ab", "ridge_ba")
DISTANCES = ("procrustes",)
"""Those that are small where streams are alike."""

RANGE = (-1.5, 1.5)
"""Of an estimate of CKA without bias, which may lie a little beyond what CKA can be."""

MAPPED = 19
"""Of the shuffled pairs so many are rotated and mapped: as few as tell p = 0.05, adjusted for all blocks."""

VERSION = 3
"""Of the parts: raised when their numbers change their meaning."""


def compare_streams(
    shared: Shared, folder: Path, pairings: int = 99, seed: int = 0, progress: Progress = quiet
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compare the streams of two runs on the samples that they share.

    Parameters
    ----------
    folder : where each noise level that is done is kept, a file each, so that the next call goes on with the others
    pairings : shuffled pairs of samples behind each null

    Returns
    -------
    A row for each two blocks at each noise level, with each of `MEASURES`, its interval over prompts, its null, p and p
    adjusted for all rows; and a row of how alike the two runs are at equal depth, in the mean over noise levels.
    """
    a, b = shared.a, shared.b
    shuffled = shared.pairings(pairings, seed)
    key = _key(shared, pairings, seed)

    def at(steps: tuple[int, int]) -> dict[str, Array]:
        path = folder / f"{key}-{steps[0]}-{steps[1]}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError):  # not there yet, or not whole
            pass
        # safetensors writes an array's memory as it lies.
        arrays = {name: np.ascontiguousarray(array) for name, array in _compared(shared, steps, shuffled).items()}
        with atomic(path) as temporary:
            save_file(arrays, temporary)
        return arrays

    found = each(at, shared.steps, progress, f"streams {a.name} {b.name}")
    tables = []
    for (step, other), arrays in zip(shared.steps, found, strict=True):
        rows = [
            {
                "run_a": a.name, "block_a": one, "depth_a": a.depth[one], "step_a": step,
                "run_b": b.name, "block_b": two, "depth_b": b.depth[two], "step_b": other, "sigma": a.sigma[step],
            }
            for one in a.blocks for two in b.blocks
        ]  # fmt: skip
        table = pd.DataFrame(rows).assign(rows=shared.rows, n=len(shared.samples), prompts=shared.prompts.max() + 1)
        for name in MEASURES:
            value, null = arrays[name].ravel(), _flat(arrays[f"{name}_null"])
            table[name] = value
            table[f"{name}_lo"], table[f"{name}_hi"] = arrays[f"{name}_lo"].ravel(), arrays[f"{name}_hi"].ravel()
            table[f"{name}_null_mean"], table[f"{name}_null_sd"] = null.mean(0), null.std(0)
            sign = -1 if name in DISTANCES else 1
            table[f"{name}_p"] = [p_value(sign * one, sign * other) for one, other in zip(value, null.T, strict=True)]
        tables.append(table.assign(kept_a=np.repeat(arrays["kept_a"], len(b.blocks)),
                                   kept_b=np.tile(arrays["kept_b"], len(a.blocks))))  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    for name in MEASURES:
        sign = -1 if name in DISTANCES else 1
        null = np.concatenate([_flat(one[f"{name}_null"]) for one in found], axis=1)
        where = table.columns.get_loc(f"{name}_p") + 1
        table.insert(where, f"{name}_p_family", family_p(sign * table[name], sign * null))
    return table, _likeness(shared, found)


def _flat(null: Array) -> Array:
    """A null of shape (pairings, A, B) as the columns of a table's rows."""
    return null.reshape(len(null), -1)


def _key(shared: Shared, pairings: int, seed: int) -> str:
    """What parts of this comparison are named by: another choice of samples, models or settings has other ones."""
    said: list[Any] = [VERSION, shared.rows, shared.samples["sample"].tolist(), pairings, seed]
    for one in (shared.a, shared.b):
        assert one.store is not None
        rows = one.samples[one.samples["sample"].isin(set(shared.samples["sample"]))]
        plan = [one.store.attrs.get("weight_hash"), str(one.store.plan), one.blocks]
        tokens = sha256(np.ascontiguousarray(one.store.records).tobytes())  # which of them are the subject's
        said += [plan, sorted(rows["image_sha256"]), tokens, one.sigma]
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:16]


def _compared(shared: Shared, steps: tuple[int, int], shuffled: NDArray[np.intp]) -> dict[str, Array]:
    """All measures of all pairs of blocks at one noise level, with intervals and nulls: arrays of shape (A, B)."""
    grams, sides, kept = [], [], []
    for one, step in zip((shared.a, shared.b), steps, strict=True):
        # Of wide streams as they are there is no room for all blocks at once.
        read = [(stream.gram, *stream.axes) for stream in shared.streams(one, step)]
        grams.append(np.stack([gram for gram, _, _ in read]))
        sides.append([Side(x, shared.folds) for _, x, _ in read])
        kept.append(np.array([share for _, _, share in read]))
    shape = (len(sides[0]), len(sides[1]))
    found = _cka(grams[0], grams[1], shared.prompts, shuffled)
    names = MEASURES[1:]
    found |= {f"{name}{end}": np.empty(shape) for name in names for end in ("", "_lo", "_hi")}
    found |= {f"{name}_null": np.empty((len(shuffled[:MAPPED]), *shape)) for name in names}
    for i, x in enumerate(sides[0]):
        for j, y in enumerate(sides[1]):
            for name, (value, low, high, null) in _mapped(x, y, shared.prompts, shuffled[:MAPPED]).items():
                found[name][i, j], found[f"{name}_lo"][i, j], found[f"{name}_hi"][i, j] = value, low, high
                found[f"{name}_null"][:, i, j] = null
    return found | {"kept_a": kept[0], "kept_b": kept[1]}


def _cka(first: Array, second: Array, prompts: NDArray[np.intp], shuffled: NDArray[np.intp]) -> dict[str, Array]:
    """CKA of two runs' Gram matrices, (A, n, n) and (B, n, n); and ``cka_without`` one prompt each, (prompts, A, B)."""
    whole = Dependence(prompts)
    a = whole.parts(first)
    value = whole.cka(a, whole.parts(second))
    without = []
    for one in np.unique(prompts):
        kept = np.flatnonzero(prompts != one)
        rest = Dependence(codes(prompts[kept]))
        without.append(rest.cka(*(rest.parts(gram[:, kept[:, None], kept]) for gram in (first, second))))
    replicates = np.stack(without)
    each_left = replicates.reshape(len(without), -1).T
    ends = [jackknife_interval(one, left, RANGE) for one, left in zip(value.flat, each_left, strict=True)]
    low, high = np.array(ends).T.reshape(2, *value.shape)
    null = np.stack([whole.cka(a, whole.parts(second[:, one[:, None], one])) for one in shuffled])
    return {"cka": value, "cka_lo": low, "cka_hi": high, "cka_null": null, "cka_without": replicates}


def _mapped(
    x: Side, y: Side, prompts: NDArray[np.intp], shuffled: NDArray[np.intp]
) -> dict[str, tuple[float, float, float, Array]]:
    """Value, interval and null of the distance of two blocks, and of the maps both ways."""
    size = float(x.squares.sum()), float(y.squares.sum())
    crossed, other = x.crossed(y), [x.crossed(y, one) for one in shuffled]
    distance = float(procrustes(crossed.sum(0), *size))
    without = []
    for one in np.unique(prompts):
        kept = prompts != one
        left, right = (side.x[kept] - side.x[kept].mean(0) for side in (x, y))
        product = np.tensordot(left, right, ((0, 1), (0, 1)))
        without.append(float(procrustes(product.astype(np.float64), np.square(left).sum(), np.square(right).sum())))
    null = procrustes(np.stack([one.sum(0) for one in other]), *size)
    found = {"procrustes": (distance, *jackknife_interval(distance, without, (0.0, 2.0)), null)}
    for name, first, second, turn in (("ridge_ab", x, y, False), ("ridge_ba", y, x, True)):
        sums = [np.swapaxes(one, 1, 2) if turn else one for one in (crossed, *other)]
        fitted, *shuffles = (RidgeMap(first, second, one) for one in sums)
        left, whole = (np.bincount(prompts, one) for one in fitted.of_samples())
        share = fitted.explained
        half = half_width((left - (1 - share) * whole) / whole.sum())
        found[name] = share, share - half, min(1.0, share + half), np.array([one.explained for one in shuffles])
    return found


def _likeness(shared: Shared, found: list[dict[str, Array]]) -> dict[str, Any]:
    """Means over blocks and noise levels, each block beside the one of the other run that lies nearest in depth."""
    a, b = (np.array(list(one.depth.values())) for one in (shared.a, shared.b))
    apart = np.abs(a[:, None] - b)
    pairs = {(i, int(j)) for i, j in enumerate(apart.argmin(1))} | {(int(i), j) for j, i in enumerate(apart.argmin(0))}
    i, j = np.array(sorted(pairs)).T

    def mean(name: str) -> Array:
        out: Array = np.mean([one[name][..., i, j].mean(-1) for one in found], axis=0)
        return out

    replicates = mean("cka_without")
    low, high = jackknife_interval(float(mean("cka")), replicates, RANGE)
    row: dict[str, Any] = {
        "rows": shared.rows, "n": len(shared.samples), "prompts": int(shared.prompts.max()) + 1,
        "sigmas": len(shared.steps), "shuffled": "within prompts" if shared.within else "within folds",
    }  # fmt: skip
    for name in MEASURES:
        row |= {name: float(mean(name)), f"{name}_null": float(mean(f"{name}_null").mean())}
    names = sorted(set(shared.samples["prompt"]))
    return row | {"cka_lo": low, "cka_hi": high, "replicates": dict(zip(names, replicates, strict=True))}
