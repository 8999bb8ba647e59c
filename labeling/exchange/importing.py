"""Labels from files: read, held against the run's images and grids, and appended with where they came from."""

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from PIL import Image

from ...errors import HandscopeError
from ...files import refuse_unusable
from ...run.folder import Run
from ..database.annotation import Annotation
from ..database.labels import Labels
from ..grid import grid
from .elsewhere import AUTHOR, match_labels
from .export import LIST, ending
from .pixels import CATEGORIES, gather, grids
from .record import FACTS, annotation, unflat
from .rle import decode

DAMAGED = (
    *(OSError, EOFError, MemoryError, BadZipFile, zlib.error),
    *(SyntaxError, LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError),
)
"""What readers of damaged files raise."""
OLD_GRID, OLD_NUMBER = "hands", "hand"
"""What handscope 0.3 called the grid of instance numbers, and one number of it."""
Read = tuple[dict[str, Any], np.ndarray, np.ndarray]
"""Facts, labels and instances of one annotation."""


@dataclass(frozen=True)
class Imported:
    """What became of a file's annotations.

    Attributes
    ----------
    added : int
        Appended to the run's labels.
    known : int
        Left, since the author's newest state of the sample is the same.
    older : int
        Left, since the author has painted on the sample in this run since, done or not.
    """

    added: int
    known: int
    older: int


def import_labels(
    run: Run,
    path: Any,
    good: Sequence[str] = (),
    bad: Sequence[str] = (),
    author: str = AUTHOR,
    skip_unknown: bool = False,
) -> Imported:
    """Append labels to a run's, all of them or none: those that `export_labels` wrote, or that other tools did.

    What handscope wrote keeps its authors and the times at which it was judged; what others did is read by
    `match_labels`, and takes `good`, `bad`, `author` and `skip_unknown`. Each becomes its author's newest, with
    ``, imported from FILE`` behind its source. It then counts as any newest label does: over what others said before,
    and under a review.

    Parameters
    ----------
    path : path of a file or a folder, or a ``datasets.Dataset``

    Raises
    ------
    HandscopeError
        The labels are missing, damaged or of no form that is known; or one of them is of a sample that the run lacks,
        of another image, or on another grid.
    """
    if isinstance(path, str | os.PathLike) and ours(Path(path)):
        found = list(_checked(run, Path(path)))
    else:
        found = [one.annotation for one in match_labels(run, path, good, bad, author, skip_unknown)]
    labels = Labels(run.labels_path)
    new = []
    known = older = 0
    for one in found:
        newest = labels.newest(one.sample, one.author, one.review)
        if newest is not None and newest.done and same_judgement(newest, one):
            known += 1
        elif newest is not None and one.made and newest.made and newest.made > one.made:
            older += 1
        else:
            new.append(one)
    labels.add(new)
    return Imported(len(new), known, older)


def ours(path: Path) -> bool:
    """Whether labels are in a form that `export_labels` writes, by what is in them and not by their name alone."""
    if not path.is_file():
        return (path / LIST).is_file()
    try:
        if ending(path) == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return "image_sha256" in file.files
        if ending(path) == ".json":
            whole = json.loads(path.read_text(encoding="utf-8"))
            images = whole.get("images") if isinstance(whole, dict) else None
            return isinstance(images, list) and any("judgements" in image for image in images)
        if ending(path) in (".csv", ".csv.gz"):
            return {"image_sha256", "author"} <= set(pd.read_csv(path, nrows=0))
        if ending(path) == ".parquet":
            from pyarrow import parquet

            return {"image_sha256", "author"} <= set(parquet.read_schema(path).names)
    except (*DAMAGED, ImportError):
        return True  # which says what is wrong with it
    return False


def _checked(run: Run, path: Path) -> Iterator[Annotation]:
    """The annotations of a file, each held against the run."""
    rows = run.metadata()
    try:
        for said, labels, instances in READERS[ending(path)](path):
            sample = str(said["sample"])
            if sample not in rows:
                raise HandscopeError(f"{path} has labels of {sample}, which is no sample of {run.path}: another run's?")
            expected, shape = rows[sample]["image_sha256"], (int(said["rows"]), int(said["columns"]))
            if said["image_sha256"] != expected:
                raise HandscopeError(
                    f"The labels of {sample} in {path} were made on another image (hash "
                    f"{str(said['image_sha256'])[:12]}…, the run's is {expected[:12]}…): they cannot be used here."
                )
            if shape != grid(run, sample) or labels.shape != shape:
                raise HandscopeError(
                    f"The labels of {sample} in {path} are on a grid of {_by(labels.shape)} tokens, and the sample has "
                    f"{_by(grid(run, sample))}: they cannot be used here."
                )
            yield annotation(said, labels, instances, path.name)
    except HandscopeError:
        raise
    except DAMAGED as error:
        refuse_unusable(error, path)
        raise HandscopeError(
            f"{path} is damaged, or not labels as handscope exports them ({type(error).__name__}: {error})."
        ) from error


