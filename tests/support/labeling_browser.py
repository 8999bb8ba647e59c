"""A labelling server from the command line and a real Chromium before it, for tests and measurements of the page."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from handscope.labeling.database.labels import Annotation, Labels
from handscope.run.folder import Run
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

PATIENCE = 60_000
"""Milliseconds to wait for what will come: only a machine that is busy with something else needs many of them."""
expect.set_options(timeout=PATIENCE)
SIDE = 64
"""Tokens along a side of the pictures."""
OFFLINE = "Failed to load resource: net::ERR_"
GUIDED = """Object.defineProperty(Storage.prototype, "getItem", {
  value: ((real) => function (key) { return key.endsWith(" guided") ? "yes" : real.call(this, key); })(
    Storage.prototype.getItem),
});"""
"""So that the guide does not open at the start."""
KEPT = "app.painter.stroke && app.saver.drafting === null"
"""That all of the stroke under way is in the journal."""


def chromium_path() -> str:
    """Where the Chromium of this machine is."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    assert path, (
        f"Expected a browser to test the labelling page with, found none of {', '.join(names)}: install one, on Debian "
        "with `apt-get install chromium`."
    )
    return path


@contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        yield browser
        browser.close()


class Server:
    """``handscope label RUN`` as a process of its own, on the port that it chose when it was first started."""

    def __init__(self, run: Run, port: int = 0) -> None:
        self.run, self.port = run, port
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "handscope", "label", self.run.path, "--no-open", "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/\S*token=\S+", line):
                self.url, self.port = found[0], int(found[1])
                break
        else:
            raise AssertionError(f"Expected an address from {command}, found {said!r}.")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def kill(self) -> None:
        """As when the power fails."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)


class Desk:
    """One annotator's browser: tabs of the page, and a record of whatever should not have happened."""

    def __init__(self, browser: Browser, server: Server, name: str, guide: bool = False, **settings: object) -> None:
        self.server, self.name = server, name
        self.context: BrowserContext = browser.new_context(**({"viewport": {"width": 1400, "height": 900}} | settings))
        self.context.set_default_timeout(PATIENCE)
        if not guide:
            self.context.add_init_script(GUIDED)
        self.errors: list[str] = []
        self.expected = "^$"
        self.requests: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.context.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def tab(self, named: bool = True) -> "Tab":
        """A tab in which the first picture is shown, under the annotator's name."""
        page = self.context.new_page()
        tab = Tab(page, self)
        page.goto(self.server.url)
        if named:
            page.wait_for_selector("#name[open], #who:not(:empty)")
            if page.is_visible("#name"):
                page.fill("#annotator", self.name)
                page.press("#annotator", "Enter")
            tab.until("app.doc && app.isSeen")
        return tab

    def take(self, name: str) -> None:
        """Have somebody choose a name in this browser, outside its tabs."""
        at = f"http://127.0.0.1:{self.server.port}"
        answer = self.context.request.post(f"{at}/api/annotator", data={"name": name}, headers={"origin": at})
        assert answer.ok, answer.text()

    def newest(self, sample: str) -> Annotation | None:
        """What the file of labels holds of the annotator, done or not."""
        return Labels(self.server.run.labels_path).newest(sample, self.name)

    def history(self, sample: str) -> list[Annotation]:
        return Labels(self.server.run.labels_path).history(sample, self.name)

    def close(self) -> None:
        """Close, and check that only what matches `expected` went wrong, and that no request left the machine."""
        self.context.close()
        assert [error for error in self.errors if not re.search(self.expected, error)] == []
        own = f"http://127.0.0.1:{self.server.port}/"
        assert [url for url in self.requests if not url.startswith(own)] == [] and self.requests


