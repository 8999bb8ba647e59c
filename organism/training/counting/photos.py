"""Photographs of normal hands for the finger-count head: some to learn from, others to measure false alarms on.

For training and measuring only; no photograph is shipped. The list is a CSV with the columns path, hands ("0" for a
photograph without one) and source.
"""

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ....anatomy.measure.count import SIDE, count_region
from ....anatomy.read.detect import detect
from ....anatomy.read.regions import crop
from ....files import atomic
from ....progress import Progress, quiet

# Packages whose photographs are learnt from; those of every other package are for the test.
LEARNT = ("soft-ui-design-system", "material-kit")
ROOM = 1.25  # a stored crop is wider than the head's by this, for the jitter
STORED = 144


def cut(photos: Path, folder: Path, progress: Progress = quiet) -> None:
    """Crops of every hand that plain detection finds, as ``photos-learnt`` and ``photos-test`` in `folder`.

    ``photos-none`` are the middles of photographs without a hand.
    """
    with photos.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    crops_of: dict[str, list[Tensor]] = {"learnt": [], "test": [], "none": []}
    for number, row in enumerate(rows):
        with Image.open(row["path"]) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        picture.thumbnail((1280, 1280))
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
        if row["hands"] == "0":
            height, width = pixels.shape[1:]
            part, region = "none", torch.tensor([[width / 2, height / 2, min(width, height), 0.0]])
        else:
            part = "learnt" if row["source"].startswith(LEARNT) else "test"
            region = count_region(detect([pixels], search="plain", max_hands=8).region)
        which = torch.zeros(len(region), dtype=torch.long)
        crops_of[part].append(crop([pixels], region * torch.tensor([1, 1, ROOM, 1]), STORED, which))
        progress("photographs", number + 1, len(rows))
    for part, crops in crops_of.items():
        with atomic(folder / f"photos-{part}.safetensors") as temporary:
            save_file({"crops": torch.cat(crops)}, temporary)


def learnt(folder: Path) -> Tensor:
    """The stored crops (k, 3, STORED, STORED) to learn from; none where no photographs were cut."""
    path = folder / "photos-learnt.safetensors"
    return load_file(path)["crops"] if path.exists() else torch.zeros(0, 3, STORED, STORED)


def jittered(crops: Tensor, g: torch.Generator) -> Tensor:
    """Pictures (n, 3, SIDE, SIDE) of stored crops: turned, mirrored, scaled, shifted."""
    n = len(crops)
    u = torch.rand(n, 4, generator=g)
    turn = torch.deg2rad(12 * torch.randn(n, generator=g))
    scale = (0.8 + 0.4 * u[:, 0]) / ROOM
    side = torch.where(u[:, 1] < 0.5, -1.0, 1.0)
    shift = 0.16 * (u[:, 2:] - 0.5)
    c, s = turn.cos() * scale, turn.sin() * scale
    theta = torch.stack([torch.stack([c * side, -s, shift[:, 0]], -1), torch.stack([s * side, c, shift[:, 1]], -1)], 1)
    grid = affine_grid(theta, [n, 3, SIDE, SIDE], align_corners=False)
    return grid_sample(crops, grid, mode="bilinear", align_corners=False)


def narrowed(crops: Tensor) -> Tensor:
    """The pictures (k, 3, SIDE, SIDE) of stored crops that `count_region` would cut."""
    theta = torch.tensor([[1 / ROOM, 0.0, 0.0], [0.0, 1 / ROOM, 0.0]]).expand(len(crops), 2, 3)
    return grid_sample(crops, affine_grid(theta, [len(crops), 3, SIDE, SIDE], align_corners=False), align_corners=False)
