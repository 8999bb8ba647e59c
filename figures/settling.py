"""When something is decided: the share that is, over steps, and the pictures in which one sees it happen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from .calls import FRESH, drawing
from .style import BAD, FAINT, GOOD, INK, SERIES, STEPS_LABEL, scale, scaled

if TYPE_CHECKING:
    from ..analysis.statistics.survival import Survival

GROUPS = {"good": GOOD, "bad": BAD}


@drawing
def decided_share(lines: Mapping[str, Survival], steps: int, ax: Axes = FRESH) -> Axes:
    """The share that is decided by each step (one minus Kaplan and Meier's estimate), with its 95% interval.

    Parameters
    ----------
    lines : name -> Survival in indices from 0, the noisiest step; a line named good or bad has that colour
    steps : int, of the generation
    """
    for place, (name, survival) in enumerate(lines.items()):
        colour = GROUPS.get(name, SERIES[place % len(SERIES)][0])
        at = np.concatenate([[steps + 0.5], steps - survival.times, [0.5]])
        curves = [
            np.concatenate([[0], 1 - part, 1 - part[-1:]]) if len(part) else np.zeros(2)
            for part in (survival.share, survival.high, survival.low)
        ]
        ax.step(at, curves[0], where="post", color=colour, linewidth=2 * scale(), label=f"{name} (n = {survival.n})")
        ax.fill_between(at, curves[1], curves[2], step="post", color=colour, alpha=0.15, linewidth=0)
    ax.axhline(0.5, color=FAINT, linewidth=0.8, linestyle=":")
    ax.set_xlim(steps + 0.5, 0.5)
    ax.set_ylim(0, 1)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.set_xlabel(STEPS_LABEL)
    ax.set_ylabel("decided by then")
    ax.legend(loc="lower right")
    return ax


def filmstrip(
    pictures: NDArray[np.uint8],
    shapes: Sequence[NDArray | None],
    steps: Sequence[int],
    ax: Axes,
    *,
    decided: int | None = None,
    title: str = "",
) -> Axes:
    """Predicted clean pictures side by side with the shape that was found in each.

    Parameters
    ----------
    pictures : uint8 array of shape (k, height, width, 3)
    shapes : k arrays of shape (points, 2) in pixels, or None
    steps : k ints, what remains
    decided : the step at which the shape was decided; it and later ones are framed
    """
    height, width = pictures.shape[1:3]
    gap = 0.06 * width
    for place, (picture, shape, step) in enumerate(zip(pictures, shapes, steps, strict=True)):
        left = place * (width + gap)
        ax.imshow(picture, extent=(left, left + width, height, 0), interpolation="nearest")
        if shape is not None:
            ax.scatter(left + shape[:, 0] + 0.5, shape[:, 1] + 0.5, s=0.8 * scale() ** 2, color="white", linewidths=0)
            ax.scatter(left + shape[:, 0] + 0.5, shape[:, 1] + 0.5, s=0.3 * scale() ** 2, color=INK, linewidths=0)
        settled = decided is not None and step <= decided
        if settled:
            frame = np.array([(left, 0), (left + width, 0), (left + width, height), (left, height), (left, 0)])
            ax.plot(frame[:, 0], frame[:, 1], color=GOOD, linewidth=1.6 * scale())
        note = f"{step}" if shape is not None else f"{step} (none)"
        ax.text(left + width / 2, -0.05 * height, note, ha="center", va="bottom", fontsize=scaled(0.86))
    ax.set_xlim(-gap, len(pictures) * (width + gap))
    ax.set_ylim(height + 2, -0.24 * height)
    ax.set_aspect("equal")
    ax.set_axis_off()
    if title:
        ax.set_title(title, fontsize=scaled(0.95), fontweight="normal")
    return ax