class Tab:
    """A tab of the page, and what a hand and an eye can do with it."""

    def __init__(self, page: Page, desk: Desk) -> None:
        self.page, self.desk = page, desk

    def ask(self, expression: str):
        """The value of an expression in which `app` is the page's application."""
        return self.page.evaluate(f"import('/page/app.js').then(({{ app }}) => ({expression}))")

    def until(self, expression: str) -> None:
        """Wait until an expression in which `app` is the page's application holds."""
        self.ask(f"""new Promise((resolve, reject) => {{
          const last = performance.now() + {PATIENCE};
          const look = () => {{
            if ({expression}) resolve(true);
            else if (performance.now() > last) reject(new Error({json.dumps("It never came to " + expression)}));
            else setTimeout(look, 20);
          }};
          look();
        }})""")

    def drawn(self) -> bytes:
        """What is seen on the canvas, once it shows how things stand."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.page.locator("#canvas").screenshot()

    @property
    def sample(self) -> str:
        return self.ask("app.doc.sample")

    def ahead(self) -> None:
        """Wait until the page has what it fetches ahead of the first picture."""
        self.ask("Promise.all(app.items.slice(0, 3).map(({ sample }) => app.samples.open(sample))).then(() => true)")

    def grids(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels and hands as the page has them now."""
        rows, columns, labels, hands = self.ask(
            "[app.doc.rows, app.doc.columns, [...app.state.labels], [...app.state.instances]]"
        )
        return tuple(np.array(grid).reshape(rows, columns) for grid in (labels, hands))

    def grids_now(self) -> set[tuple[int, int]]:
        """The cells of a hand that are painted at this moment, those of an unfinished stroke among them."""
        columns, labels = self.ask("[app.doc.columns, [...app.painter.state.labels]]")
        return {divmod(cell, columns) for cell, label in enumerate(labels) if label > 1}

    def stored(self, label: int) -> set[tuple[int, int]]:
        """The cells of a label in the file of labels, once all is saved."""
        self.status("saved")
        return cells(self.desk.newest(self.sample).labels == label)

    def place(self, row: float, column: float) -> tuple[float, float]:
        """Where the middle of a cell is on the screen while the whole picture is shown: largest, and in the middle."""
        box = self.page.locator("#canvas").bounding_box()
        rows, columns = self.ask("[app.doc.rows, app.doc.columns]")
        side = min(box["width"] / columns, box["height"] / rows)
        left = box["x"] + (box["width"] - columns * side) / 2
        top = box["y"] + (box["height"] - rows * side) / 2
        return left + (column + 0.5) * side, top + (row + 0.5) * side

    def down(self, row: float, column: float) -> None:
        self.page.mouse.move(*self.place(row, column))
        self.page.mouse.down()

    def move(self, row: float, column: float) -> None:
        self.page.mouse.move(*self.place(row, column), steps=5)

    def drag(self, start: tuple[float, float], *stops: tuple[float, float]) -> None:
        """One stroke over the middles of cells."""
        self.down(*start)
        for stop in stops:
            self.move(*stop)
        self.page.mouse.up()

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def status(self, name: str) -> None:
        """Wait until the page says that it is saved, offline, …"""
        self.page.wait_for_selector(f"#status[data-state={name}]")

    def picture(self, number: int) -> None:
        """Wait until a picture is shown, counted from 1; its number alone can be what a reload found in the field."""
        self.until(f"app.doc && app.index === {number - 1} && app.isSeen")
        expect(self.page.locator("#number")).to_have_value(str(number))


def disc(row: int, column: int, size: int) -> set[tuple[int, int]]:
    """The cells of a round brush over the middle of a cell."""
    reach = range(-size, size + 1)
    middle = 0.5 if size % 2 == 0 else 0  # an even brush stands on a corner: that below and to the right of the middle
    corner = 1 if size % 2 == 0 else 0
    return {
        (row + corner + y, column + corner + x)
        for y in reach
        for x in reach
        if (y + middle) ** 2 + (x + middle) ** 2 <= (size / 2) ** 2
    }


def cells(grid: np.ndarray) -> set[tuple[int, int]]:
    return {(int(row), int(column)) for row, column in np.argwhere(grid)}


def box(top: int, left: int, bottom: int, right: int) -> set[tuple[int, int]]:
    return {(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)}
