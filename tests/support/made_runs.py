"""Runs of plain pictures that no model drew, and a labelling server on one, for tests of labelling."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from handscope.labeling.order import make_order
from handscope.labeling.server.server import Place, listen, make_server
from handscope.labeling.server.session import Session
from handscope.labeling.suggestions.suggest import suggestions
from handscope.run.folder import COLUMNS, Run, sample_id
from PIL import Image

TOKEN = "the-token-of-these-tests"


def make_run(folder: Path, n: int = 6, prompts: int = 2, side: int = 96) -> Run:
    """A run of `n` pictures of noise, in tokens of 8 pixels, as if the organism had drawn them."""
    run, rows = Run(folder), {}
    run.samples_dir.mkdir(exist_ok=True)
    run.write_settings({"provenance": {"name": "organism"}})
    for i in range(n):
        prompt, seed = f"a hand, number {i % prompts}", i // prompts
        sample = sample_id(prompt, seed)
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(run.image_path(sample), compress_level=1)
        known = {
            "sample": sample,
            "prompt": prompt,
            "seed": seed,
            "file_name": f"{sample}.png",
            "image_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
            "noise_sha256": "0",
            "height": side,
            "width": side,
        }
        rows[sample] = {column: known.get(column, 1) for column in COLUMNS}
    run.write_metadata(rows)
    return run


@contextmanager
def serving(
    run: Run, annotators: tuple[str, ...] = (), host: str = "127.0.0.1", suggest: Any = suggestions
) -> Iterator[str]:
    """The address of a labelling server in a thread of this process, on a free port of loopback."""
    session = Session(run, make_order(run, "random", 0, 0.1, annotators), annotators, suggest)
    listener = listen("127.0.0.1", 0)
    place = Place(host, listener.getsockname()[1], TOKEN)
    ready = threading.Event()
    server = make_server(session, place, lambda _: ready.set())
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    with session.labels.kept_open():
        thread.start()
        assert ready.wait(30)
        try:
            yield f"http://127.0.0.1:{place.port}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def annotating(address: str, name: str, token: str = TOKEN) -> Iterator["Annotator"]:
    """An annotator's browser, without the page."""
    with httpx.Client(base_url=address, timeout=30) as client:
        assert client.get("/", params={"token": token}).status_code == 303
        assert client.post("/api/annotator", json={"name": name}).status_code == 200
        yield Annotator(client, name)


class Annotator:
    """Asks as the page does."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self.client, self.name, self.writes = client, name, 0

    def get(self, path: str, **query: str) -> httpx.Response:
        return self.client.get(f"/api/{path}", params=query)

    def queue(self, mode: str = "paint") -> list[dict]:
        return self.get("queue", mode=mode).json()["items"]

    def sample(self, sample: str, mode: str = "paint") -> dict:
        response = self.get(f"samples/{sample}", mode=mode)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: dict, mode: str = "paint") -> httpx.Response:
        """A write with a uid of its own, unless the body has one."""
        self.writes += 1
        common = {"uid": f"{id(self):x}-{time.monotonic_ns():x}-{self.writes}", "annotator": self.name}
        content, headers = json.dumps(common | body), {"content-type": "application/json"}
        return self.client.post(f"/api/{path}", params={"mode": mode}, content=content, headers=headers)

    def stroke(self, sample: dict, cells: np.ndarray, mode: str = "paint", **more: object) -> httpx.Response:
        """Paint cells of one hand, 0 to 3, on a sample as it was got; a draft without verdict, unless it is said."""
        body = {
            "image_sha256": sample["image_sha256"],
            "base": sample["revision"],
            "labels": encoded(cells),
            "instances": encoded(cells >= 2),
            "faults": {},
            "verdict": None,
            "done": False,
            "seconds": 2.5,
        }
        return self.post(f"samples/{sample['sample']}/strokes", body | more, mode)


def encoded(grid: np.ndarray) -> str:
    """A grid as the page sends it."""
    return base64.b64encode(grid.astype(np.uint8).tobytes()).decode()


def cells(sample: dict, label: int) -> np.ndarray:
    """A grid of one label."""
    return np.full((sample["rows"], sample["columns"]), label, np.uint8)
