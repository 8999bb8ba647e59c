"""A probe's output on every token, over the clean image that the model predicts at a step."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from .style import inches, scaled, wrapped

COLOURS = "PuOr_r"
SCORE = "log-odds of bad, a token"


def score_limit(scores: NDArray[np.floating]) -> float:
    """Where the colours end: the score that 98 of 100 tokens stay below in size."""
    sizes = np.abs(scores[np.isfinite(scores)])
    return float(max(np.quantile(sizes, 0.98), 1e-9)) if sizes.size else 1.0


def watch_strip(
    x0: NDArray[np.uint8],
    scores: NDArray[np.floating],
    steps: Sequence[int],
    blocks: Sequence[str],
    ax: Axes,
    *,
    limit: float,
    note: str = "",
) -> Axes:
    """Steps across; the predicted clean image on top, and below it the scores of each block over the same in grey.

    Parameters
    ----------
    x0 : uint8 array of shape (steps, height, width, 3)
    scores : array of shape (blocks, steps, rows, columns), positive for bad
    limit : score at which a colour is full, as of `score_limit`
    note : what a reader must know, written below
    """
    height, width = x0.shape[1:3]
    gap = 0.05 * width
    for column, step in enumerate(steps):
        left = column * (width + gap)
        ax.imshow(x0[column], extent=(left, left + width, height, 0), interpolation="nearest")
        ax.text(left + width / 2, -0.04 * height, str(step), ha="center", va="bottom", fontsize=scaled(0.95))
        for row in range(len(blocks)):
            top = (row + 1) * (height + gap)
            _overlay(x0[column], scores[row, column], (left, left + width, top + height, top), limit, ax)
    names = ["predicted", *blocks]
    middles = [row * (height + gap) + height / 2 for row in range(len(names))]
    ax.set_xlim(0, len(steps) * (width + gap) - gap)
    ax.set_ylim(len(names) * (height + gap) - gap, -0.22 * height)
    ax.set_yticks(middles, names)
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title("steps that remain: noisiest → last", fontsize=scaled(0.95), fontweight="normal")
    _score_bar(ax, limit)
    if note:
        size = scaled(0.86)
        ax.set_xlabel(wrapped(note, 0.95 * inches(ax)[0], size), loc="left", fontsize=size)
    ax.set_aspect("equal")
    return ax


def watch_frame(
    x0: NDArray[np.uint8],
    scores: NDArray[np.floating],
    titles: Sequence[str],
    panels: Sequence[Axes],
    *,
    limit: float,
    note: str = "",
) -> Sequence[Axes]:
    """One step: the predicted image in the first of `panels`, and the scores of a block over it in each other one.

    Parameters
    ----------
    x0 : uint8 array of shape (height, width, 3)
    scores : array of shape (blocks, rows, columns), positive for bad
    titles : one a panel
    """
    height, width = x0.shape[:2]
    box = (0, width, height, 0)
    for number, (ax, title) in enumerate(zip(panels, titles, strict=True)):
        if number == 0:
            ax.imshow(x0, extent=box, interpolation="nearest")
        else:
            _overlay(x0, scores[number - 1], box, limit, ax)
        ax.set_title(title, fontsize=scaled(0.9))
        ax.set_axis_off()
    _score_bar(panels[-1], limit)
    if note:
        whole, size = panels[0].get_figure(root=False), scaled(0.76)
        whole.supxlabel(wrapped(note, whole.get_figwidth() - 0.2, size), x=0.01, ha="left", fontsize=size)
    return panels


def _overlay(
    x0: NDArray[np.uint8], scores: NDArray[np.floating], box: tuple[float, float, float, float], limit: float, ax: Axes
) -> None:
    grey = x0 @ np.array([0.299, 0.587, 0.114])
    # From mid-grey up, so that colours on it can be told from each other.
    ax.imshow(grey, extent=box, cmap="gray", vmin=-255, vmax=255, interpolation="nearest")
    shown = np.nan_to_num(scores)
    tints = mpl.colormaps[COLOURS](Normalize(-limit, limit, clip=True)(shown))
    tints[..., 3] = 0.85 * np.minimum(np.abs(shown) / limit, 1)  # what says nothing is left as it was
    ax.imshow(tints, extent=box, interpolation="nearest")


def _score_bar(ax: Axes, limit: float) -> None:
    colours = ScalarMappable(Normalize(-limit, limit), COLOURS)
    bar = ax.get_figure(root=False).colorbar(colours, ax=ax, label=SCORE, pad=0.015, aspect=22, shrink=0.9)
    bar.outline.set_visible(False)
