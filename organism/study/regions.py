"""What settles in the organism's pictures, for `handscope.evaluation.commitment`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ...analysis.commitment import along_bones
from ...evaluation.regions import Pictures, Region, Shapes, of_colour, of_shapes, outlines
from ...models.embedded import organism_of
from ...run.folder import Run
from ..silhouette import silhouette


def regions_of(run: Run) -> list[Region]:
    """What is looked at in a run: of the organism's pictures all that they show, of others the hand's skeleton."""
    height = int(run.settings.get("generation", {}).get("height", 512))
    if organism_of(run.settings):
        return organism_regions(height)
    return [of_shapes("hand", hand_skeletons(), 5 * height / 512)]


def organism_regions(height: int) -> list[Region]:
    """The regions of the organism's pictures: its hand by skeleton and by outline, and its plain background by colour.

    The source's tolerance, 5 of 512 pixels, would be 0.9 of the organism's 96: less than the landmark network's own
    unrest and than the pixels of an outline can tell. The tolerance here is a thirty-second of the height, 3 of 96.
    """
    pixels = height / 32

    def background(pictures: Pictures) -> NDArray[np.bool_]:
        return ~ndimage.binary_dilation(silhouette(pictures[-1]), iterations=max(1, height // 32))

    return [
        of_shapes("hand", hand_skeletons(), pixels),
        of_shapes("outline", outlines(silhouette), pixels),
        of_colour("background", background, 5.0),
    ]


def hand_skeletons(threshold: float = 0.5) -> Shapes:
    """The surest hand of each picture, as points along its bones; from HandAnat's landmark networks, one pass."""
    from ...anatomy.read.detect import detect
    from ...anatomy.read.skeleton import DIGIT_BONES, PALM_BONES

    bones = [(int(a), int(b)) for a, b in torch.cat([DIGIT_BONES, PALM_BONES]).tolist()]

    def shapes(pictures: Pictures) -> list[NDArray | None]:
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        hands = detect(images, threshold=threshold, search="plain", max_hands=1)
        skeletons: list[NDArray | None] = [None] * len(pictures)
        for i, points in zip(hands.image.tolist(), hands.points[..., :2].tolist()):
            skeletons[i] = along_bones(points, bones)
        return skeletons

    return shapes
