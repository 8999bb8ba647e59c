"""A folder of pictures with their captions, as trainings read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import HandscopeError
from ..labeling.exchange.pictures import opened
from ..labeling.exchange.sources import PROMPTS, Source, sources
from ..models.model import Model
from ..progress import Progress, quiet


@dataclass(frozen=True)
class Captioned:
    """A picture and what it shows."""

    path: Path
    caption: str


def captioned(folder: str | os.PathLike[str], column: str | None = None) -> list[Captioned]:
    """The pictures of a folder with their captions.

    Parameters
    ----------
    folder : path
        An imagefolder, whose ``metadata.jsonl`` or ``metadata.csv`` has the captions in `column` (by default prompt,
        text or caption), such as the ``samples/`` of a run; or pictures with NAME.txt beside NAME.png.

    Raises
    ------
    HandscopeError
        There are no pictures, one is not there, or one has no caption.
    """
    found, told = sources(Path(folder))
    pictures = [Captioned(one.path, _caption(one, column)) for one in found]
    if missing := [one.path for one in pictures if not one.path.is_file()]:
        raise HandscopeError(f"{told} names {len(missing)} pictures that are not there, {missing[0]} among them.")
    if silent := [one.path for one in pictures if not one.caption]:
        where = column or f"{', '.join(PROMPTS[:-1])} or {PROMPTS[-1]}"
        raise HandscopeError(
            f"Expected a caption for every picture, and {len(silent)} of {len(pictures)} in {folder} have none, "
            f"{silent[0].name} among them: put it into the column {where} of metadata.csv or metadata.jsonl, or into "
            f"{silent[0].stem}.txt beside the picture."
        )
    return pictures


def _caption(source: Source, column: str | None) -> str:
    said = source.prompt if column is None else source.columns.get(column)
    beside = source.path.with_suffix(".txt")
    if not said and beside.is_file():
        said = beside.read_text(encoding="utf-8")
    return str(said or "").strip()


def pixels(path: Path, height: int, width: int) -> Tensor:
    """A picture reduced to a size, its middle where its aspect is another: (3, height, width), float32 in [0, 1].

    Raises
    ------
    HandscopeError
        It cannot be read, or is smaller than that.
    """
    try:
        picture = opened(path)
    except HandscopeError as error:
        raise HandscopeError(f"{path} cannot be trained on: {error}.") from error
    if picture.width < width or picture.height < height:
        raise HandscopeError(
            f"{path} has {picture.height} by {picture.width} pixels, fewer than the {height} by {width} that are "
            "trained on: leave it out, or ask for a smaller --height and --width."
        )
    fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1) / 255


@torch.no_grad()
def latents_of(
    model: Model, pictures: Sequence[Captioned], height: int, width: int, progress: Progress = quiet
) -> Tensor:
    """Packed latents of all pictures, float32 on the CPU, of shape (pictures, tokens, channels).

    Each picture is encoded once and alone; 1 MB for one of 1024 by 1024 pixels.
    """
    made = []
    for number, one in enumerate(pictures):
        progress("encode", number, len(pictures))
        made.append(model.encode_image(pixels(one.path, height, width)[None].to(model.device)).cpu())
    progress("encode", len(pictures), len(pictures))
    return torch.cat(made)
