"""What an autoencoder leaves of a hand: count and verdict before and after the way through it, by the hand's size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..analysis.statistics.paired import Paired, paired_rates
from ..anatomy.judge.scoring import Scores, score
from ..errors import HandscopeError
from ..models.model import Model
from ..organism.captions import CAPTIONS
from ..organism.hands import pose_hands, sample_pose
from ..organism.render import render
from ..progress import Progress, quiet

WIDTHS = (32, 48, 64, 96, 128, 192)
"""Pixels of the side of a render on its ground."""
COLUMNS = "picture group side latents psnr found found_after count count_after score score_after bad bad_after".split()


def placed(n: int, side: int, ground: int = 192, seed: int = 0) -> Tensor:
    """Open hands of renders `side` pixels wide in the middle of a ground of their own background: (n, 3, ground, …).

    The same hands at every side, drawn at that size and not made smaller.
    """
    captions = [caption for caption in CAPTIONS if caption.gesture == "five"]
    chosen = [captions[i % len(captions)] for i in range(n)]
    pose, camera = (torch.Generator().manual_seed(2 * seed + k) for k in (0, 1))
    drawn = render(pose_hands(*sample_pose(["five"] * n, pose), pose), chosen, camera, side).images.float() / 255
    level = drawn[:, :, : side // 8, : side // 8].mean((2, 3), keepdim=True)
    pictures = level.expand(n, 3, ground, ground).clone()
    first = (ground - side) // 2
    pictures[:, :, first : first + side, first : first + side] = drawn
    return pictures


def round_trip(model: Model, pictures: Tensor, batch_size: int = 8) -> Tensor:
    """Pictures (n, 3, height, width) in [0, 1] as the model's autoencoder gives them back."""
    height, width = pictures.shape[-2:]
    parts = [model.decode(model.encode_image(some), height, width) for some in pictures.split(batch_size)]
    return torch.cat(parts).float().clamp(0, 1).cpu()


def kept(
    model: Model, pictures: Tensor, sides: Sequence[float] | None = None, groups: Sequence[object] | None = None
) -> pd.DataFrame:
    """A row a picture that shows one hand: what the scorer says of it before and after the round trip.

    Parameters
    ----------
    pictures : (n, 3, height, width), whole tokens in size
    sides : of the hand's square in pixels; what the scorer finds before, where they are not given
    groups : what makes pictures alike; each its own by default

    Returns
    -------
    DataFrame with the columns `COLUMNS`: side in pixels and in latents; psnr in decibels, of the whole picture; found;
    count (4 for fewer than five, 6 for more, 0 unknown); score, higher is more plausible; bad, 1 for implausible or not
    found, 0 for plausible, NaN where it cannot tell
    """
    after = round_trip(model, pictures)
    step = float(model.pipe.vae_scale_factor)
    rows = pd.DataFrame({"picture": range(len(pictures))})
    rows["group"] = list(range(len(pictures)) if groups is None else groups)
    error = (after - pictures).square().mean((1, 2, 3)).double().numpy()
    rows["psnr"] = -10 * np.log10(np.maximum(error, 1e-10))
    for suffix, shown in (("", pictures), ("_after", after)):
        scores = score(shown)
        table = scores.table().drop_duplicates("image").set_index("image")
        table = table.reindex(range(len(pictures)), columns=["outcome", "count", "score", "size"])
        rows[f"found{suffix}"] = (table["outcome"] != "undetected").to_numpy()
        for name in ("count", "score"):
            rows[f"{name}{suffix}"] = table[name].to_numpy(float)
        rows[f"bad{suffix}"] = _bad(scores)
        if not suffix:
            rows["side"] = table["size"].to_numpy(float) if sides is None else list(sides)
    rows["latents"] = rows["side"] / step
    return rows[COLUMNS]


def _bad(scores: Scores) -> list[float]:
    value = {"implausible": 1.0, "undetected": 1.0, "plausible": 0.0}
    return [value.get(outcome, float("nan")) for outcome in scores.outcomes()]


def by_side(rows: pd.DataFrame) -> pd.DataFrame:
    """Rates by the hand's size: a row a side; found, five (counted five, of those found) and bad, before and after.

    Columns `difference`, `lo`, `hi` and `p` compare bad before and after on the same pictures.
    """
    out = []
    for side, part in rows.groupby("side", sort=True):
        try:
            pair: Paired | None = paired_rates(part["bad"], part["bad_after"], part["group"])
        except HandscopeError:  # nothing that both sides could tell
            pair = None
        row = {"side": side, "latents": part["latents"].iloc[0], "n": len(part), "psnr": part["psnr"].mean()}
        for suffix in ("", "_after"):
            found = part[f"found{suffix}"]
            row |= {f"found{suffix}": found.mean(), f"five{suffix}": (part[f"count{suffix}"][found] == 5).mean()}
            row |= {f"bad{suffix}": part[f"bad{suffix}"].mean()}
        row |= dict(zip(("difference", "lo", "hi", "p"), _said(pair)))
        out.append(row)
    return pd.DataFrame(out)


def _said(pair: Paired | None) -> tuple[float, ...]:
    return (np.nan,) * 4 if pair is None else (pair.difference, pair.low, pair.high, pair.p)


def on_renders(model: Model, n: int = 24, seed: int = 0, progress: Progress = quiet) -> pd.DataFrame:
    """`kept` of renders at each of `WIDTHS`."""
    parts = []
    for done, side in enumerate(WIDTHS):
        progress("codec", done, len(WIDTHS))
        parts.append(kept(model, placed(n, side, seed=seed), [float(side)] * n))
    progress("codec", len(WIDTHS), len(WIDTHS))
    return pd.concat(parts, ignore_index=True)
