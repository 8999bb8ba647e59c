"""COCO's run-length encoding of masks, as pycocotools reads and writes it, in numpy alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError


def encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths.

    >>> encode(np.array([[0, 1], [1, 1]], bool))
    {'size': [2, 2], 'counts': '13'}

    Parameters
    ----------
    mask : bool array of shape (height, width)

    Returns
    -------
    dict
        ``size``, [height, width], and ``counts``, a string: what JSON holds, and `pycocotools.mask.decode` takes.

    Notes
    -----
    Runs go down the columns and begin with one of zeros, which may be empty. From the fourth on, a run is written as
    its difference from the last but one; five bits a character, the sixth says that more follow
    (https://github.com/cocodataset/cocoapi, maskApi.c, rleToString).
    """
    height, width = mask.shape
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0] if flat[:1].any() else [], [0], edges, [flat.size]]).astype(np.int64)
    counts = np.diff(starts) if flat.size else np.zeros(1, np.int64)
    return {"size": [int(height), int(width)], "counts": _text(counts.tolist())}


def decode(segmentation: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask, bool of shape (height, width), of compressed run lengths or of a list of them.

    Raises
    ------
    HandscopeError
        It is neither, or the runs do not fill the size that it names.
    """
    try:
        height, width = (int(length) for length in segmentation["size"])
        counts = segmentation["counts"]
        runs = _numbers(counts) if isinstance(counts, str) else [int(count) for count in counts]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise HandscopeError(
            "Expected a mask as COCO's run lengths, {'size': [height, width], 'counts': ...}, found "
            f"{str(segmentation)[:60]!r}; polygons are not read."
        ) from error
    if min(height, width, *runs, 0) < 0 or sum(runs) != height * width:
        raise HandscopeError(
            f"Expected run lengths that fill a mask of {height} by {width} pixels, found {len(runs)} that sum to "
            f"{sum(runs)}: the mask is damaged, export it again."
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _text(counts: list[int]) -> str:
    letters = []
    for i, count in enumerate(counts):
        left = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = left & 0x1F
            left >>= 5
            more = left != (-1 if bits & 0x10 else 0)
            letters.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(letters)


def _numbers(text: str) -> list[int]:
    counts: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        more = True
        while more:
            bits = ord(text[place]) - 48
            if not 0 <= bits < 64 or shift > 60:
                raise ValueError(f"{text[place]!r} is no part of run lengths")
            value |= (bits & 0x1F) << shift
            more, shift, place = bool(bits & 0x20), shift + 5, place + 1
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
