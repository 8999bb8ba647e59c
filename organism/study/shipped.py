"""The hand labels that ship with handscope: what was seen in a fixed set of (prompt, seed) of an organism.

A label belongs to a picture, not to a seed. The pictures that were looked at ship beside the labels, and a sample made
again on another machine inherits its label only when it is the same picture: by its hash, or at a PSNR of at least
`SAME_DB`.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ...errors import HandscopeError
from ...extract.regenerate import psnr
from ...files import sha256
from ...models.embedded import NAME

DATASETS = Path(__file__).parents[2] / "datasets"
SAME_DB = 40.0


def labels_folder(name: str) -> Path:
    """Where the labels of an organism's pictures ship, if they do."""
    return DATASETS if name == NAME else DATASETS / name


@dataclass(frozen=True)
class ShippedLabels:
    """Labels and reference pictures.

    Attributes
    ----------
    table : DataFrame indexed by sample, with prompt, seed, image_sha256, verdict, kinds (space-separated), row and
        column.
    mosaic : path of a lossless picture that holds every reference picture, `tile` pixels a side, at (row, column).
    """

    table: pd.DataFrame
    mosaic: Path
    tile: int

    @classmethod
    def of(cls, name: str) -> "ShippedLabels | None":
        """The labels of an organism's pictures, None where there are none."""
        folder = labels_folder(name)
        return cls.load(folder) if folder.is_dir() else None

    @classmethod
    def load(cls, folder: Path = DATASETS) -> "ShippedLabels":
        """Read ``hand_labels.csv`` and ``hand_labels.webp`` of a folder; HandscopeError where they do not match."""
        path = folder / "hand_labels.csv"
        try:
            table = pd.read_csv(path, keep_default_na=False).set_index("sample")
            rows, columns = int(table.row.max()) + 1, int(table.column.max()) + 1
            with Image.open(folder / "hand_labels.webp") as mosaic:
                tile = mosaic.width // columns
                if mosaic.size != (columns * tile, rows * tile):
                    raise ValueError(f"{rows} x {columns} pictures do not fit a mosaic of {mosaic.size} pixels")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise HandscopeError(
                f"The shipped labels in {folder} are damaged ({error}): install handscope again."
            ) from error
        return cls(table, folder / "hand_labels.webp", tile)

    @cached_property
    def _pixels(self) -> np.ndarray:
        with Image.open(self.mosaic) as image:
            return np.asarray(image.convert("RGB"))

    def reference(self, sample: str) -> np.ndarray:
        """The picture that was labelled, uint8 of shape (tile, tile, 3); HandscopeError where its hash is another's."""
        row, column = int(self.table.loc[sample, "row"]), int(self.table.loc[sample, "column"])
        side = self.tile
        picture = self._pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
        if sha256(picture.tobytes()) != self.table.loc[sample, "image_sha256"]:
            raise HandscopeError(
                f"The picture of {sample} in {self.mosaic} is not the one that was labelled: install handscope again."
            )
        return picture

    def likeness(self, sample: str, image: np.ndarray) -> float | None:
        """PSNR in dB of `image` against the picture that was labelled; None without a label, or where sizes differ."""
        if sample not in self.table.index:
            return None
        reference = self.reference(sample)
        return psnr(reference, image) if reference.shape == image.shape else None
