"""What the page calls kept is there again when the whole browser was killed, in Chromium and in Firefox."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from firefox import Window, first_picture
from handscope.labeling.database.labels import Labels
from labeling_browser import GUIDED, SIDE, Server, Tab, chromium_path
from made_runs import make_run
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.browser
Opened = tuple[Tab, Callable[[], None]]
"""A tab at the first picture, and what kills its browser."""


@contextmanager
def in_firefox(profile: Path, server: Server) -> Iterator[Opened]:
    window = Window(profile)
    try:
        yield first_picture(window, server, "anna"), window.kill
    finally:
        window.close()


@contextmanager
def in_chromium(profile: Path, server: Server) -> Iterator[Opened]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium_path(), args=["--no-sandbox"], viewport={"width": 1400, "height": 900}
        )
        context.add_init_script(GUIDED)
        page = context.pages[0]
        page.goto(server.url)
        page.wait_for_selector("#name[open], #who:not(:empty)")
        if page.is_visible("#name"):
            page.fill("#annotator", "anna")
            page.press("#annotator", "Enter")
        tab = Tab(page, None)
        tab.until("app.doc && app.isSeen")
        yield tab, lambda: os.kill(_browser_of(profile), signal.SIGKILL)


def _browser_of(profile: Path) -> int:
    """The process of the Chromium of a profile that is not one of its helpers."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        said = command.read_bytes() if command.exists() else b""
        if f"--user-data-dir={profile}".encode() in said and b"--type=" not in said:
            return int(command.parent.name)
    raise AssertionError(f"Expected a Chromium of {profile}, found none.")


@pytest.mark.parametrize("opened", [in_chromium, in_firefox])
def test_what_was_kept_comes_back_to_the_next_browser(opened, tmp_path: Path) -> None:
    server = Server(make_run(tmp_path / "run", 3, side=8 * SIDE))
    profile = tmp_path / "profile"
    with opened(profile, server) as (tab, kill):
        sample = tab.sample
        server.kill()
        for row in range(2, 14):
            tab.drag((row, 2), (row, 12))
        kept = tab.ask("app.saver.entries.filter(({ uid }) => !app.saver.keeping.has(uid)).map((entry) => entry.at)")
        kill()
    server.start()
    with opened(profile, server) as (tab, _):
        tab.status("saved")
        painted, _ = tab.grids()
        history = Labels(server.run.labels_path).history(sample, "anna")
        assert len(history) >= len(kept) > 0
        assert (history[0].labels == painted).all() or (history[-1].labels == painted).all()
        assert (painted == 2).sum() >= 11 * len(kept)
    server.stop()


def test_firefox_paints_saves_and_goes_on_after_the_server_was_away(tmp_path: Path) -> None:
    server = Server(make_run(tmp_path / "run", 3, side=8 * SIDE))
    with in_firefox(tmp_path / "profile", server) as (tab, _):
        tab.drag((5, 5), (5, 12))
        tab.status("saved")
        labels = Labels(server.run.labels_path)
        first = labels.newest(tab.sample, "anna").labels
        assert (first == tab.grids()[0]).all() and (first == 2).any()
        server.kill()
        tab.drag((9, 5), (9, 12))
        tab.status("offline")
        server.start()
        tab.status("locked")
        tab = first_picture(tab.page, server, "anna")
        tab.status("saved")
        second = labels.newest(tab.sample, "anna").labels
        assert (second == tab.grids()[0]).all() and (second == 2).sum() > (first == 2).sum()
    server.stop()
