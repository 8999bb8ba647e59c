"""What is painted on the labelling page, in a real browser before a real server, is what is stored."""

import io

import numpy as np
import pytest
from labeling_browser import SIDE, Desk, Tab, box, cells, disc
from PIL import Image
from playwright.sync_api import expect
from scipy import ndimage


def test_a_brush_paints_the_cells_under_it_and_the_server_has_them(desk: Desk, tab: Tab) -> None:
    for size, row in ((1, 5), (2, 15), (3, 25), (6, 35), (9, 50)):
        tab.ask(f"app.painter.size = {size}")
        tab.drag((row, 20), (row, 20))
        assert tab.stored(2) == disc(row, 20, size)
        assert cells(desk.newest(tab.sample).instances == 1) == disc(row, 20, size)
        tab.keys("e")
        tab.drag((row, 20), (row, 20))
        assert tab.stored(2) == set()
        tab.keys("2")
    assert len(desk.history(tab.sample)) == 10, "one state a stroke, none lost"


def test_the_size_of_the_brush_follows_keys_and_the_wheel(tab: Tab) -> None:
    page, scale = tab.page, tab.ask("app.painter.view.scale")
    sizes = [tab.ask("app.painter.size")]
    page.mouse.move(*tab.place(30, 30))
    for key in "]", "]", "[":
        tab.keys(key)
        sizes.append(tab.ask("app.painter.size"))
    page.keyboard.down("Control")
    for wheel in -100, 100, 100:
        page.mouse.wheel(0, wheel)
        expect(page.locator("#size-value")).to_have_text(str(sizes[-1] - np.sign(wheel)))
        sizes.append(tab.ask("app.painter.size"))
    page.keyboard.up("Control")
    assert sizes == [3, 4, 5, 4, 5, 4, 3] and tab.ask("app.painter.view.scale") == scale
    for _ in range(5):
        tab.keys("[")
    assert tab.ask("app.painter.size") == 1, "there is no smaller one"


def test_cells_are_exact_at_every_zoom(tab: Tab) -> None:
    page = tab.page
    tab.ask("[app.painter.size = 1, app.painter.opacity = 1]")
    area = page.locator("#canvas").bounding_box()
    x, y = area["x"] + area["width"] * 0.41, area["y"] + area["height"] * 0.37
    for wheel in (0, -200, -400, -700, -900, 450):
        page.mouse.move(x, y)
        before = tab.ask("app.painter.view.scale")
        page.mouse.wheel(0, wheel)
        tab.until(f"{wheel} === 0 || app.painter.view.scale !== {before}")
        page.mouse.move(x + 3, y - 2)
        page.mouse.click(x, y)
        painted = tab.stored(2)
        assert len(painted) == 1
        page.mouse.move(2, 2)
        left, top, right, bottom = blue_square(tab.drawn(), x - area["x"], y - area["y"])
        scale = tab.ask("app.painter.view.scale")
        assert right - left == pytest.approx(scale, abs=3) and bottom - top == pytest.approx(scale, abs=3)
        for at in ((left, top), (right, top), (right, bottom), (left, bottom)):
            inward = [2.5 if near < 0 else -2.5 for near in (at[0] - left - 1, at[1] - top - 1)]
            page.mouse.click(area["x"] + at[0] + inward[0], area["y"] + at[1] + inward[1])
        assert tab.stored(2) == painted, "what is seen as the cell is the cell, to its corners"
        tab.keys("Control+z")
        x, y = x + 61.7, y + 43.3


def blue_square(png: bytes, x: float, y: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, with the outline, of the area at (x, y) that has the colour of a good hand."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    areas, _ = ndimage.label(np.abs(pixels - (0, 114, 178)).max(-1) < 40)
    rows, columns = np.nonzero(areas)
    nearest = np.hypot(rows - y, columns - x).argmin()
    assert np.hypot(rows - y, columns - x)[nearest] < 4, "the pointer is over the cell that it painted"
    rows, columns = np.nonzero(areas == areas[rows[nearest], columns[nearest]])
    assert len(rows) > 0.9 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1) - 30, "a filled square"
    outline = 1.7
    return columns.min() - outline, rows.min() - outline, columns.max() + 1 + outline, rows.max() + 1 + outline


