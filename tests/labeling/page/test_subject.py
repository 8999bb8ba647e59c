"""The labelling page in the words of another subject."""

import re
from collections.abc import Iterator

import pytest
from handscope.labeling.subject import load_subject, set_subject
from labeling_browser import SIDE, Server, Tab
from made_runs import make_run
from playwright.sync_api import expect
from subjects import BIRD


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """2 pictures of 512 pixels, of birds."""
    run = make_run(tmp_path_factory.mktemp("page") / "run", 2, side=8 * SIDE)
    set_subject(run, load_subject(BIRD))
    server = Server(run)
    yield server
    server.stop()


def test_a_picture_is_painted_judged_and_rated_in_words_of_the_subject(desk, tab: Tab) -> None:
    page = tab.page
    for place, text in (
        ("#instance-title", "Bird"),
        ("#classes [data-class='4']", "unclear bird4"),
        ("#verdicts [data-verdict='bad?']", "deformed?"),
        ("#faults [data-kind='wing']", "bent wing–"),
    ):
        expect(page.locator(place)).to_have_text(text)
    tab.keys("3")
    tab.drag((10, 10), (20, 20))
    assert page.evaluate("panel.scrollWidth - panel.clientWidth") == 0, "long words break"
    page.click("#faults [data-kind=wing]")
    expect(page.locator("#instances [aria-pressed=true]")).to_have_text("1 deformed")
    page.click("#verdicts [data-verdict='good']")
    tab.keys("d")
    expect(page.locator("#note")).to_have_text(
        "The verdict is sound, and a bird is painted deformed: change one of them."
    )
    tab.keys("Shift+4", "d")
    tab.status("saved")
    said = desk.newest(tab.sample)
    assert said.done and said.verdict == "bad" and said.faults == {1: ("wing:local",)}
    tab.keys("y")
    expect(page.locator("#history-list")).to_contain_text("deformed · done · bent wing:local")
    tab.keys("Escape", "?")
    expect(page.locator("#keys")).to_contain_text("No bird, sound bird, deformed bird, unclear bird")
    tab.keys("Escape")
    page.click("#modes [data-mode=rate]")
    expect(page.locator("#rate-title")).to_have_text("How sound is the bird?")
    expect(page.locator("#ratings [data-value='1']")).to_contain_text("It could fly")
    text = page.evaluate("document.documentElement.textContent + document.documentElement.innerHTML")
    assert not re.findall(r"(?i)\bhands?\b|\bskin\b|\bfingers?\b", text.replace("two fingers", ""))
