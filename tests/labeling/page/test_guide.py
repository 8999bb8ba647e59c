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
