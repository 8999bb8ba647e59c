"""Nothing is judged by accident: keys that are held, double clicks, pictures that nobody could see."""

import shutil

import pytest
from handscope.labeling.database.labels import Labels
from labeling_browser import Desk, Server, Tab
from made_runs import make_run
from playwright.sync_api import Browser, Page, expect

REPEATED = """({ key, code }) => {
  const target = document.querySelector("#canvas");
  for (let i = 0; i < 20; i++) {
    target.dispatchEvent(new KeyboardEvent("keydown", { key, code, repeat: i > 0, bubbles: true, cancelable: true }));
  }
}"""


def held(page: Page, key: str, code: str) -> None:
    """A key that is held down until it has repeated nineteen times."""
    page.evaluate(REPEATED, {"key": key, "code": code})


def to_rating(tab: Tab) -> None:
    tab.page.click("[data-mode=rate]")
    tab.page.wait_for_selector("#ratings >> visible=true")
    tab.picture(1)


def rated(desk: Desk) -> list[tuple[str, float]]:
    """The ratings that count, by sample."""
    found = Labels(desk.server.run.labels_path).rated(desk.name)
    return sorted((sample, value) for sample, (_, value) in found.items())


def test_a_key_that_is_held_rates_one_picture_and_marks_one_state(desk: Desk, tab: Tab) -> None:
    to_rating(tab)
    held(tab.page, "2", "Digit2")
    tab.picture(2)
    tab.status("saved")
    assert [value for _, value in rated(desk)] == [0.5]
    tab.page.click("[data-mode=paint]")
    tab.picture(1)
    tab.drag((5, 5), (5, 20))
    sample = tab.sample
    tab.status("saved")
    held(tab.page, "d", "KeyD")
    tab.status("saved")
    assert [state.done for state in desk.history(sample)] == [True, False], "done once, and not back and forth"
    held(tab.page, "+", "Equal")
    assert tab.ask("app.painter.view.scale > 3 * app.painter.view.whole"), "zooming goes on while its key is held"


def test_a_double_click_rates_one_picture(desk: Desk, tab: Tab) -> None:
    to_rating(tab)
    tab.page.dblclick("#ratings [data-value='1']")
    tab.picture(2)
    tab.status("saved")
    assert [value for _, value in rated(desk)] == [1.0]


def test_the_last_ratings_can_be_taken_back(desk: Desk, tab: Tab) -> None:
    to_rating(tab)
    for place, key in enumerate("132", 2):
        tab.keys(key)
        tab.picture(place)
    tab.status("saved")
    before = rated(desk)
    tab.keys("Control+z")
    tab.picture(3)
    expect(tab.page.locator("#note")).to_contain_text("taken back")
    tab.page.click("#unrate")
    tab.picture(2)
    tab.status("saved")
    assert len(before) == 3 and len(rated(desk)) == 1 and set(rated(desk)) < set(before)
    expect(tab.page.locator("#ratings [aria-pressed=true]")).to_have_count(0)
    with Labels(desk.server.run.labels_path)._file.reading() as database:
        rows = database.execute("SELECT withdrawn FROM ratings WHERE rater = ? ORDER BY id", (desk.name,)).fetchall()
    assert [row[0] for row in rows] == [0, 0, 0, 1, 1], "rows of their own: nothing is changed or removed"
    tab.keys("2")
    tab.picture(3)
    tab.status("saved")
    assert len(rated(desk)) == 2
    tab.keys("Control+z", "Control+z", "Control+z")
    tab.until("app.items.every(({ done }) => !done)")
    tab.status("saved")
    assert rated(desk) == []


