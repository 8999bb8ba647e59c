"""Which pixels of a picture are hand: the organism draws one hand on a plain background, so colour is enough."""

import numpy as np
from scipy import ndimage

FOREGROUND = 0.45  # share of the way from background to hand colour at which a pixel counts as hand
CELL = 0.25  # share of a token's pixels that must be hand for the token to count as a hand token


def opacity(image: np.ndarray) -> np.ndarray:
    """How far each pixel lies from the background towards the hand's colour.

    The background is the median of the left, right and top borders, which a hand crosses at most in part. The distance
    from it, in RGB, is scaled so that the typical hand pixel has 1; an outline, which is darker still, is clipped.

    Parameters
    ----------
    image : array of shape (height, width, 3), uint8

    Returns
    -------
    array of shape (height, width), float32 in [0, 1]
    """
    pixels = image.astype(np.float32) / 255
    border = np.concatenate([pixels[:2].reshape(-1, 3), pixels[:, :2].reshape(-1, 3), pixels[:, -2:].reshape(-1, 3)])
    distance = np.linalg.norm(pixels - np.median(border, 0), axis=-1)
    hand = np.median(distance[distance > 0.2]) if (distance > 0.2).any() else 1.0
    return np.clip(distance / hand, 0, 1)


def silhouette(image: np.ndarray) -> np.ndarray:
    """Hand pixels of a picture: array of shape (height, width), bool. Small holes, such as a pale nail, are filled."""
    mask = opacity(image) > FOREGROUND
    holes, n = ndimage.label(~mask)
    if n:
        sizes = ndimage.sum_labels(~mask, holes, np.arange(1, n + 1))
        mask |= np.isin(holes, 1 + np.flatnonzero(sizes < 6))
    return mask


def foreground(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Tokens of a picture's grid that lie on the hand: array of shape (rows, columns), bool."""
    return hand_tokens(silhouette(image), rows, columns)


def hand_tokens(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Tokens of a grid that lie on the hand: array of shape (rows, columns), bool."""
    height, width = mask.shape
    cells = mask.reshape(rows, height // rows, columns, width // columns)
    return cells.mean((1, 3)) >= CELL
