"""The labelling page with keys alone, with fingers, in a narrow window, and under its policy."""

import json
import re

import pytest
from labeling_browser import Desk, Server, Tab, box, cells
from playwright.sync_api import Browser, expect


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
    assert tab.stored(3) == path and len(desk.history(sample)) == 1, "one stroke"
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
    assert tab.stored(2) == box(20, 20, 20, 30)
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


def test_the_policy_of_the_page_allows_nothing_inline(desk: Desk, tab: Tab) -> None:
    answer = desk.context.request.get(f"http://127.0.0.1:{desk.server.port}/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    text = answer.text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", text)
    assert json.loads(tab.page.evaluate("JSON.stringify([...document.querySelectorAll('[style]')].length)")) == 0
    for url in set(desk.requests):
        assert re.match(rf"http://127\.0\.0\.1:{desk.server.port}/", url)


def test_what_is_chosen_is_said_aloud_and_the_brush_stays_as_it_was(tab: Tab) -> None:
    said = tab.page.locator("#spoken")
    for key, words in (
        ("3", "bad hand"),
        ("e", "Eraser."),
        ("Shift+1", "Verdict: good."),
        ("Control+z", "Undone."),
        ("Control+z", "nothing to undo"),
        ("n", "Picture 2 of 8, not done."),
    ):
        tab.keys(key)
        expect(said).to_contain_text(words)
    tab.keys("]", "]", ".")
    look = tab.ask("[app.painter.size, app.painter.opacity]")
    tab.page.reload()
    tab.picture(2)
    assert tab.ask("[app.painter.size, app.painter.opacity]") == look and look[0] == 5
