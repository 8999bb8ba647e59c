"""The labelling page in a real browser, before a real server: what is painted is what is stored, whatever happens."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from handscope.extract.labels import Labels
from labeling_browser import Desk, Server, Tab, chromium
from made_runs import make_run
from PIL import Image
from playwright.sync_api import Browser, Error, expect
from scipy import ndimage

SIDE = 64
OFFLINE = "Failed to load resource: net::ERR_"
KEPT = "app.painter.stroke && app.saver.drafting === null"
"""That all of the stroke under way is in the journal."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """8 pictures of 512 pixels, 64 by 64 tokens."""
    server = Server(make_run(tmp_path_factory.mktemp("page") / "run", 8, side=8 * SIDE))
    yield server
    server.stop()


@pytest.fixture
def desk(browser: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """A browser of an annotator whom no other test knows."""
    name = re.sub(r"[\W_]+", " ", request.node.name.removeprefix("test_")).strip()
    desk = Desk(browser, server, name[:20].strip() + name[-20:].strip())
    yield desk
    desk.close()


@pytest.fixture
def tab(desk: Desk) -> Tab:
    return desk.tab()


def disc(row: int, column: int, size: int) -> set[tuple[int, int]]:
    """The cells of a round brush over the middle of a cell."""
    reach = range(-size, size + 1)
    middle = 0.5 if size % 2 == 0 else 0  # an even brush stands on a corner: that below and to the right of the middle
    corner = 1 if size % 2 == 0 else 0
    return {
        (row + corner + y, column + corner + x)
        for y in reach
        for x in reach
        if (y + middle) ** 2 + (x + middle) ** 2 <= (size / 2) ** 2
    }


def cells(grid: np.ndarray) -> set[tuple[int, int]]:
    return {(int(row), int(column)) for row, column in np.argwhere(grid)}


def box(top: int, left: int, bottom: int, right: int) -> set[tuple[int, int]]:
    return {(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)}


def stored(desk: Desk, tab: Tab, label: int) -> set[tuple[int, int]]:
    tab.status("saved")
    return cells(desk.newest(tab.sample).labels == label)


def test_a_brush_paints_the_cells_under_it_and_the_server_has_them(desk: Desk, tab: Tab) -> None:
    for size, row in ((1, 5), (2, 15), (3, 25), (6, 35), (9, 50)):
        tab.ask(f"app.painter.size = {size}")
        tab.drag((row, 20), (row, 20))
        assert stored(desk, tab, 2) == disc(row, 20, size)
        assert cells(desk.newest(tab.sample).hands == 1) == disc(row, 20, size)
        tab.keys("e")
        tab.drag((row, 20), (row, 20))
        assert stored(desk, tab, 2) == set()
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


def test_cells_are_exact_at_every_zoom(desk: Desk, tab: Tab) -> None:
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
        painted = stored(desk, tab, 2)
        assert len(painted) == 1
        page.mouse.move(2, 2)
        left, top, right, bottom = blue_square(tab.drawn(), x - area["x"], y - area["y"])
        scale = tab.ask("app.painter.view.scale")
        assert right - left == pytest.approx(scale, abs=3) and bottom - top == pytest.approx(scale, abs=3)
        for at in ((left, top), (right, top), (right, bottom), (left, bottom)):
            inward = [2.5 if near < 0 else -2.5 for near in (at[0] - left - 1, at[1] - top - 1)]
            page.mouse.click(area["x"] + at[0] + inward[0], area["y"] + at[1] + inward[1])
        assert stored(desk, tab, 2) == painted, "what is seen as the cell is the cell, to its corners"
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
    assert stored(desk, tab, 3) == box(14, 10, 30, 40), "the rectangle follows the pointer back"
    tab.keys("1", "f")
    tab.drag((0, 0), (3, 3))
    everything = box(0, 0, SIDE - 1, SIDE - 1)
    assert stored(desk, tab, 1) == everything - box(14, 10, 30, 40)
    tab.keys("Control+z", "2", "Shift+H", "k", "r")
    tab.drag((20, 30), (40, 50))
    assert stored(desk, tab, 3) == box(14, 10, 30, 40), "labels that were there are kept"
    second = box(20, 30, 40, 50) - box(14, 10, 30, 40)
    assert cells(desk.newest(tab.sample).hands == 2) == second == stored(desk, tab, 2)
    tab.keys("e")
    tab.drag((25, 45), (25, 20))
    assert stored(desk, tab, 3) == box(14, 10, 30, 40) and len(stored(desk, tab, 2)) < len(second)


def test_number_keys_choose_classes_and_hands_have_numbers(desk: Desk, tab: Tab) -> None:
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
    tab.page.click("#hands [data-hand='2']")
    tab.page.click("#hand-label [data-label='3']")
    assert tab.grids()[0][20, 5] == 3 and stored(desk, tab, 3) == {(9, 5), (20, 5)}


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


def test_a_reload_in_mid_stroke_loses_nothing(desk: Desk, tab: Tab) -> None:
    tab.down(10, 10)
    tab.move(10, 40)
    painted = tab.grids_now()
    tab.page.reload()
    tab.picture(1)
    assert cells(tab.grids()[0] == 2) == painted != set()
    assert stored(desk, tab, 2) == painted


def test_a_browser_that_dies_in_mid_stroke_loses_nothing_that_was_painted_a_moment_ago(desk: Desk, tab: Tab) -> None:
    desk.expected = "crash|Target"
    tab.down(10, 10)
    tab.move(10, 40)
    tab.until(KEPT)
    tab.move(11, 40)
    tab.until(KEPT)
    sample, painted = tab.sample, tab.grids_now()
    with tab.page.expect_event("crash"), pytest.raises(Error):
        tab.page.goto("chrome://crash")
    again = desk.tab()
    assert again.page.evaluate("Object.keys(localStorage).filter((key) => key.includes(' draft '))") == []
    again.status("saved")
    assert cells(desk.newest(sample).labels == 2) == painted != set()


def test_a_stroke_that_changes_nothing_leaves_nothing_in_the_journal(desk: Desk, tab: Tab) -> None:
    tab.keys("e")
    tab.down(10, 10)
    tab.move(10, 40)
    tab.until(KEPT)
    kept = "Object.keys(localStorage).filter((key) => / (draft|stroke) /.test(key)).length"
    assert tab.page.evaluate(kept) == 1
    tab.move(11, 40)
    tab.page.mouse.up()
    assert tab.page.evaluate(kept) == 0
    assert tab.ask("app.saver.drafting === null"), "nor is it kept later"
    assert desk.newest(tab.sample) is None


def test_strokes_keep_their_order_where_the_clock_is_put_back(desk: Desk, tab: Tab) -> None:
    desk.expected = OFFLINE
    desk.context.set_offline(True)
    tab.drag((5, 5), (5, 9))
    tab.page.evaluate("Date.now = () => 1000")
    tab.drag((20, 5), (20, 9))
    sample, painted = tab.sample, tab.grids()[0]
    tab.page.close()
    desk.context.set_offline(False)
    desk.tab().status("saved")
    assert [(state.labels == painted).all() for state in desk.history(sample)] == [True, False]


def test_a_picture_that_was_generated_anew_is_seen_before_it_is_labelled(browser: Browser, tmp_path: Path) -> None:
    server = Server(make_run(tmp_path / "run", 3))
    desk = Desk(browser, server, "anna")
    desk.expected = "409"
    tab = desk.tab()
    tab.ahead()
    before = server.run.metadata()[tab.sample]["image_sha256"]
    shown = "(([x, y, w, h]) => [...app.painter.surface.ground.getContext('2d').getImageData(x, y, w, h).data].join())"
    shown += "([0, 0, app.painter.surface.ground.width, app.painter.surface.ground.height])"
    old = tab.ask(shown)
    pixels = server.run.image(tab.sample)[::-1]
    Image.fromarray(pixels).save(server.run.image_path(tab.sample))
    rows = server.run.metadata()
    rows[tab.sample]["image_sha256"] = after = hashlib.sha256(pixels.tobytes()).hexdigest()
    server.run.write_metadata(rows)
    tab.drag((1, 1), (1, 5))
    painted = tab.grids()[0]
    tab.page.click("#take-mine")
    tab.status("saved")
    expect(tab.page.locator("#conflict")).to_be_hidden()
    tab.until(f"app.doc.sha === '{after}'")
    tab.drawn()
    assert tab.ask(shown) != old and (tab.grids()[0] == painted).all()
    newest = desk.newest(tab.sample)
    assert before != after == newest.image_sha256 and (newest.labels == painted).all()
    desk.close()
    server.stop()


@pytest.mark.parametrize("left", ["tab stays", "tab is closed"])
def test_a_server_killed_in_mid_stroke_gets_the_stroke_later(browser: Browser, tmp_path: Path, left: str) -> None:
    server = Server(make_run(tmp_path / "run", 3))
    desk = Desk(browser, server, "anna")
    tab = desk.tab()
    tab.drag((1, 1), (1, 5))
    tab.status("saved")
    sample = tab.sample
    tab.ahead()
    tab.down(5, 2)
    tab.move(5, 6)
    server.kill()
    tab.move(8, 9)
    tab.page.mouse.up()
    tab.status("offline")
    assert "1 kept here" in tab.page.inner_text("#status")
    tab.drag((11, 0), (11, 11))
    painted = tab.grids()[0]
    tab.keys("n")
    tab.picture(2)
    tab.drag((3, 3), (3, 3))
    second = tab.sample
    assert "3 kept here" in tab.page.inner_text("#status")
    if left == "tab is closed":
        tab.page.close()
    server.start()
    if left == "tab stays":
        tab.status("locked")
        expect(tab.page.locator("#note")).to_contain_text("open the address that it printed")
    other = desk.tab()
    other.status("saved")
    if left == "tab stays":
        tab.status("saved")
        assert tab.sample == second
    assert (desk.newest(sample).labels == painted).all()
    assert len(desk.history(sample)) == 3 and len(desk.history(second)) == 1, "each stroke once"
    other.until("!Object.keys(localStorage).some((key) => key.includes('stroke'))")  # another process may empty it
    server.stop()
    desk.expected = OFFLINE + "|status of 401"
    desk.close()


@pytest.mark.parametrize("choice", ["mine", "theirs", "both"])
def test_two_tabs_in_conflict_show_both_and_overwrite_nothing(desk: Desk, choice: str) -> None:
    desk.expected = "409|" + OFFLINE
    one, two = desk.tab(), desk.tab()
    assert one.sample == two.sample
    one.page.bring_to_front()
    one.drag((5, 5), (5, 20))
    one.status("saved")
    first = cells(desk.newest(one.sample).labels)
    two.page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")  # keeps it from looking again
    two.page.bring_to_front()
    two.drag((40, 5), (40, 20))
    two.status("conflict")
    second = cells(two.grids()[0])
    dialog = two.page.locator("#conflict")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text(f"{len(first | second)} of {SIDE * SIDE} cells")
    assert cells(desk.newest(one.sample).labels) == first, "nothing is overwritten"
    two.page.click(f"#take-{choice}")
    two.status("saved")
    expected = {"mine": second, "theirs": first, "both": first | second}[choice]
    assert cells(desk.newest(one.sample).labels) == expected == cells(two.grids()[0])
    assert len(desk.history(one.sample)) == (1 if choice == "theirs" else 2)
    if choice == "theirs":
        two.keys("Control+z")
        two.status("saved")
        assert cells(desk.newest(one.sample).labels) == second, "undo brings back what was not chosen"


def test_a_conflict_can_wait_and_is_still_there_after_a_reload(desk: Desk) -> None:
    desk.expected = "409"
    one, two = desk.tab(), desk.tab()
    one.drag((5, 5), (5, 20))
    one.status("saved")
    two.drag((40, 5), (40, 20))
    two.status("conflict")
    expect(two.page.locator("#conflict")).to_be_visible()
    two.keys("Escape")
    expect(two.page.locator("#conflict")).to_be_hidden()
    two.drag((45, 5), (45, 20))
    both = cells(two.grids()[0])
    two.page.reload()
    expect(two.page.locator("#conflict")).to_be_visible()
    two.page.click("#take-both")
    two.status("saved")
    first = cells(desk.history(one.sample)[-1].labels)
    assert cells(desk.newest(one.sample).labels) == first | both


def test_strokes_made_offline_are_sent_in_their_order(desk: Desk, tab: Tab) -> None:
    desk.expected = OFFLINE
    samples = []
    tab.ahead()
    desk.context.set_offline(True)
    for row in (5, 15, 25):
        tab.drag((row, 5), (row, 20))
    tab.status("offline")
    samples.append(tab.sample)
    tab.keys("n")
    tab.picture(2)
    tab.keys("3")
    tab.drag((7, 7), (9, 9))
    tab.keys("Enter")
    assert "5 kept here" in tab.page.inner_text("#status")
    tab.picture(3)
    tab.page.fill("#number", "7")  # which nobody has fetched ahead
    tab.page.press("#number", "Enter")
    expect(tab.page.locator("#note")).to_contain_text("does not answer")
    here = tab.sample
    assert not Labels(desk.server.run.labels_path).history(samples[0], desk.name)
    desk.context.set_offline(False)
    tab.status("saved")
    tab.picture(7)
    assert tab.sample != here
    counts = [int((state.labels == 2).sum()) for state in desk.history(samples[0])]
    assert sorted(counts, reverse=True) == counts and len(counts) == 3
    assert len([state for state in Labels(desk.server.run.labels_path).by_author() if state[1] == desk.name]) == 1


def test_earlier_states_can_be_brought_back(desk: Desk, tab: Tab) -> None:
    tab.drag((5, 5), (5, 20))
    first = stored(desk, tab, 2)
    tab.keys("e")
    tab.drag((5, 0), (5, 30))
    assert stored(desk, tab, 2) == set()
    tab.keys("y")
    rows = tab.page.locator("#history-list .state")
    expect(rows).to_have_count(2)
    rows.last.get_by_role("button").click()
    expect(tab.page.locator("#history")).to_be_hidden()
    assert stored(desk, tab, 2) == first == cells(tab.grids()[0] == 2) and len(desk.history(tab.sample)) == 3
    tab.keys("2")
    tab.drag((50, 50), (50, 50))
    assert len(stored(desk, tab, 2)) == len(first) + 9, "and painted on"


def test_suggestions_are_not_accepted_by_themselves(desk: Desk, tab: Tab) -> None:
    nothing, scores = np.zeros((SIDE, SIDE), np.uint8), np.linspace(-1, 1, SIDE * SIDE, dtype="<f4")
    hands = nothing.copy()
    hands[10:20, 10:20] = 1
    def text(grid: np.ndarray) -> str:
        return base64.b64encode(grid.tobytes()).decode()

    offer = {
        "items": [
            {"source": "detector", "labels": text(1 - hands), "hands": text(hands), "map": None, "score": 0.9},
            {"source": "probe", "labels": text(nothing), "hands": text(nothing), "map": text(scores), "score": None},
        ],
        "absent": {"silhouette": "the picture has no plain background."},
    }
    tab.page.route("**/suggestions?*", lambda route: route.fulfill(json=offer))
    sample = tab.sample
    tab.keys("s")
    expect(tab.page.locator("#offer")).to_contain_text("detector")
    expect(tab.page.locator("#absent")).to_contain_text("No silhouette: the picture has no plain background.")
    shown = tab.drawn()
    assert not tab.grids()[0].any() and not tab.grids()[1].any()
    tab.keys("n")
    tab.picture(2)
    tab.keys("p")
    tab.picture(1)
    assert desk.newest(sample) is None, "looking at a suggestion and going on accepts nothing"
    expect(tab.page.locator("#offer")).to_be_hidden()
    assert tab.drawn() != shown
    tab.keys("3", "s")
    expect(tab.page.locator("#offer")).to_be_visible()
    tab.keys("a")
    labels, numbers = tab.grids()
    assert (labels == np.where(hands, 3, 1)).all() and (numbers == hands).all()
    tab.keys("Control+z")
    assert not tab.grids()[0].any(), "one stroke"
    tab.keys("s", "s")
    expect(tab.page.locator("#offer")).to_contain_text("Map: probe")
    expect(tab.page.locator("#accept")).to_be_hidden()
    tab.keys("a")
    assert not tab.grids()[0].any(), "a map is to look at"
    tab.keys("s")
    expect(tab.page.locator("#offer")).to_be_hidden()


def test_rating_is_blind_and_each_rating_is_stored(desk: Desk, tab: Tab) -> None:
    run = desk.server.run
    telling = [*run.samples()["prompt"], *run.samples()["sample"], run.path.name]
    tab.ahead()
    desk.requests.clear()
    tab.page.click("[data-mode=rate]")
    tab.page.wait_for_selector("#ratings >> visible=true")
    tab.picture(1)
    for key in "1", "3", "2":
        number = int(tab.page.input_value("#number"))
        visible = tab.page.inner_text("body") + tab.page.title() + tab.page.url
        assert not [word for word in telling if re.search(rf"\b{re.escape(word)}\b", visible)]
        tab.keys(key)
        tab.picture(number + 1)
    tab.status("saved")
    assert not [url for url in desk.requests if any(word in url for word in run.samples()["sample"])]
    ratings = Labels(run.labels_path).ratings()
    mine = ratings[ratings["rater"] == desk.name]
    assert sorted(mine["value"]) == [0, 0.5, 1] and mine["sample"].nunique() == 3
    tab.keys("p")
    expect(tab.page.locator("#ratings [data-value='0.5']")).to_have_attribute("aria-pressed", "true")
    tab.drag((10, 10), (20, 20))
    assert not tab.grids()[0].any() and not Labels(run.labels_path).states(desk.name), "nothing is painted"


def test_review_shows_what_others_said(browser: Browser, desk: Desk, server: Server) -> None:
    said = {}
    for name, key in (("review a", "2"), ("review b", "3")):
        other = Desk(browser, server, name)
        tab = other.tab()
        sample = tab.sample
        tab.keys(key)
        tab.drag((10, 10), (30, 30))
        tab.keys("Enter")
        tab.picture(2)
        tab.status("saved")
        said[name] = cells(other.newest(sample).labels)
        other.close()
    tab = desk.tab()
    tab.page.click("[data-mode=review]")
    tab.page.wait_for_selector("#others .other")
    assert {"review a", "review b"} <= set(tab.page.locator("#others b").all_inner_texts())
    assert not tab.grids()[0].any()
    tab.page.click("[data-source='review b']")
    expect(tab.page.locator("#offer")).to_contain_text("review b")
    assert not tab.grids()[0].any(), "shown is not taken"
    tab.page.click("[data-take='review b']")
    tab.keys("d")
    tab.status("saved")
    review = Labels(server.run.labels_path).newest(tab.sample, desk.name, review=True)
    assert review.done and review.verdict == "bad" and cells(review.labels == 3) == said["review b"]


def test_the_keyboard_alone_is_enough(desk: Desk, browser: Browser) -> None:
    tab = desk.tab(named=False)
    page = tab.page
    page.wait_for_selector("#name[open]")
    page.keyboard.type(desk.name)
    tab.keys("Enter")
    tab.picture(1)
    sample = tab.sample
    for _ in range(40):
        tab.keys("Tab")
        assert page.evaluate("document.activeElement.matches('body, :focus-visible')")
        if page.evaluate("document.activeElement.id") == "canvas":
            break
    else:
        raise AssertionError("the canvas is not reached with the tab key")
    tab.keys("[", "[", "3", "ArrowDown")
    row, column = tab.ask("app.painter.cell")
    expect(page.locator("#spoken")).to_contain_text(f"Row {row + 1}, column {column + 1}: unlabelled")
    page.keyboard.down(" ")
    tab.keys("ArrowRight", "ArrowRight", "ArrowDown")
    page.keyboard.up(" ")
    path = {(row, column), (row, column + 1), (row, column + 2), (row + 1, column + 2)}
    assert stored(desk, tab, 3) == path and len(desk.history(sample)) == 1, "one stroke"
    expect(page.locator("#spoken")).to_contain_text("bad hand 1")
    tab.keys("q", "Tab", "Tab", "Tab", " ", "Escape")
    assert page.evaluate("document.activeElement.id") == "canvas"
    tab.keys("Shift+4", "+", "+", "ArrowLeft", "r", "ArrowUp")
    page.keyboard.down(" ")
    tab.keys("ArrowUp", "ArrowLeft")
    page.keyboard.up(" ")
    tab.keys("Control+z", "Home", "Enter")
    tab.picture(2)
    tab.status("saved")
    said = desk.newest(sample)
    assert said.done and said.verdict == "bad" and said.faults == {1: ("fused:local",)}
    assert cells(said.labels) == path
    expect(page.locator("#live")).to_have_text("Saved")
    tab.keys("?")
    expect(page.locator("#help")).to_be_visible()
    assert "Undo a stroke" in page.inner_text("#help")
    tab.keys("Escape")
    expect(page.locator("#help")).to_be_hidden()


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


def test_a_narrow_window_reaches_everything_and_scrolls_one_way(tab: Tab) -> None:
    page, width = tab.page, 400
    page.set_viewport_size({"width": width, "height": 780})
    tab.keys("3")
    tab.drag((10, 10), (20, 20))
    for mode in ("paint", "rate", "review"):
        page.click(f"[data-mode={mode}]")
        page.wait_for_selector("#of:not(:empty), #note:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for control in page.locator("button:visible:not(:disabled), input:visible").all():
            control.click(trial=True)
            place = control.bounding_box()
            assert place["x"] >= 0 and place["x"] + place["width"] <= width + 0.5
    page.click("[data-mode=paint]")
    tab.picture(1)
    for opener, dialog in (("#help-open", "#help"), ("#history-open", "#history"), ("#who", "#name")):
        page.click(opener)
        opened = page.locator(dialog)
        expect(opened).to_be_visible()  # the history is fetched first
        area = opened.bounding_box()
        assert area["x"] >= 0 and area["x"] + area["width"] <= width
        tab.keys("Escape")
        expect(opened).to_be_hidden()
    page.set_viewport_size({"width": 320, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_fingers_paint_with_one_and_move_with_two(browser: Browser, server: Server) -> None:
    desk = Desk(browser, server, "fingers", has_touch=True, viewport={"width": 400, "height": 780})
    tab = desk.tab()
    touch = desk.context.new_cdp_session(tab.page)

    def send(kind: str, *points: tuple[float, float]) -> None:
        listed = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": listed})

    tab.ask("app.painter.size = 1")
    tab.page.evaluate("scrollTo(0, 0)")
    start, end = tab.place(20, 20), tab.place(20, 30)
    send("touchStart", start)
    for share in (0.25, 0.5, 0.75, 1):
        send("touchMove", tuple(a + share * (b - a) for a, b in zip(start, end, strict=True)))
    send("touchEnd")
    tab.until("app.painter.history.place === 1")
    assert stored(desk, tab, 2) == box(20, 20, 20, 30)
    scale = tab.ask("app.painter.view.scale")
    one, two = tab.place(30, 30), tab.place(34, 34)
    send("touchStart", one)
    send("touchStart", one, two)
    for step in range(1, 6):
        send("touchMove", (one[0] - 10 * step, one[1] - 10 * step), (two[0] + 10 * step, two[1] + 10 * step))
    send("touchEnd")
    tab.until(f"app.painter.view.scale > {2 * scale} && app.painter.gestures.pointers.size === 0")
    assert cells(tab.grids()[0]) == box(20, 20, 20, 30) and tab.page.evaluate("scrollY") == 0
    desk.close()


def test_the_space_bar_and_the_middle_button_move_the_picture(tab: Tab) -> None:
    page = tab.page
    tab.keys("+", "+", "+")
    here = tab.ask("[app.painter.view.x, app.painter.view.y]")
    page.mouse.move(500, 400)
    page.keyboard.down(" ")
    page.mouse.down()
    page.mouse.move(540, 430)
    page.mouse.up()
    page.keyboard.up(" ")
    assert tab.ask("[app.painter.view.x, app.painter.view.y]") == pytest.approx([here[0] + 40, here[1] + 30])
    page.mouse.down(button="middle")
    page.mouse.move(520, 420)
    page.mouse.up(button="middle")
    assert tab.ask("[app.painter.view.x, app.painter.view.y]") == pytest.approx([here[0] + 20, here[1] + 20])
    assert not tab.grids()[0].any()


def test_a_stroke_that_the_server_refuses_is_kept_and_shown_until_a_later_one_is_saved(desk: Desk, tab: Tab) -> None:
    desk.expected = "422"
    tab.page.route("**/strokes?*", lambda route: route.fulfill(status=422, json={"error": "Not that."}), times=1)
    tab.drag((5, 5), (5, 20))
    tab.status("refused")
    assert tab.page.get_attribute("#status", "title") == "Not that."
    kept = tab.page.evaluate("Object.keys(localStorage).filter((key) => key.includes('stroke')).length")
    assert kept == 1 and desk.newest(tab.sample) is None
    tab.drag((15, 5), (15, 20))
    tab.status("saved")
    assert cells(desk.newest(tab.sample).labels) == cells(tab.grids()[0]), "the later one has both"


def test_a_full_storage_is_said_and_the_stroke_is_sent_all_the_same(desk: Desk, tab: Tab) -> None:
    desk.expected = OFFLINE
    tab.page.evaluate("""() => {
      for (let length = 1 << 20; length > 0; length >>= 1) {
        try { for (let i = 0; ; i++) localStorage.setItem(`fill ${length} ${i}`, "x".repeat(length)); } catch {}
      }
    }""")
    tab.ahead()
    desk.context.set_offline(True)
    tab.drag((5, 5), (5, 20))
    tab.status("full")
    expect(tab.page.locator("#note")).to_contain_text("leave this page open")
    desk.context.set_offline(False)
    assert stored(desk, tab, 2) == cells(tab.grids()[0] == 2) != set()
    expect(tab.page.locator("#note")).to_be_hidden()


def test_the_name_is_asked_once_and_another_can_take_over(desk: Desk, tab: Tab) -> None:
    tab.drag((5, 5), (5, 20))
    tab.status("saved")
    tab.page.reload()
    tab.picture(1)
    assert not tab.page.is_visible("#name") and tab.page.inner_text("#who") == desk.name
    tab.page.click("#who")
    tab.page.fill("#annotator", "somebody else")
    with tab.page.expect_navigation():
        tab.page.press("#annotator", "Enter")
    tab.picture(1)
    assert tab.page.inner_text("#who") == "somebody else" and not tab.grids()[0].any()


def test_strokes_of_another_name_wait_for_it(desk: Desk, tab: Tab) -> None:
    desk.expected = OFFLINE + "|status of 403"
    sample = tab.sample
    tab.ahead()
    desk.context.set_offline(True)
    tab.drag((5, 5), (5, 20))
    tab.status("offline")
    for name in ("who came next", desk.name):
        desk.take(name)
        if not tab.page.is_closed():  # not before: with its last breath a page sends what waits
            tab.page.close()
            desk.context.set_offline(False)
        other = desk.tab()
        other.status("saved")
        if name != desk.name:
            expect(other.page.locator("#note")).to_contain_text(f"Strokes of {desk.name} wait")
            assert desk.newest(sample) is None
    assert len(desk.history(sample)) == 1
    assert not Labels(desk.server.run.labels_path).history(sample, "who came next")


def test_a_name_chosen_in_one_tab_is_not_taken_for_that_of_another(desk: Desk) -> None:
    desk.expected = "status of 403"
    hers, his = desk.tab(), desk.tab()
    his.page.click("#who")
    his.page.fill("#annotator", "who came between")
    with his.page.expect_navigation():
        his.page.press("#annotator", "Enter")
    his.picture(1)

    def to_the_sixth(tab: Tab) -> None:  # which nobody has fetched ahead
        tab.page.fill("#number", "6")
        tab.page.press("#number", "Enter")

    to_the_sixth(his)
    his.picture(6)
    his.drag((5, 5), (5, 20))
    his.status("saved")
    sample, first = his.sample, hers.sample
    assert sample != first
    hers.page.bring_to_front()
    to_the_sixth(hers)
    expect(hers.page.locator("#note")).to_contain_text(f"This page is of {desk.name}, and who came between is painting")
    assert hers.sample == first, "his labels are not shown as hers"
    hers.drag((30, 30), (30, 40))
    hers.status("locked")
    hers.page.click("#who")
    hers.page.fill("#annotator", desk.name)
    hers.page.press("#annotator", "Enter")
    assert stored(desk, hers, 2) == cells(hers.grids()[0] == 2) != set()
    to_the_sixth(hers)
    hers.picture(6)
    assert hers.sample == sample and not hers.grids()[0].any()
    hers.drag((50, 50), (50, 50))
    assert stored(desk, hers, 2) == disc(50, 50, 3)
    expect(hers.page.locator("#note")).to_be_hidden()
    his.page.bring_to_front()
    his.ask("app.doc.fetched = -Infinity")  # it does not look again at once
    his.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(his.page.locator("#note")).to_contain_text(f"This page is of who came between, and {desk.name} is painting")
    his_states = Labels(desk.server.run.labels_path).history(sample, "who came between")
    assert len(his_states) == len(desk.history(sample)) == 1


def test_the_policy_of_the_page_allows_nothing_inline(desk: Desk, tab: Tab) -> None:
    answer = desk.context.request.get(f"http://127.0.0.1:{desk.server.port}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    text = answer.text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", text)
    assert json.loads(tab.page.evaluate("JSON.stringify([...document.querySelectorAll('[style]')].length)")) == 0
    for url in set(desk.requests):
        assert re.match(rf"http://127\.0\.0\.1:{desk.server.port}/", url)
