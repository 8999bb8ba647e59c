"""Two tabs of the labelling page, and two names in one browser: nobody overwrites anybody."""

import pytest
from handscope.labeling.database.labels import Labels
from labeling_browser import OFFLINE, SIDE, Desk, Tab, cells, disc
from playwright.sync_api import expect


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
    assert hers.stored(2) == cells(hers.grids()[0] == 2) != set()
    to_the_sixth(hers)
    hers.picture(6)
    assert hers.sample == sample and not hers.grids()[0].any()
    hers.drag((50, 50), (50, 50))
    assert hers.stored(2) == disc(50, 50, 3)
    expect(hers.page.locator("#note")).to_be_hidden()
    his.page.bring_to_front()
    his.ask("app.doc.fetched = -Infinity")  # it does not look again at once
    his.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(his.page.locator("#note")).to_contain_text(f"This page is of who came between, and {desk.name} is painting")
    his_states = Labels(desk.server.run.labels_path).history(sample, "who came between")
    assert len(his_states) == len(desk.history(sample)) == 1
