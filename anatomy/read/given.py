"""Pictures as people hold them, as the float tensors that the networks see.

    pictures = as_pictures([pil_image, "photo.jpg", array, tensor])         # list of float32 (3, h, w) in [0, 1]

A picture is a tensor or an array of three channels, first or last, of bytes or of floating-point numbers in [0, 1] of
any precision; a PIL picture of any mode; or the path of a file. Several are a list of any of these, or one tensor or
array with a row each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import HandscopeError
from .pictures import Skipped, read_picture, shown, upright

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Given: TypeAlias = Tensor | NDArray[Any] | Image.Image | str | os.PathLike[str]
    """One picture."""
    Images: TypeAlias = Given | Sequence[Given]
    """One picture, or several."""

SLACK = 0.25  # values of a picture may overshoot [0, 1] by this much: resampling does
EXPECTED = "Expected pictures of three channels, first or last, bytes or floating-point numbers in [0, 1]"


def as_pictures(images: Images) -> list[Tensor]:
    """Each picture as float32 (3, height, width), on the device where it is; no copy where it is one already.

    Raises
    ------
    HandscopeError
        There are none, or one is of another kind, shape or range: it is named by its number, from 0, or by its path.
    """
    single = isinstance(images, (str, os.PathLike, Image.Image)) or getattr(images, "ndim", 4) == 3
    several: Any = [images] if single else images
    pictures = [_picture(one, i) for i, one in enumerate(several)]
    if not pictures:
        raise HandscopeError("There are no pictures to look at.")
    return pictures


def _picture(image: Any, number: int) -> Tensor:
    if isinstance(image, (str, os.PathLike)):
        read = read_picture(image)
        if isinstance(read, Skipped):
            raise HandscopeError(f"{shown(read.path)} cannot be looked at: {read.reason}.")
        return read.tensor()
    if isinstance(image, Image.Image):
        try:
            image = np.array(upright(image))
        except HandscopeError as error:
            raise HandscopeError(f"Picture number {number} cannot be looked at: {error}.") from None
    last = isinstance(image, np.ndarray)
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(image)) if image.dtype.kind in "uf" else image
    if not isinstance(image, Tensor):
        found = f"a {type(image).__name__}" if not isinstance(image, np.ndarray) else f"an array of {image.dtype}"
        raise HandscopeError(f"{EXPECTED}, PIL pictures or paths; number {number} is {found}.")
    shape, bytes_ = tuple(image.shape), image.dtype == torch.uint8
    places = [place for place in ((2, 0) if last else (0, 2)) if len(shape) == 3 and shape[place] == 3]
    if not places or 0 in shape or not (bytes_ or image.is_floating_point()):
        kind = str(image.dtype).removeprefix("torch.")
        raise HandscopeError(f"{EXPECTED}; number {number} is {kind} {shape}.")
    image = image if places[0] == 0 else image.permute(2, 0, 1)
    if bytes_:
        return image.float() / 255
    low, high = (float(end) for end in image.aminmax())
    if not (low >= -SLACK and high <= 1 + SLACK):  # not a number fails as well
        raise HandscopeError(
            f"Expected pictures with values in [0, 1]; those of number {number} go from {low:g} to {high:g}. "
            "Bring [-1, 1] to [0, 1], divide 0 to 255 by 255, or give bytes as uint8."
        )
    return image.float()


@contextmanager
def single_precision() -> Iterator[None]:
    """New floating-point tensors are float32 inside, whatever a program has set for itself; as a decorator, too.

    The setting is the whole process's, as torch has it: another thread sees it for as long.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
