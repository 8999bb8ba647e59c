"""All pictures at a glance: found by what was said of them, and opened from there."""

from labeling_browser import Desk, Server, Tab
from playwright.sync_api import Browser, expect


def names(tab: Tab) -> list[str]:
    return tab.page.locator("#gallery-pictures span").all_inner_texts()


def test_pictures_are_found_by_state_verdict_fault_and_words_and_opened(desk: Desk, tab: Tab) -> None:
    tab.keys("3")
    tab.drag((5, 5), (20, 20))
    tab.page.click("[data-kind=joint]")
    tab.keys("Escape", "Enter")
    tab.picture(2)
    tab.keys("Shift+1")
    tab.picture(2)
    tab.status("saved")
    prompt = tab.ask("app.doc.prompt")
    tab.keys("v")
    expect(tab.page.locator("#gallery-pictures button")).to_have_count(8)
    assert names(tab)[:3] == ["1 bad joint:local", "2 good", "3 open"]
    tab.until("[...document.querySelectorAll('#gallery-pictures img')].every(({ naturalWidth }) => naturalWidth)")
    expect(tab.page.locator("#gallery-days li")).to_have_count(1)
    filters = tab.page.locator("#gallery-filters")
    for name, value, found in (
        ("State", "open", 6),
        ("State", "draft", 1),
        ("Verdict", "bad", 1),
        ("Verdict", "good", 1),
        ("Fault", "joint", 1),
    ):
        filters.get_by_label(name).select_option(value)
        expect(tab.page.locator("#gallery-pictures button")).to_have_count(found)
        filters.get_by_label(name).select_option("")
    filters.get_by_label("Search").fill(" ".join(reversed(prompt.split())))
    expect(tab.page.locator("#gallery-pictures button:has-text('2 good')")).to_have_count(1)
    filters.get_by_label("Search").fill("no such words")
    expect(tab.page.locator("#gallery-pictures button")).to_have_count(0)
    filters.get_by_label("Search").fill("")
    tab.page.click("#gallery-pictures button:nth-child(5)")
    tab.picture(5)
    expect(tab.page.locator("#gallery")).to_be_hidden()


def test_others_are_told_in_a_review_only(browser: Browser, desk: Desk, server: Server) -> None:
    for name, key in (("gallery a", "2"), ("gallery b", "3")):
        other = Desk(browser, server, name)
        tab = other.tab()
        tab.keys(key)
        tab.drag((10, 10), (30, 30))
        tab.keys("Enter")
        tab.picture(2)
        tab.status("saved")
        other.close()
    tab = desk.tab()
    tab.keys("v")
    tab.page.wait_for_selector("#gallery[open]")
    assert not [name for name in names(tab) if "gallery" in name]
    expect(tab.page.locator("#gallery-filters").get_by_label("Annotator")).to_be_hidden()
    tab.keys("Escape")
    tab.page.click("[data-mode=review]")
    tab.page.wait_for_selector("#others .other")
    tab.keys("v")
    tab.page.wait_for_selector("#gallery[open]")
    assert any("gallery a: good; gallery b: bad" in name for name in names(tab))
    filters = tab.page.locator("#gallery-filters")
    filters.get_by_label("Annotator").select_option("gallery a")
    filters.get_by_label("Verdict").select_option("bad")
    expect(tab.page.locator("#gallery-pictures button")).to_have_count(0)
    filters.get_by_label("Verdict").select_option("")
    filters.get_by_label("Others").select_option("disputed")
    expect(tab.page.locator("#gallery-pictures button")).to_have_count(1)
    tab.page.click("#gallery-pictures button")
    tab.picture(1)
