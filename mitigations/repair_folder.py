"""The pictures of a folder, each painted anew where something is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from ..errors import HandscopeError
from ..files import atomic, write_csv
from ..labeling.exchange.pictures import opened
from ..models.model import Model
from ..progress import Progress, quiet
from .pictures import Captioned
from .repair import Find, Region, own_noise, refusal, repair


def repair_folder(
    model: Model,
    out: Path,
    pictures: Sequence[Captioned],
    find: Find,
    network: Any | None = None,
    depths: Path | None = None,
    seed: int = 0,
    progress: Progress = quiet,
    **settings: Any,
) -> pd.DataFrame:
    """Paint anew what is found in each picture; those that are there already are kept.

    Parameters
    ----------
    out : Path
        Gets the pictures that were painted anew, under their names as PNG, and ``repair.csv``.
    depths : Path, optional
        A folder of depth images, nearer is brighter, by the pictures' names, in place of the depth that is found.
    settings : strength, control, steps and guidance, as in `repair`

    Returns
    -------
    DataFrame of columns picture, caption, share (of pixels painted anew) and refused, a sentence or empty; also
    ``repair.csv``
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, one in enumerate(pictures):
        progress("repair", number, len(pictures))
        picture = np.asarray(opened(one.path))
        region = Region(*find(picture, one.caption))
        if depths is not None:
            region = Region(region.mask, _given(depths, one.path, picture.shape[:2]))
        said = _refused(model, region)
        target = out / f"{one.path.stem}.png"
        if not said and not target.exists():
            own = [own_noise(seed, one.path.name)]
            (made,) = repair(model, [picture], [one.caption], [region], own, network, **settings)
            with atomic(target) as temporary:
                Image.fromarray(made).save(temporary)
        share = float(region.mask.mean())
        rows.append({"picture": one.path.name, "caption": one.caption, "share": share, "refused": said})
    progress("repair", len(pictures), len(pictures))
    table = pd.DataFrame(rows)
    write_csv(out / "repair.csv", table)
    return table


def _refused(model: Model, region: Region) -> str:
    """Why a region cannot be painted anew, its size among the reasons."""
    try:
        return refusal(model, region)
    except HandscopeError as error:
        return str(error)


def _given(folder: Path, picture: Path, size: tuple[int, int]) -> NDArray[np.float32]:
    """The depth image of a picture, in [0, 1]."""
    path = next((folder / f"{picture.stem}{end}" for end in (".png", ".jpg", ".webp")
                 if (folder / f"{picture.stem}{end}").is_file()), None)  # fmt: skip
    if path is None:
        raise HandscopeError(f"Expected a depth image {picture.stem}.png in {folder}, and there is none.")
    depth = np.asarray(opened(path).convert("L"), np.float32) / np.float32(255)
    if depth.shape != size:
        raise HandscopeError(
            f"The depth image {path} has {depth.shape[0]} by {depth.shape[1]} pixels, its picture {size[0]} by "
            f"{size[1]}: they have to be of one size."
        )
    return depth
