"""Four annotators at once, over real connections: nothing is lost, and nobody writes over another."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from handscope.labeling.database.labels import Labels
from made_runs import annotating, cells, make_run, serving

pytestmark = pytest.mark.process

NAMES = ("Ann", "Bob", "Cho", "Dee")
STROKES = 40


def test_four_annotators_lose_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 4)
    together = threading.Barrier(4)

    def paint(name: str) -> dict[str, list[tuple[int, bytes]]]:
        """Strokes on every sample in turn, each at once after the other: what was acknowledged, with its cells."""
        random, kept = np.random.default_rng(NAMES.index(name)), {}
        with annotating(address, name) as annotator:
            samples = [annotator.sample(item["sample"]) for item in annotator.queue()]
            together.wait()
            for i in range(STROKES):
                sample = samples[i % len(samples)]
                painted = random.integers(0, 4, (12, 12)).astype(np.uint8)
                body = {"verdict": "bad", "done": True} if i % 3 == 0 else {}
                if body:
                    painted[painted == 2] = 3  # a finished hand is good or bad, and not both
                answer = annotator.stroke(sample, painted, uid=f"{name}-stroke-{i}", **body)
                assert answer.status_code == 201, answer.text
                sample["revision"] = answer.json()["revision"]
                kept.setdefault(sample["sample"], []).append((sample["revision"], painted.tobytes()))
        return kept

    with serving(run) as address, ThreadPoolExecutor(4) as pool:
        painted = dict(zip(NAMES, pool.map(paint, NAMES)))
    labels = Labels(run.labels_path)
    for name, kept in painted.items():
        for sample, strokes in kept.items():
            history = reversed(labels.history(sample, name))
            assert [(state.revision, state.labels.tobytes()) for state in history] == strokes
    assert labels.last_revision() == 4 * STROKES == sum(len(s) for kept in painted.values() for s in kept.values())


def test_two_tabs_of_one_annotator_never_write_over_each_other(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 1)
    name = next(iter(run.metadata()))

    def paint(tab: int) -> list[int]:
        """A conflict is answered by looking at what is there, and painting on that."""
        revisions = []
        with annotating(address, "Ann") as ann:
            sample = ann.sample(name)
            while len(revisions) < 15:
                answer = ann.stroke(sample, cells(sample, 1 + tab))
                if answer.status_code == 409:
                    sample = answer.json()["current"]
                else:
                    sample["revision"] = answer.json()["revision"]
                    revisions.append(sample["revision"])
        return revisions

    with serving(run) as address, ThreadPoolExecutor(2) as pool:
        one, two = pool.map(paint, range(2))
    assert sorted(one + two) == list(range(1, 31))


    with sqlite3.connect(run.labels_path) as database:
        bases = [base for (base,) in database.execute("SELECT base FROM annotations ORDER BY id")]
    database.close()
    assert bases == [None, *range(1, 30)], "each was made on the one before it"