@pytest.mark.parametrize("content", [b"no picture", None], ids=["broken", "another"])
def test_a_picture_that_cannot_be_shown_cannot_be_judged(browser: Browser, tmp_path, content: bytes | None) -> None:
    run = make_run(tmp_path / "run", 2, side=64)
    first, second = run.metadata()
    server = Server(run)
    desk = Desk(browser, server, "ada")
    desk.expected = "status of 422"
    tab = desk.tab()
    shown = tab.sample
    other = second if shown == first else first
    if content is None:
        shutil.copy(run.image_path(other), run.image_path(shown))
    else:
        run.image_path(shown).write_bytes(content)
    tab.keys("Shift+1")  # seen before it was replaced, but nobody can see now what is said of it
    tab.status("refused")
    assert desk.newest(shown) is None
    desk.close()
    desk = Desk(browser, server, "ben")  # whose browser has not kept the right one
    desk.expected = "status of 422"
    tab = desk.tab()
    assert tab.sample == shown
    for key in "Shift+1", "d", "Enter", "g":
        tab.keys(key)
        expect(tab.page.locator("#note")).to_contain_text("cannot be judged unseen")
    tab.page.click("[data-mode=rate]")
    for place in 1, 2:
        tab.picture(place)
        tab.keys("3", "n")
    tab.until("app.items.filter(({ done }) => done).length === 1")
    tab.until("app.saver.entries.every(({ kind }) => kind !== 'rating')")
    assert [sample for sample, _ in rated(desk)] == [other]
    desk.close()
    server.stop()


def test_keys_go_by_letter_or_by_place_and_caps_lock_changes_nothing(tab: Tab) -> None:
    def press(key: str, code: str, shift: bool = False) -> None:
        tab.page.evaluate(
            """(event) => document.querySelector("#canvas").dispatchEvent(
              new KeyboardEvent("keydown", { ...event, bubbles: true, cancelable: true }))""",
            {"key": key, "code": code, "shiftKey": shift},
        )

    press("E", "KeyE")
    assert tab.ask("app.painter.tool") == "eraser", "Caps Lock"
    press("\u043a", "KeyR")
    assert tab.ask("app.painter.tool") == "rectangle", "a Cyrillic layout: by place"
    press("f", "KeyU")
    assert tab.ask("app.painter.tool") == "fill", "a Dvorak layout: as printed"
    press("H", "KeyH")
    assert tab.ask("app.instance") == 1
    press("h", "KeyH", shift=True)
    assert tab.ask("app.instance") == 1, "the first one is still empty"
    size = tab.ask("app.painter.size")
    press("\u044a", "BracketRight")
    assert tab.ask("app.painter.size") == size + 1


def test_a_jump_beyond_the_last_picture_says_how_many_there_are(tab: Tab) -> None:
    tab.page.fill("#number", "99")
    tab.keys("Enter")
    expect(tab.page.locator("#note")).to_have_text("There are 8 pictures: choose one from 1 to 8.")
    expect(tab.page.locator("#number")).to_have_value("1")


def test_a_long_prompt_leaves_the_picture_its_room(desk: Desk, tab: Tab) -> None:
    def room() -> float:
        return tab.page.locator("#canvas").bounding_box()["height"]

    before = room()
    tab.ask("app.panel.showPrompt('an open hand before a plain background, softly lit, '.repeat(24))")
    assert room() > before - 30, "two lines of it are shown"
    tab.page.click("#prompt-all")
    assert room() > 300 and tab.page.locator("#prompt").bounding_box()["height"] > 60
    tab.page.set_viewport_size({"width": 844, "height": 390})
    tab.page.click("#prompt-all")
    assert room() > 280, "a phone held sideways"
    assert tab.page.evaluate("document.documentElement.scrollHeight") <= 390


def test_a_click_suggests_a_region_and_paints_nothing(desk: Desk, tab: Tab) -> None:
    sample = tab.sample
    tab.keys("c")
    tab.drag((20, 20))
    expect(tab.page.locator("#offer")).to_contain_text("Suggestion: region")
    assert not tab.grids()[0].any() and not tab.grids()[1].any() and desk.newest(sample) is None
    tab.keys("3", "a")
    tab.status("saved")
    assert desk.newest(sample).labels[20, 20] == 3 and desk.newest(sample).instances[20, 20] == 1
    assert tab.ask("app.painter.tool") == "pick", "the next part is a click away"
