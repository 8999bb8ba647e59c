"""What a hand of the organism should look like: a plausible one of its caption, laid over the one that was drawn.

HandRefiner fits a mesh to the pose that it finds. The landmarks of a malformed hand are no pose to go by, and the
organism's caption says which fingers are raised: so the template is a hand of the renderer that shows the caption's
gesture, the one of `CANDIDATES` whose silhouette has most in common with the picture's.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from .captions import Caption
from .depth import depth_maps
from .hands import pose_hands, sample_pose
from .silhouette import silhouette

CANDIDATES = 64
MARGIN = 3  # pixels around both silhouettes that are painted anew too


@cache
def candidates(side: str, view: str, gesture: str, size: int) -> NDArray[np.float32]:
    """Depth of plausible hands: (CANDIDATES, size, size); skin and background play no part in it."""
    captions = [Caption(side, view, gesture, "tan", "blue")] * CANDIDATES
    generator = torch.Generator().manual_seed(0)
    hands = pose_hands(*sample_pose([gesture] * CANDIDATES, generator), generator)
    return depth_maps(hands, captions, generator, size).numpy()


def template(picture: NDArray[np.uint8], caption: str) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """What of a picture is to be painted anew, and its depth: both (height, width), the mask empty without a hand.

    Parameters
    ----------
    picture : uint8 array of shape (size, size, 3)
    caption : a prompt of the organism's family
    """
    asked, found = Caption.parse(caption), silhouette(picture)
    maps = candidates(asked.side, asked.view, asked.gesture, len(picture))
    if not found.any():
        return found, np.zeros_like(maps[0])
    inside = maps > 0
    shared = (inside & found).sum((1, 2)) / (inside | found).sum((1, 2))
    depth = maps[shared.argmax()]
    return ndimage.binary_dilation(found | (depth > 0), iterations=MARGIN), depth
