"""Contact sheets: every hand with its skeleton, its verdict and the reasons, the worst first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ...files import atomic
from ...progress import Progress, quiet
from ..read.pictures import Picture, read_picture, shown
from ..read.skeleton import CHAINS
from .scoring import NOT_FOUND, Scores

TILE, TEXT, GAP = 240, 74, 10  # pixels: a picture's side, the height of the words below it, and between tiles
COLUMNS, ROWS = 5, 5
MARGIN = 1.5  # of the region that was read, so that what lies beside a hand is seen
COLOURS = {"implausible": "#D55E00", "cannot tell": "#B08D00", "plausible": "#0072B2", "undetected": "#7A7A7A"}
DIGIT_COLOURS = ("#F0E442", "#56B4E9", "#009E73", "#CC79A7", "#E69F00")


def draw_sheets(scores: Scores, paths: Sequence[Path], folder: Path, progress: Progress = quiet) -> list[Path]:
    """Write ``sheet_001.png`` and so on: implausible hands first, the least plausible at their head, then pictures in
    which no hand was found, then hands of which nothing can be told, then plausible ones. Sheets that a larger earlier
    set left behind are removed.
    """
    tiles = _order(scores)
    number = math.ceil(len(tiles) / (COLUMNS * ROWS))
    written = []
    for sheet in range(number):
        part = tiles[sheet * COLUMNS * ROWS : (sheet + 1) * COLUMNS * ROWS]
        path = folder / f"sheet_{sheet + 1:03d}.png"
        with atomic(path) as temporary:
            sheet_of(scores, paths, part).save(temporary)
        written.append(path)
        progress("sheets", sheet + 1, number)
    for old in set(folder.glob("sheet_*.png")) - set(written):
        old.unlink(missing_ok=True)  # another process may tidy at the same time
    return written


def _order(scores: Scores) -> list[tuple[int, int | None]]:
    """Tiles as (picture, hand or None where none was found)."""
    image = scores.examined.hands.image.tolist()
    by_score = sorted(range(len(image)), key=lambda k: (scores.verdicts[k].score, image[k]))
    bad, unknown, good = (
        [(image[k], k) for k in by_score if scores.verdicts[k].outcome == outcome]
        for outcome in ("implausible", "cannot tell", "plausible")
    )
    return [*bad, *((i, None) for i in scores.undetected), *unknown, *good]


def sheet_of(scores: Scores, paths: Sequence[Path], tiles: Sequence[tuple[int, int | None]]) -> Image.Image:
    """One sheet, of at most ``COLUMNS * ROWS`` tiles."""
    rows = math.ceil(len(tiles) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * (TILE + GAP) + GAP, rows * (TILE + TEXT + GAP) + GAP), "white")
    for place, (image, hand) in enumerate(tiles):
        at = (GAP + place % COLUMNS * (TILE + GAP), GAP + place // COLUMNS * (TILE + TEXT + GAP))
        picture = read_picture(paths[image])
        shown = _shown(picture, scores, hand) if isinstance(picture, Picture) else Image.new("RGB", (TILE, TILE))
        sheet.paste(shown, at)
        _write(sheet, at, scores, paths[image], hand)
    return sheet


def _shown(picture: Picture, scores: Scores, hand: int | None) -> Image.Image:
    """The hand with its skeleton, or the whole picture."""
    whole = Image.fromarray(picture.pixels)
    height, width = picture.pixels.shape[:2]
    if hand is None:
        x, y, side = width / 2, height / 2, float(max(width, height))
    else:
        x, y, side = scores.examined.hands.region[hand, :3].tolist()
        side = max(side * MARGIN, 8.0)
    box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    tile = Image.new("RGB", (TILE, TILE), "#DDDDDD")
    seen = (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))
    if seen[2] - seen[0] >= 1 and seen[3] - seen[1] >= 1:
        size = [max(1, round((seen[i + 2] - seen[i]) / side * TILE)) for i in (0, 1)]
        part = whole.resize((size[0], size[1]), Image.Resampling.BICUBIC, box=seen)
        tile.paste(part, (round((seen[0] - box[0]) / side * TILE), round((seen[1] - box[1]) / side * TILE)))
    if hand is not None:
        points = scores.examined.hands.points[hand, :, :2]
        _skeleton(tile, ((points + 0.5 - torch.tensor([box[0], box[1]])) / side * TILE).numpy())
    return tile


def _skeleton(tile: Image.Image, points: np.ndarray) -> None:
    """Bones and joints, drawn twice as large and made smaller: Pillow's lines are jagged."""
    layer = Image.new("RGBA", (2 * TILE, 2 * TILE))
    pen = ImageDraw.Draw(layer)
    for chain, colour in zip(CHAINS.tolist(), DIGIT_COLOURS, strict=True):
        line = [tuple(2 * points[i]) for i in [0, *chain]]
        pen.line(line, fill="black", width=7)
        pen.line(line, fill=colour, width=4)
        for x, y in line[1:]:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour, outline="black")
    layer = layer.resize((TILE, TILE), Image.Resampling.LANCZOS)
    tile.paste(layer, mask=layer)


def _write(sheet: Image.Image, at: tuple[int, int], scores: Scores, path: Path, hand: int | None) -> None:
    """A frame in the verdict's colour, and below it the verdict, the picture's name and the reasons."""
    verdict = None if hand is None else scores.verdicts[hand]
    outcome = "undetected" if verdict is None else verdict.outcome
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((at[0] - 2, at[1] - 2, at[0] + TILE + 1, at[1] + TILE + 1), outline=COLOURS[outcome], width=3)
    title = outcome if verdict is None or verdict.score is None else f"{outcome} {verdict.score:.2f}"
    pen.text((at[0], at[1] + TILE + 4), title, fill=COLOURS[outcome], font=_font(13, bold=True))
    name = shown(path.name)
    name = name if len(name) <= 15 else f"{name[:7]}…{name[-7:]}"
    pen.text((at[0] + TILE, at[1] + TILE + 5), name, fill="#555555", font=_font(11), anchor="ra")
    reasons = [NOT_FOUND] if verdict is None else verdict.reasons
    lines = [line for reason in reasons for line in wrap(reason, 44)]
    lines = lines if len(lines) <= 4 else [*lines[:3], f"and {len(reasons)} reasons in all, in the table"]
    for k, line in enumerate(lines):
        pen.text((at[0], at[1] + TILE + 20 + 13 * k), line, fill="#222222", font=_font(11))


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)
