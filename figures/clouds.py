"""Samples as points."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from ..labeling.subject import Subject, words_of
from .calls import FRESH, drawing
from .style import BAD, GOOD, halo, inches, scale, scaled


@drawing
def scatter(xy: ArrayLike, bad: ArrayLike, ax: Axes = FRESH, *, note: str = "") -> Axes:
    """Samples at coordinates of shape (n, 2), coloured by `bad` of shape (n,), 1 or 0; a `note` in a corner.

    Bad ones are filled and good ones open where there is room to see it: the two colours are one grey.
    """
    xy, bad = np.asarray(xy, float), np.asarray(bad, float)
    # One call for both classes, in the samples' own order: neither lies on top of the other.
    colours = [BAD if one else GOOD for one in bad == 1]
    room = min(inches(ax)) / 1.5  # beside a panel of the report's
    if room > 1.5:
        faces = [to_rgba(colour, 0.8 * (colour == BAD)) for colour in colours]
        ax.scatter(xy[:, 0], xy[:, 1], s=5 * scale() * room**2, facecolors=faces, edgecolors=colours,
                   linewidths=1.1 * scale(), rasterized=True)  # fmt: skip
    else:
        ax.scatter(xy[:, 0], xy[:, 1], s=5 * scale(), c=colours, alpha=0.65, linewidths=0, rasterized=True)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color("#CCCCCC")
    if note:
        ax.text(0.97, 0.96, note, transform=ax.transAxes, ha="right", va="top", fontsize=scaled(0.81),
                path_effects=halo())
    return ax


def label_legend(ax: Axes, *, subject: Subject | None = None, **where: Any) -> Axes:
    """A legend of the colours of good and bad, in the words of a subject; `where` goes to ``Axes.legend``."""
    classes = words_of(subject).classes
    patches = [Patch(facecolor=to_rgba(colour, 0.45), edgecolor=colour, label=name)
               for name, colour in ((classes.good, GOOD), (classes.bad, BAD))]
    ax.legend(handles=patches, **where)
    return ax
