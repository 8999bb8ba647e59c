"""A real Firefox before the labelling page, driven by WebDriver BiDi, the protocol that Firefox itself speaks.

Playwright drives a Firefox of its own making only, which is not what annotators have.
"""

import json
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from labeling_browser import GUIDED, PATIENCE, Server, Tab
from websocket import create_connection

ADDRESS = "WebDriver BiDi listening on "


class Window:
    """The window of a Firefox, with as much of Playwright's `Page` as a `Tab` asks for.

    The profile lies in a folder, so that the next Firefox finds what this one kept.
    """

    def __init__(self, profile: Path) -> None:
        path = shutil.which("firefox-esr") or shutil.which("firefox")
        if path is None:
            pytest.skip("There is no Firefox here: on Debian, `apt-get install firefox-esr`.")
        profile.mkdir(exist_ok=True)
        command = [path, "--headless", "--no-remote", "--remote-debugging-port", "0", "--profile", str(profile)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        address = next(line.split(ADDRESS)[1].strip() for line in self.process.stderr if ADDRESS in line)
        threading.Thread(target=self.process.stderr.read, daemon=True).start()  # or it fills, and Firefox waits
        self.socket = create_connection(f"{address}/session", timeout=PATIENCE / 1000, suppress_origin=True)
        self.asked = 0
        self.mouse = self
        self.at = (0, 0)
        self._do("session.new", capabilities={})
        self._do("script.addPreloadScript", functionDeclaration=f"() => {{ {GUIDED} }}")
        self.context = self._do("browsingContext.getTree")["contexts"][0]["context"]
        self._do("browsingContext.setViewport", context=self.context, viewport={"width": 1400, "height": 900})

    def goto(self, url: str) -> None:
        self._do("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of the page, once it is there."""
        wrapped = f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))"
        target = {"context": self.context}
        answer = self._do("script.evaluate", expression=wrapped, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    def wait_for_selector(self, selector: str) -> None:
        found = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"""new Promise((done) => {{
          const look = () => ({found} ? done() : setTimeout(look, 20));
          look();
        }})""")

    def locator(self, selector: str) -> "Box":
        return Box(self, selector)

    def move(self, x: float, y: float, steps: int = 1) -> None:
        (left, top), self.at = self.at, (x, y)
        parts = [(left + (x - left) * i / steps, top + (y - top) * i / steps) for i in range(1, steps + 1)]
        self._point([{"type": "pointerMove", "x": round(x), "y": round(y)} for x, y in parts])

    def down(self) -> None:
        self._point([{"type": "pointerDown", "button": 0}])

    def up(self) -> None:
        self._point([{"type": "pointerUp", "button": 0}])

    def kill(self) -> None:
        """As when the power fails."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)

    def _point(self, actions: list[dict[str, Any]]) -> None:
        mouse = {"type": "pointer", "id": "mouse", "actions": actions}
        self._do("input.performActions", context=self.context, actions=[mouse])

    def _do(self, method: str, **parameters: Any) -> Any:
        self.asked += 1
        self.socket.send(json.dumps({"id": self.asked, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.asked:
            pass  # something that happened, which nobody asked for
        assert answer["type"] == "success", (method, answer)
        return answer["result"]


class Box:
    """Where an element of the page is."""

    def __init__(self, window: Window, selector: str) -> None:
        self.window, self.selector = window, selector

    def bounding_box(self) -> dict[str, float]:
        return self.window.evaluate(f"document.querySelector({json.dumps(self.selector)}).getBoundingClientRect()")


def first_picture(window: Window, server: Server, name: str) -> Tab:
    """The first picture of a run, opened under an annotator's name."""
    window.goto(server.url)
    window.wait_for_selector("#name[open], #who:not(:empty)")
    if window.evaluate("document.querySelector('#name').open"):
        window.evaluate(f"document.querySelector('#annotator').value = {json.dumps(name)}")
        window.evaluate("document.querySelector('#name-form').requestSubmit()")
    tab = Tab(window, None)
    tab.until("app.doc && app.isSeen")
    return tab