def read_npz(path: Path) -> Iterator[Read]:
    """What `write_npz` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in (*FACTS, "labels")}
        arrays["instances"] = file["instances" if "instances" in file else OLD_GRID]
    for i in range(len(arrays["sample"])):
        said = unflat({name: arrays[name][i].item() for name in FACTS})
        own = (i, slice(said["rows"]), slice(said["columns"]))
        yield said, arrays["labels"][own], arrays["instances"][own]


def read_pngs(path: Path) -> Iterator[Read]:
    """What `write_pngs` wrote."""
    for line in filter(None, (path / LIST).read_text(encoding="utf-8").split("\n")):
        said = json.loads(line)
        shape = int(said["rows"]), int(said["columns"])
        of_token, instances = (gather(_indexed(path, said[kind]), *shape) for kind in ("class", "object"))
        if of_token.max(initial=0) > max(CATEGORIES):
            raise HandscopeError(f"{path / said['class']} has colour {of_token.max()}, and classes go from 0 to 4.")
        yield said, *grids(of_token, instances)


def read_coco(path: Path) -> Iterator[Read]:
    """What `write_coco` wrote."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    objects: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for one in whole["annotations"]:
        objects.setdefault((one["image_id"], one["judgement"]), []).append(one)
    for image in whole["images"]:
        size, shape = (image["height"], image["width"]), (int(image["rows"]), int(image["columns"]))
        for number, judgement in enumerate(image["judgements"]):
            of_pixel, instances = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
            for one in objects.get((image["id"], number), []):
                mask = decode(one["segmentation"])
                if mask.shape != size or one["category_id"] not in CATEGORIES:
                    raise HandscopeError(
                        f"Object {one['id']} in {path} has a mask of {_by(mask.shape)} pixels and category "
                        f"{one['category_id']}; expected {_by(size)}, as its image, and 1 to 4."
                    )
                of_pixel[mask] = one["category_id"]
                instances[mask] = one["instance" if "instance" in one else OLD_NUMBER]
            yield {**image, **judgement}, *grids(gather(of_pixel, *shape), gather(instances, *shape))


def read_tokens(path: Path) -> Iterator[Read]:
    """What `write_tokens` wrote."""
    if ending(path) == ".parquet":
        try:
            table = pd.read_parquet(path)
        except ImportError as error:
            raise HandscopeError(f"{path} needs pyarrow: pip install 'handscope[parquet]'.") from error
    else:
        whole = ("row", "col", "label", "instance", OLD_NUMBER, "rows", "columns")
        kinds: dict[str, Any] = dict.fromkeys(FACTS, str) | dict.fromkeys(whole, int)
        table = pd.read_csv(path, dtype=kinds, keep_default_na=False)  # numbers with a point stay text: exact
        table = table.assign(**{name: table[name].replace("", "nan") for name in ("score", "seconds")})
    table = table.rename(columns={OLD_NUMBER: "instance"})
    for (sample, author, _), part in table.groupby(["sample", "author", "source"], sort=False):
        said = part[list(FACTS)].drop_duplicates()
        shape = int(said["rows"].iloc[0]), int(said["columns"].iloc[0])
        cells = [part["row"].to_numpy(), part["col"].to_numpy()]
        places = sorted(zip(*cells))
        if len(said) > 1 or places != [(i, k) for i in range(shape[0]) for k in range(shape[1])]:
            raise HandscopeError(
                f"Expected one row in {path} for each of the {_by(shape)} tokens of {sample} by {author}, all with the "
                f"same verdict and time; found {len(part)} rows of {len(said)} annotations."
            )
        both = [np.zeros(shape, np.int64) for _ in range(2)]
        for filled, name in zip(both, ("label", "instance")):
            filled[tuple(cells)] = part[name]
        yield unflat(said.iloc[0].to_dict()), _small(both[0], path), _small(both[1], path)


READERS = {
    ".npz": read_npz,
    ".json": read_coco,
    ".csv": read_tokens,
    ".csv.gz": read_tokens,
    ".parquet": read_tokens,
    "": read_pngs,
}


def _small(grid: np.ndarray, path: Path) -> np.ndarray:
    if grid.size and not 0 <= grid.min() <= grid.max() <= 255:
        raise HandscopeError(f"Expected labels 0 to 3 and instance numbers 0 to 255 in {path}, found {grid.max()}.")
    return grid.astype(np.uint8)


def _indexed(folder: Path, name: str) -> np.ndarray:
    """An indexed PNG inside a folder, as numbers."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise HandscopeError(f"{folder / LIST} names a picture outside its folder: {name}.")
    with Image.open(path) as image:
        if image.mode not in ("P", "L"):
            raise HandscopeError(f"Expected an indexed PNG at {path}, found one of mode {image.mode}.")
        return np.asarray(image)


def same_judgement(a: Annotation, b: Annotation) -> bool:
    """Whether two annotations of a sample by one author say the same."""
    grids_agree = np.array_equal(a.labels, b.labels) and np.array_equal(a.instances, b.instances)
    said = [(one.image_sha256, one.verdict, one.kinds, dict(one.faults)) for one in (a, b)]
    return grids_agree and said[0] == said[1]


def _by(shape: tuple[int, ...]) -> str:
    return " by ".join(map(str, shape))
