"""A Chromium before a labelling server, for the tests of the page."""

import re
from collections.abc import Iterator

import pytest
from labeling_browser import SIDE, Desk, Server, Tab, chromium
from made_runs import make_run
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a file of tests; not for all, since Playwright's loop forbids other tests one of their own."""
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
    """Its first tab."""
    return desk.tab()
