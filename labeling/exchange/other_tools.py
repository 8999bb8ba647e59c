"""Labels as other tools write them, read as `Source`s: tables, masks, COCO, FiftyOne, Label Studio, datasets."""

import csv
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import HandscopeError
from ...files import refuse_unusable
from ...run.folder import Run
from .json_labels import read_json
from .sources import PICTURES, Mask, Region, Size, Source, sources
from .tables import of_rows, read_parquet, rows, rows_of_dataset

DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, csv.Error)


def read_other(run: Run, labels: Any) -> tuple[list[Source], object]:
    """The pictures that labels speak of, and what to call the labels.

    Parameters
    ----------
    labels : a ``datasets.Dataset`` with an image and a label; or the path of

        - a ``.csv``, ``.jsonl`` or ``.parquet``: a row a picture, with its name (`SAMPLE`) or prompt and seed, and a
          label (`SAID`), a mask or a box; or a row a token with row, col and label
        - a ``.npz``: an array a picture, by its name, of tokens or of pixels: 0 outside, else the instance's number
        - a ``.json``: COCO, FiftyOne's ``labels.json`` or ``samples.json``, or what Label Studio exports
        - a folder of masks by the pictures' names, of a folder a verdict (``good/``, ``bad/``), or one with such a file

    Raises
    ------
    HandscopeError
        There is nothing there, a column is missing, or the file is damaged.
    """
    if not isinstance(labels, str | os.PathLike):
        return list(rows_of_dataset(labels)), type(labels).__name__
    path = Path(labels)
    if not path.exists():
        raise HandscopeError(f"There are no labels at {path}: check the name.")
    try:
        found = list(_read(run, path))
    except HandscopeError:
        raise
    except DAMAGED as error:
        refuse_unusable(error, path)
        raise HandscopeError(
            f"{path} could not be read as labels ({type(error).__name__}: {error}): see the forms in docs/labeling.md."
        ) from error
    if not found:
        raise HandscopeError(f"There is no label in {path}: check its name.")
    return found, path


def _read(run: Run, path: Path) -> Iterable[Source]:
    if path.is_dir():
        return _read_folder(run, path)
    ending = path.suffix.lower()
    if ending in (".csv", ".jsonl"):
        return of_rows(run, path, rows(path))
    if ending == ".parquet":
        return read_parquet(run, path)
    if ending == ".npz":
        return _read_arrays(path)
    if ending == ".json":
        return read_json(path)
    raise HandscopeError(
        f"Expected labels in a .csv, .jsonl, .parquet, .json or .npz, or in a folder, found {path}: export them so."
    )


def _read_folder(run: Run, folder: Path) -> Iterable[Source]:
    for name in ("labels.json", "samples.json"):  # FiftyOne's
        if (folder / name).is_file():
            return read_json(folder / name)
    tables = [path for path in folder.iterdir() if path.suffix in (".csv", ".jsonl", ".json", ".parquet")]
    if len(tables) == 1:
        return _read(run, tables[0])
    found, _ = sources(folder)
    if len({one.path.parent for one in found}) > 1 or any(one.path.parent != folder for one in found):
        return found  # a folder a verdict
    return [_masked(one.path) for one in found if one.path.suffix.lower() in PICTURES]


def _masked(path: Path) -> Source:
    """A picture of a mask, named as the picture that it is of."""

    def masks(size: Size) -> list[Mask]:
        with Image.open(path) as image:
            indexed = image.mode == "P"
            values = np.asarray(image if indexed else image.convert("L"))
        return _instances(values if indexed else values > 127, size)

    return Source(path, path.name, regions=(Region(masks),))


def _read_arrays(path: Path) -> list[Source]:
    """An array a picture."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    flat = [name for name, array in arrays.items() if array.ndim != 2]
    if flat:
        raise HandscopeError(
            f"Expected arrays of shape (rows, columns) in {path}, each named as its sample, found {flat[0]!r} of shape "
            f"{arrays[flat[0]].shape}: save one for each sample."
        )
    return [Source(path, name, regions=(Region(partial(_instances, array)),)) for name, array in arrays.items()]


def _instances(values: np.ndarray, size: Size) -> list[Mask]:
    """The mask of each number but 0, at the size of the picture; `values` are of its pixels or of its tokens."""
    if values.shape != size:
        if size[0] % values.shape[0] or size[1] % values.shape[1]:
            raise HandscopeError(
                f"its mask is of {values.shape[0]} by {values.shape[1]}, and the picture of {size[0]} by {size[1]} "
                "pixels: expected a number a pixel, or a token"
            )
        values = np.kron(values, np.ones((size[0] // values.shape[0], size[1] // values.shape[1]), values.dtype))
    return [values == number for number in np.unique(values) if number]
