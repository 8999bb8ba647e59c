"""Which tokens of a picture's grid are a hand's, from the landmarks that the detector finds."""

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import HandscopeError
from .detect import detect

FINGER = 0.12
"""Half a finger's width in palm lengths, from wrist to middle knuckle."""
REACH = 1 / 3
"""How far from a finger's edge, in tokens, a token's centre may lie for the token to show enough of the finger."""


def detected_tokens(image: NDArray[np.uint8], shape: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
    """The tokens of every hand that the detector finds.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    shape : (rows, columns)

    Returns
    -------
    uint8 array of shape (rows, columns)
        The number of the hand at each token, from 1; 0 where there is none.
    float
        The least probability that a hand is there.

    Raises
    ------
    HandscopeError
        It finds none.
    """
    height, width = image.shape[:2]
    hands = detect(torch.tensor(image).permute(2, 0, 1)[None].float() / 255)
    numbers = np.zeros(shape, np.uint8)
    for number, points in enumerate(hands.points[:, :, :2].numpy(), 1):
        numbers[tokens_near(points, height, width, shape) & (numbers == 0)] = number
    if not numbers.any():
        raise HandscopeError("The hand detector found no hand.")
    return numbers, float(hands.presence.min())


def tokens_near(points: NDArray[np.floating], height: int, width: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The tokens of a hand, from its landmarks.

    Parameters
    ----------
    points : float array of shape (21, 2)
        x, y in pixels, in MediaPipe's order: wrist, thumb, index, middle, ring, little finger.
    height, width : int
        Of the image, in pixels.
    shape : (rows, columns)

    Returns
    -------
    bool array of shape (rows, columns)
        Tokens whose centre lies on the palm, or within a finger's half-width (and a third of a token) of a bone.
    """
    (rows, columns), joints = shape, np.asarray(points, np.float64)
    y, x = (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns
    centres = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    reach = FINGER * np.linalg.norm(joints[9] - joints[0]) + REACH * max(height / rows, width / columns)
    near = np.min([_distance(centres, joints[a], joints[b]) for a, b in _BONES], axis=0) <= reach
    return (near | _inside(centres, joints[_PALM])).reshape(shape)


_FINGERS = [range(first, first + 4) for first in (1, 5, 9, 13, 17)]
_BONES = [(a, a + 1) for finger in _FINGERS for a in list(finger)[:-1]]
_BONES += [(0, finger[0]) for finger in _FINGERS] + [(5, 9), (9, 13), (13, 17)]
_PALM = [0, 1, 5, 9, 13, 17]


def _distance(places: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """From each place (n, 2) to a line from a to b: (n,)."""
    along = (places - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-9)
    return np.asarray(np.linalg.norm(places - a - np.clip(along, 0, 1)[:, None] * (b - a), axis=1))


def _inside(places: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each place (n, 2) lies in a polygon (k, 2): a line to the right crosses an odd number of sides."""
    inside = np.zeros(len(places), bool)
    for a, b in zip(corners, np.roll(corners, -1, 0)):
        spans = (a[1] > places[:, 1]) != (b[1] > places[:, 1])
        slope = (b[0] - a[0]) / (b[1] - a[1]) if a[1] != b[1] else 0.0
        inside ^= spans & (places[:, 0] < a[0] + (places[:, 1] - a[1]) * slope)
    return inside
