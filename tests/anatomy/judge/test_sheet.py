"""Contact sheets: the worst hands first, framed in the colour of their verdict, every picture on one of them."""

from pathlib import Path

import numpy as np
import pytest
from handscope.anatomy.judge.calibration import Calibration
from handscope.anatomy.judge.scoring import Scores, judge
from handscope.anatomy.judge.sheet import COLOURS, COLUMNS, GAP, ROWS, TEXT, TILE, draw_sheets
from made_hands import examined
from PIL import Image, ImageColor

WEIGHTS = Calibration(("arcs_most",), (0.0,), (1.0,), (2.0,), 0.0, 0.5)


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Scores, list[Path]]:
    """28 pictures, each of its own grey; two without a hand; the later, the less plausible."""
    paths = []
    for i in range(28):
        paths.append(tmp_path / f"picture_{i:02d}.png")
        Image.new("RGB", (200, 200), (8 * i,) * 3).save(paths[-1])
    found = [i for i in range(28) if i not in (3, 20)]
    return judge(examined(found, 28, {"arcs_most": [(i - 13.5) / 10 for i in found]}), "calibrated", WEIGHTS), paths


def corner(place: int) -> tuple[int, int]:
    return GAP + place % COLUMNS * (TILE + GAP), GAP + place // COLUMNS * (TILE + TEXT + GAP)


def test_order_frames_and_pictures(scored: tuple[Scores, list[Path]], tmp_path: Path) -> None:
    scores, paths = scored
    written = draw_sheets(scores, paths, tmp_path / "sheets")
    assert [path.name for path in written] == ["sheet_001.png", "sheet_002.png"]
    sheets = [np.asarray(Image.open(path).convert("RGB")) for path in written]
    bad = [i for i in range(27, 13, -1) if i != 20]
    good = [i for i in range(13, -1, -1) if i != 3]
    order = [*((i, "implausible") for i in bad), (3, "undetected"), (20, "undetected")]
    order += [(i, "plausible") for i in good]
    for place, (i, outcome) in enumerate(order):
        sheet, (x, y) = sheets[place // (COLUMNS * ROWS)], corner(place % (COLUMNS * ROWS))
        assert tuple(sheet[y - 1, x + TILE // 2]) == ImageColor.getrgb(COLOURS[outcome]), (place, i)
        # Below the hand, inside the picture, nothing is drawn over it.
        inside = sheet[y + TILE // 2 + 90, x + TILE // 2 + 60] if outcome != "undetected" else sheet[y + 60, x + 60]
        assert tuple(inside) == (8 * i,) * 3, (place, i)


def test_skeleton_lies_on_the_landmarks(scored: tuple[Scores, list[Path]], tmp_path: Path) -> None:
    scores, paths = scored
    sheet = np.asarray(Image.open(draw_sheets(scores, paths, tmp_path / "sheets")[0]).convert("RGB")).astype(int)
    x, y = corner(0)
    tile = sheet[y : y + TILE, x : x + TILE]
    side = 160 * 1.5
    for point in scores.examined.hands.points[0, 1:, :2].numpy():
        column, row = ((point + 0.5 - (100 - side / 2)) / side * TILE).astype(int)
        around = tile[row - 2 : row + 3, column - 2 : column + 3]
        assert (around.max(-1) - around.min(-1)).max() > 60, point  # colour, where the picture is grey
    assert np.ptp(tile[5:30, 20:220].reshape(-1, 3), axis=1).max() == 0  # and none where there are no landmarks


def test_sheets_of_an_earlier_larger_set_go(scored: tuple[Scores, list[Path]], tmp_path: Path) -> None:
    scores, paths = scored
    draw_sheets(scores, paths, tmp_path / "sheets")
    few = judge(examined([0], 2, {"arcs_most": [1.0]}), "calibrated", WEIGHTS)
    assert [path.name for path in draw_sheets(few, paths[:2], tmp_path / "sheets")] == ["sheet_001.png"]
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["sheet_001.png"]


def test_a_hand_at_the_border_and_a_picture_that_is_gone(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), (90, 90, 90)).save(tmp_path / "a.png")
    scores = judge(examined([0, 1], 2, {"arcs_most": [1.0, 1.0]}), "calibrated", WEIGHTS)
    scores.examined.hands.region[0] = scores.examined.hands.region.new_tensor([-300.0, -300.0, 50.0, 0.0])
    scores.examined.hands.points[0] -= 400
    (path,) = draw_sheets(scores, [tmp_path / "a.png", tmp_path / "gone.png"], tmp_path / "sheets")
    assert Image.open(path).size == (COLUMNS * (TILE + GAP) + GAP, TILE + TEXT + 2 * GAP)
