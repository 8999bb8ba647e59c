"""What annotators are told before they begin: at the first start, and one key away."""

import pytest
from labeling_browser import Desk, Server
from playwright.sync_api import Browser, expect


@pytest.mark.parametrize("mode", ["paint", "rate"])
def test_the_guide_is_shown_once_and_is_one_key_away(browser: Browser, server: Server, mode: str) -> None:
    desk = Desk(browser, server, f"guide {mode}", guide=True)
    tab = desk.tab()
    page, told = tab.page, tab.page.locator("#help")
    expect(told).to_be_visible()
    assert "no analysis reads it" in told.inner_text() and "The hand ends at the wrist" in told.inner_text()
    images = page.locator("#meanings img")
    expect(images).to_have_count(6)
    tab.until("[...document.querySelectorAll('#meanings img')].every(({ naturalWidth }) => naturalWidth)")
    tab.keys("Escape")
    expect(told).to_be_hidden()
    page.reload()
    tab.picture(1)
    expect(told).to_be_hidden()
    page.click(f"[data-mode={mode}]")
    tab.picture(1)
    tab.keys("?")
    expect(told).to_be_visible()
    expect(page.locator("#meanings")).to_be_visible(visible=mode == "paint")
    assert ("Rate each picture as a whole" in told.inner_text()) == (mode == "rate")
    desk.close()


def test_a_letter_can_be_put_in_the_place_of_another(browser: Browser, server: Server) -> None:
    """What was on the letter takes the other's place; hints say so; the choice survives a reload and can be undone."""
    desk = Desk(browser, server, "own keys")
    tab = desk.tab()
    page = tab.page
    brush, eraser = page.locator("[data-tool=brush]"), page.locator("[data-tool=eraser]")

    def chosen() -> str | None:
        return page.locator("[data-tool][aria-pressed=true]").get_attribute("data-tool")

    tab.keys("e", "?")
    page.locator("#keys [data-usual=b]").click()
    page.keyboard.press("e")
    expect(page.locator("#keys [data-usual=b]")).to_have_text("E")
    expect(page.locator("#keys [data-usual=e]")).to_have_text("B")
    tab.keys("Escape")
    expect(page.locator("#help")).to_be_hidden()
    expect(brush.locator("kbd")).to_have_text("E")
    expect(eraser.locator("kbd")).to_have_text("B")
    tab.keys("e")
    assert chosen() == "brush"
    tab.keys("b")
    assert chosen() == "eraser"
    page.reload()
    tab.picture(1)
    tab.keys("e")
    assert chosen() == "brush"
    tab.keys("?")
    page.click("#keys-usual")
    tab.keys("Escape", "e")
    assert chosen() == "eraser"
    desk.close()


def test_a_letter_that_was_moved_away_does_nothing(browser: Browser, server: Server) -> None:
    desk = Desk(browser, server, "moved away")
    tab = desk.tab()
    tab.keys("e", "?")
    tab.page.locator("#keys [data-usual=b]").click()
    tab.page.keyboard.press("Escape")  # leaves it as it is
    expect(tab.page.locator("#help")).to_be_visible()
    tab.page.locator("#keys [data-usual=b]").click()
    tab.page.keyboard.press("w")
    tab.keys("Escape", "b")
    assert tab.page.locator("[data-tool][aria-pressed=true]").get_attribute("data-tool") == "eraser"
    tab.keys("w")
    assert tab.page.locator("[data-tool][aria-pressed=true]").get_attribute("data-tool") == "brush"
    desk.close()
