"""Pictures with the token labels over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from numpy.typing import NDArray

from ..labeling.database.labels import Annotation
from .style import BAD, GOOD, LABEL_COLOURS, UNSURE, scaled


def contact_sheet(
    images: Sequence[NDArray[np.uint8]], annotations: Sequence[Annotation], ax: Axes, *, columns: int,
    notes: Sequence[str] = ()
) -> Axes:
    """Images in rows of `columns`, with the token labels over them: an instance tinted, and outlined, by label.

    Parameters
    ----------
    images : uint8 arrays of shape (height, width, 3), all of one size
    annotations : the labels of each
    notes : a few words to write below each
    """
    height, width = images[0].shape[:2]
    gap, line = 0.06 * width, (0.2 * height if notes else 0.06 * height)
    for place, (image, annotation) in enumerate(zip(images, annotations, strict=True)):
        left, top = place % columns * (width + gap), place // columns * (height + line)
        box = (left, left + width, top + height, top)
        ax.imshow(image, extent=box, interpolation="nearest")
        tints = np.zeros((*annotation.labels.shape, 4))
        for label, colour in LABEL_COLOURS.items():
            tints[(annotation.labels == label) & (annotation.instances > 0)] = to_rgba(colour, 0.12)
        ax.imshow(tints, extent=box, interpolation="nearest")
        edge = {"g": GOOD, "b": BAD, "u": UNSURE}[annotation.verdict[0]]
        outline = _outline(annotation.instances > 0, left, top, width, height)
        for colour, thick in (("white", 2.0), (edge, 1.1)):
            ax.add_collection(LineCollection(outline, colors=[colour], linewidths=thick))
        if notes:
            ax.text(left + width / 2, top + 1.03 * height, notes[place], ha="center", va="top", fontsize=scaled(0.76))
    rows = -(-len(images) // columns)
    ax.set_xlim(-1, columns * (width + gap) - gap + 1)
    ax.set_ylim(rows * (height + line) - (0 if notes else line) + 1, -1)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def _outline(
    mask: NDArray[np.bool_], left: float, top: float, width: float, height: float
) -> list[list[tuple[float, float]]]:
    """Segments along the border of a token mask."""
    rows, columns = mask.shape
    tall, wide = height / rows, width / columns
    padded = np.pad(mask, 1)
    segments = []
    for row, column in zip(*np.nonzero(padded[1:, :] != padded[:-1, :]), strict=True):
        y, x = top + row * tall, left + (column - 1) * wide
        segments.append([(x, y), (x + wide, y)])
    for row, column in zip(*np.nonzero(padded[:, 1:] != padded[:, :-1]), strict=True):
        y, x = top + (row - 1) * tall, left + column * wide
        segments.append([(x, y), (x, y + tall)])
    return segments
