"""Pictures of any size made into samples of one: cropped, padded or stretched, and their masks with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import HandscopeError

WAYS = ("crop", "pad", "stretch")
SURPLUS = 0.01
"""Share of a side up to which pictures count as of one aspect, so that the middle is taken without being asked."""


@dataclass(frozen=True)
class Fit:
    """How a picture of `source` became one of `size`: reduced to `inner`, which lies with its corner at `offset`.

    Attributes
    ----------
    way : str
        ``crop``: what is too much on two sides is cut away evenly; ``pad``: what lacks is filled up evenly, in grey;
        ``stretch``: both sides are reduced, each by its own factor.
    source, size, inner : tuples of int
        Height and width in pixels.
    offset : tuple of int
        From the top and from the left; negative where something is cut away.
    """

    way: str
    source: tuple[int, int]
    size: tuple[int, int]
    inner: tuple[int, int]
    offset: tuple[int, int]

    def picture(self, picture: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture of `source` in its new form, uint8 of shape (height, width, 3)."""
        return np.asarray(self._placed(picture, Image.Resampling.LANCZOS, (128, 128, 128)))

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """A mask of `source` in its new form: the share of each pixel that is in it, of shape (height, width)."""
        whole = Image.fromarray(mask.astype(np.uint8) * 255)
        return np.asarray(self._placed(whole, Image.Resampling.BOX, 0), np.float32) / np.float32(255)

    def inside(self) -> NDArray[np.bool_]:
        """Which pixels show the picture: all that were not filled up, of shape (height, width)."""
        shown = np.zeros(self.size, bool)
        (top, left), (high, wide) = self.offset, self.inner
        shown[max(top, 0) : top + high, max(left, 0) : left + wide] = True
        return shown

    def facts(self) -> dict[str, Any]:
        """What `samples/metadata.jsonl` keeps of it."""
        return {
            "fit": self.way, "source_size": list(self.source), "inner": list(self.inner), "offset": list(self.offset)
        }  # fmt: skip

    def _placed(self, picture: Image.Image, how: Image.Resampling, fill: Any) -> Image.Image:
        reduced = picture.resize(self.inner[::-1], how)
        if self.inner == self.size:
            return reduced
        whole = Image.new(picture.mode, self.size[::-1], fill)
        whole.paste(reduced, self.offset[::-1])
        return whole


def fitted(source: tuple[int, int], size: tuple[int, int], way: str | None) -> Fit:
    """How a picture of `source` becomes one of `size`, both as height and width in pixels.

    >>> fitted((600, 400), (64, 64), "crop")
    Fit(way='crop', source=(600, 400), size=(64, 64), inner=(96, 64), offset=(-16, 0))

    Raises
    ------
    HandscopeError
        The picture is too small, or of another aspect and `way` is None.
    """
    scales = size[0] / source[0], size[1] / source[1]
    scale = {"pad": min(scales), "stretch": 1.0}.get(str(way), max(scales))
    inner = size if way == "stretch" else (round(scale * source[0]), round(scale * source[1]))
    if max(scales if way == "stretch" else (scale,)) > 1:
        raise HandscopeError(
            f"it has {_by(source)} pixels, too few for the {_by(size)} that are asked for: ask for a smaller --height "
            "and --width, or leave it out with --skip-bad"
        )
    surplus = max(inner[0] / size[0], inner[1] / size[1]) - 1
    if way is None and surplus > SURPLUS:
        raise HandscopeError(
            f"it has {_by(source)} pixels, another aspect than the {_by(size)} that are asked for: say --fit crop, pad "
            "or stretch"
        )
    offset = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    return Fit(way or "crop", source, size, inner, offset)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} by {size[1]}"