def test_undo_and_redo_are_one_step_a_stroke_and_survive_another_picture(desk: Desk, tab: Tab) -> None:
    sample = tab.sample
    strokes = [((10, 10), (10, 30)), ((20, 10), (20, 30), (25, 40)), ((30, 10), (35, 12))]
    states = [tab.grids()[0]]
    for stroke in strokes:
        tab.drag(*stroke)
        states.append(tab.grids()[0])
    tab.keys("n")
    tab.picture(2)
    assert not tab.grids()[0].any()
    tab.keys("p")
    tab.picture(1)
    for before in reversed(states[:-1]):
        tab.keys("Control+z")
        assert (tab.grids()[0] == before).all()
    tab.keys("Control+z")
    assert not tab.grids()[0].any() and tab.page.is_disabled("#undo")
    for after in states[1:]:
        tab.keys("Control+Shift+Z")
        assert (tab.grids()[0] == after).all()
    tab.status("saved")
    history = [state.labels for state in desk.history(sample)]
    expected = [*states[1:], *reversed(states[:-1]), *states[1:]]
    newest_first = history[0].any() and (history[0] == states[-1]).all() and len(history) == len(expected)
    assert newest_first, "every state on the way is in the file"
    tab.drag((50, 50), (50, 50))
    assert tab.page.is_disabled("#redo"), "a new stroke leaves nothing to redo"


def test_rectangle_fill_and_keep_other_labels(desk: Desk, tab: Tab) -> None:
    tab.keys("3", "r")
    tab.drag((30, 40), (12, 8), (14, 10))
    assert tab.stored(3) == box(14, 10, 30, 40), "the rectangle follows the pointer back"
    tab.keys("1", "f")
    tab.drag((0, 0), (3, 3))
    everything = box(0, 0, SIDE - 1, SIDE - 1)
    assert tab.stored(1) == everything - box(14, 10, 30, 40)
    tab.keys("Control+z", "2", "Shift+H", "k", "r")
    tab.drag((20, 30), (40, 50))
    assert tab.stored(3) == box(14, 10, 30, 40), "labels that were there are kept"
    second = box(20, 30, 40, 50) - box(14, 10, 30, 40)
    assert cells(desk.newest(tab.sample).instances == 2) == second == tab.stored(2)
    tab.keys("e")
    tab.drag((25, 45), (25, 20))
    assert tab.stored(3) == box(14, 10, 30, 40) and len(tab.stored(2)) < len(second)


def test_number_keys_choose_classes_and_hands_have_numbers(tab: Tab) -> None:
    tab.ask("app.painter.size = 1")
    for key, row, label, hand in (("1", 3, 1, 0), ("2", 6, 2, 1), ("3", 9, 3, 1), ("4", 12, 0, 1)):
        tab.keys(key)
        tab.drag((row, 5), (row, 5))
        labels, hands = tab.grids()
        assert (labels[row, 5], hands[row, 5]) == (label, hand)
    tab.keys("2", "Shift+H")
    tab.drag((20, 5), (20, 5))
    tab.keys("Shift+H")
    tab.drag((30, 5), (30, 5))
    tab.keys("h")
    tab.drag((40, 5), (40, 5))
    hands = tab.grids()[1]
    assert [hands[row, 5] for row in (20, 30, 40)] == [2, 3, 1], "the next of 3 is 1 again"
    tab.page.click("#instances [data-instance='2']")
    tab.page.click("#instance-label [data-label='3']")
    assert tab.grids()[0][20, 5] == 3 and tab.stored(3) == {(9, 5), (20, 5)}


def test_faults_have_scopes_and_a_picture_is_done_only_when_it_agrees_with_itself(desk: Desk, tab: Tab) -> None:
    page = tab.page
    tab.keys("3")
    tab.drag((10, 10), (20, 20))
    for kind, times in (("fused", 1), ("count", 2), ("joint", 3)):
        for _ in range(times):
            page.click(f"#faults [data-kind={kind}]")
    page.click("#verdicts [data-verdict='good']")
    tab.keys("d")
    expect(page.locator("#note")).to_contain_text("painted bad")
    tab.keys("Shift+3", "d")
    tab.status("saved")
    said = desk.newest(tab.sample)
    assert said.done and said.verdict == "bad?" and said.seconds >= 0
    assert {hand: set(kinds) for hand, kinds in said.faults.items()} == {1: {"fused:local", "count:local"}}
    tab.keys("2")
    tab.drag((40, 40), (45, 45))
    expect(page.locator("#note")).to_contain_text("No longer done. Hand 1 is")
    tab.status("saved")
    assert not desk.newest(tab.sample).done
    tab.keys("Control+z")
    tab.status("saved")
    assert desk.newest(tab.sample).done, "undo brings the finished state back"
    expect(page.locator("#counts")).to_contain_text("1 of 8 done")


def test_labels_are_hidden_while_a_key_is_held(tab: Tab) -> None:
    tab.page.focus("#canvas")
    tab.page.mouse.move(1, 1)
    tab.keys("l")
    blank = tab.drawn()
    tab.drag((20, 20), (40, 40))
    tab.page.mouse.move(1, 1)
    tab.keys("l")
    painted = tab.drawn()
    tab.page.keyboard.down("l")
    held = tab.drawn()
    tab.page.keyboard.up("l")
    assert tab.drawn() == painted != held
    tab.keys("Control+z")
    assert tab.drawn() == blank, "and what was undone is not seen"
