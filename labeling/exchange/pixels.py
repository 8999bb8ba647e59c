"""Between token grids and pictures of the image's size, for formats that other tools lay over the image."""

import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError

UNSURE = 4
CATEGORIES = (1, 2, 3, UNSURE)
"""Classes of pixels: a token's label, and 4 for an instance without one; 0 is unlabelled."""


def classes(labels: NDArray[np.uint8], instances: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The class of each token of a grid, 0 to 4."""
    return np.where((labels == 0) & (instances > 0), UNSURE, labels).astype(np.uint8)


def grids(classes: NDArray[np.uint8], instances: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Labels and instances from classes and instance numbers of the same shape."""
    labels = np.where(classes == UNSURE, 0, classes).astype(np.uint8)
    return labels, np.where(classes >= 2, instances, 0).astype(np.uint8)


def spread(grid: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A grid as a picture (height, width): every token a rectangle of its value."""
    rows, columns = grid.shape
    return np.kron(grid, np.ones((height // rows, width // columns), np.uint8))


def gather(picture: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """A picture as a grid (rows, columns): every token the value that most of its pixels have, the least of equals.

    Raises
    ------
    HandscopeError
        The picture is not of whole tokens.
    """
    height, width = picture.shape
    if min(rows, columns) < 1 or height % rows or width % columns:
        raise HandscopeError(
            f"Expected a mask of {rows} by {columns} whole tokens, found one of {height} by {width} pixels: export it "
            "at the size of the image."
        )
    cells = picture.reshape(rows, height // rows, columns, width // columns)
    values = np.unique(picture)
    share = np.stack([(cells == value).sum((1, 3)) for value in values])
    return np.asarray(values[share.argmax(0)], np.uint8)


def share(picture: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """A picture as a grid (rows, columns): the mean of each token's pixels; the picture is of whole tokens."""
    height, width = picture.shape
    return picture.reshape(rows, height // rows, columns, width // columns).mean((1, 3))
