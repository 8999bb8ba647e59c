"""What a user brings to an evaluation, by ``module:function``: scorers, repairs, selectors."""

import numpy as np
from PIL import Image, ImageOps


def bright(pictures, prompts):
    """Bad is what is brighter than the median grey of these random pictures; by the first pixel."""
    assert len(pictures) == len(prompts)
    return np.array([float(np.asarray(one)[0, 0, 0] % 2) for one in pictures])


def darkened(pictures, prompts):
    """Makes every picture good by `bright`."""
    return [Image.fromarray(np.asarray(one) // 2 * 2) for one in pictures]


def inverted(pictures, prompts):
    """Makes good of bad and bad of good."""
    return [ImageOps.invert(one) for one in pictures]


def fails(pictures, prompts):
    """Cannot."""
    raise RuntimeError("no room\nfor this")


def mean_level(pictures, prompts):
    """Higher for lighter pictures."""
    return np.array([np.asarray(one).mean() for one in pictures])
