"""Nothing that was painted is lost: not with the page, the browser, the server, the network or the storage."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from handscope.labeling.database.labels import Labels
from labeling_browser import KEPT, OFFLINE, Desk, Server, Tab, cells
from made_runs import make_run
from PIL import Image
from playwright.sync_api import Browser, Error, expect


def test_a_reload_in_mid_stroke_loses_nothing(tab: Tab) -> None:
    tab.down(10, 10)
    tab.move(10, 40)
    painted = tab.grids_now()
    tab.page.reload()
    tab.picture(1)
    assert cells(tab.grids()[0] == 2) == painted != set()
    assert tab.stored(2) == painted


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


def test_an_entry_that_cannot_be_read_does_not_hold_up_the_others(desk: Desk, tab: Tab) -> None:
    desk.expected = OFFLINE
    desk.context.set_offline(True)
    tab.drag((5, 5), (5, 20))
    painted, sample = cells(tab.grids()[0] == 2), tab.sample
    prefix = tab.ask("app.saver.journal.strokes")
    shapeless = {"uid": "x", "annotator": "a", "sample": "s", "mode": "paint", "at": 1, "kind": "stroke"}
    bad = ["{", "null", "{}", json.dumps(shapeless)]
    for number, text in enumerate(bad):
        tab.page.evaluate("([key, text]) => localStorage.setItem(key, text)", [f"{prefix}bad{number}", text])
    tab.page.evaluate("([key]) => localStorage.setItem(key, '[')", [f"{tab.ask('app.saver.journal.drafts')}gone"])
    tab.page.close()
    desk.context.set_offline(False)
    again = desk.tab()
    expect(again.page.locator("#note")).to_contain_text("5 of the strokes kept in this browser cannot be read")
    assert again.sample == sample and again.stored(2) == painted != set()


def test_a_link_in_another_site_leads_to_the_page(desk: Desk) -> None:
    page = desk.context.new_page()
    link = f'<a href="{desk.server.url}">label</a>'
    page.route("http://terminal.test/", lambda route: route.fulfill(body=link, content_type="text/html"))
    page.goto("http://terminal.test/")
    page.click("a")
    page.wait_for_selector("#name[open]")
    assert "token" not in page.url
    desk.requests.remove("http://terminal.test/")


def test_a_disk_that_takes_no_labels_is_told_as_that(desk: Desk, tab: Tab) -> None:
    desk.expected = "503"
    said = {"error": "The disk is full: labels.sqlite could not be written."}
    tab.page.route("**/strokes?*", lambda route: route.fulfill(status=503, json=said))
    tab.drag((5, 5), (5, 20))
    tab.status("offline")
    expect(tab.page.locator("#status")).to_have_attribute("title", re.compile("The disk is full: .* kept in this"))


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
    expect(tab.page.locator("#status")).to_contain_text("1 kept here")
    tab.drag((11, 0), (11, 11))
    painted = tab.grids()[0]
    tab.keys("n")
    tab.picture(2)
    tab.drag((3, 3), (3, 3))
    second = tab.sample
    expect(tab.page.locator("#status")).to_contain_text("3 kept here")
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
    expect(tab.page.locator("#status")).to_contain_text("5 kept here")
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


def test_a_stroke_that_the_server_refuses_is_kept_and_shown_until_a_later_one_is_saved(desk: Desk, tab: Tab) -> None:
    desk.expected = "422"
    tab.page.route("**/strokes?*", lambda route: route.fulfill(status=422, json={"error": "Not that."}), times=1)
    tab.drag((5, 5), (5, 20))
    tab.status("refused")
    assert tab.page.get_attribute("#status", "title").startswith("Not that.")
    kept = tab.page.evaluate("Object.keys(localStorage).filter((key) => key.includes('stroke')).length")
    assert kept == 1 and desk.newest(tab.sample) is None
    tab.drag((15, 5), (15, 20))
    tab.status("saved")
    assert cells(desk.newest(tab.sample).labels) == cells(tab.grids()[0]), "the later one has both"


def test_a_stroke_that_the_server_refuses_is_discarded_by_choice_and_undo_has_it_still(desk: Desk, tab: Tab) -> None:
    desk.expected = "422"
    tab.drag((5, 5), (5, 20))
    first = tab.stored(2)
    tab.page.route("**/strokes?*", lambda route: route.fulfill(status=422, json={"error": "Not that."}), times=2)
    for row in (15, 25):
        tab.drag((row, 5), (row, 20))
    both = tab.grids()[0]
    tab.until("app.saver.refused?.count === 2")
    kept = "Object.keys(localStorage).filter((key) => key.includes('stroke')).length"
    for choice in ("Keep it", "Discard it"):
        assert tab.page.evaluate(kept) == 2 and (tab.grids()[0] == both).all()
        tab.page.click("#status")
        expect(tab.page.locator("#refused")).to_contain_text("2 strokes on picture 1 were not accepted: Not that.")
        tab.page.get_by_role("button", name=choice).click()
        expect(tab.page.locator("#refused")).to_be_hidden()
    tab.status("saved")
    assert tab.page.evaluate(kept) == 0 and cells(tab.grids()[0] == 2) == first == tab.stored(2)
    tab.keys("Control+z")
    assert tab.stored(2) == cells(both == 2) and len(desk.history(tab.sample)) == 2


def test_a_stroke_on_a_picture_that_is_gone_can_be_discarded(desk: Desk, tab: Tab) -> None:
    desk.expected = "404"
    tab.page.route(f"**/samples/{tab.sample}**", lambda route: route.fulfill(status=404, json={"error": "It is gone."}))
    tab.drag((5, 5), (5, 20))
    tab.status("refused")
    tab.page.click("#status")
    tab.page.click("#discard")
    tab.status("saved")
    assert tab.page.evaluate("Object.keys(localStorage).some((key) => key.includes('stroke'))") is False


def test_a_rating_that_the_server_refuses_is_discarded_by_choice(desk: Desk, tab: Tab) -> None:
    desk.expected = "422"
    tab.page.route("**/rating?*", lambda route: route.fulfill(status=422, json={"error": "Not that."}), times=1)
    tab.page.click("[data-mode=rate]")
    tab.picture(1)
    tab.keys("3")
    tab.picture(2)
    tab.status("refused")
    tab.page.click("#status")
    expect(tab.page.locator("#refused")).to_contain_text("picture 1 was not accepted: Not that.")
    tab.page.click("#discard")
    tab.status("saved")
    tab.keys("p")
    tab.picture(1)
    expect(tab.page.locator("#ratings [aria-pressed=true]")).to_have_count(0)
    expect(tab.page.locator("#counts")).to_contain_text("0 of 8 done")


def test_a_full_storage_is_said_and_the_stroke_is_sent_all_the_same(desk: Desk, tab: Tab) -> None:
    desk.expected = OFFLINE
    tab.page.evaluate("""() => {
      localStorage.setItem("brim", "");
      for (let length = 1 << 20; length > 0; length >>= 1) {
        try { for (let i = 0; ; i++) localStorage.setItem(`fill ${length} ${i}`, "x".repeat(length)); } catch {}
      }
      try { for (let last = ""; ; last += "x") localStorage.setItem("brim", last); } catch {}
    }""")
    tab.ahead()
    desk.context.set_offline(True)
    tab.drag((5, 5), (5, 20))
    tab.status("full")
    expect(tab.page.locator("#note")).to_contain_text("leave this page open")
    tab.keys("n")
    tab.picture(2)
    desk.context.set_offline(False)
    tab.status("saved")
    tab.page.click("[data-mode=review]")  # a longer word than the mode before, for which there is no room
    tab.until("app.mode === 'review' && app.samples")
    expect(tab.page.locator("#counts")).not_to_contain_text("of 8")
    tab.page.click("[data-mode=paint]")
    tab.until("app.doc")
    tab.page.fill("#number", "1")
    tab.page.press("#number", "Enter")
    tab.picture(1)
    assert tab.stored(2) == cells(tab.grids()[0] == 2) != set()
    expect(tab.page.locator("#note")).to_be_hidden()
