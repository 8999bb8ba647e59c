"""Labels: append-only, newest wins, nothing that contradicts itself, and nothing that was acknowledged is lost."""

import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.errors import HandscopeError
from handscope.labeling.database.label_file import Unusable, pack, unpack
from handscope.labeling.database.labels import Annotation, Conflict, Labels
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from hypothesis.strategies import integers

HAND = np.array([[0, 1, 1], [0, 1, 0]], np.uint8)


def annotation(sample: str, verdict: str, label: int = 2, **more: object) -> Annotation:
    return Annotation(sample, "ab" * 32, np.where(HAND > 0, label, 1), HAND, verdict, **more)  # type: ignore[arg-type]


def test_what_is_added_comes_back(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels.sqlite")
    labels.add([annotation("a-00001", "bad?", 3, kinds=("count", "fused"), author="judge", source="auto", score=0.75)])
    found = Labels(tmp_path / "labels.sqlite").current()["a-00001"]
    assert np.array_equal(found.labels, np.where(HAND > 0, 3, 1)) and np.array_equal(found.instances, HAND)
    assert (found.image_sha256, found.verdict, found.kinds, found.author, found.source, found.score) == (
        "ab" * 32,
        "bad?",
        ("count", "fused"),
        "judge",
        "auto",
        0.75,
    )


def test_the_newest_wins_and_the_old_stays(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels.sqlite")
    labels.add([annotation("b", "good"), annotation("a", "good")])
    labels.add([annotation("b", "bad", 3)])
    assert {sample: current.verdict for sample, current in labels.current().items()} == {"a": "good", "b": "bad"}
    with sqlite3.connect(labels.path) as database:
        assert database.execute("SELECT count(*) FROM annotations").fetchone() == (3,)
        for change in ("DELETE FROM annotations", "UPDATE annotations SET verdict = 'good'"):
            with pytest.raises(sqlite3.IntegrityError, match="only appended"):
                database.execute(change)
    database.close()


def test_the_table_says_what_is_sure_and_what_is_bad(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels.sqlite")
    labels.add(
        [
            annotation(verdict, verdict, 0 if verdict == "unsure" else 2)
            for verdict in ("good", "good?", "bad?", "bad", "unsure")
        ]
    )
    table = labels.table().set_index("sample")
    assert table["sure"].to_dict() == {"good": True, "good?": False, "bad?": False, "bad": True, "unsure": False}
    assert table.loc[["good", "good?", "bad?", "bad"], "bad"].tolist() == [0, 0, 1, 1]
    assert pd.isna(table.loc["unsure", "bad"])


def test_no_labels_are_an_empty_table_and_no_file(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels.sqlite")
    assert labels.current() == {} and labels.table().empty and not labels.path.exists()


BIRD = "subject: {name: bird, noun: bird, plural: birds, kinds: {wing: {scope: global}}}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "fine"}, "verdict"),
        ({"kinds": ("Fused fingers",)}, "Fused fingers"),
        ({"kinds": ("fused:everywhere",)}, "fused:everywhere"),
        ({"kinds": ("fused:",)}, "with :local or :global behind, found fused:"),
        ({"instances": np.zeros((2, 3))}, "contradict"),
        ({"labels": np.ones((2, 3))}, "contradict"),
        ({"labels": np.zeros((3, 2))}, "one token grid"),
        ({"labels": np.full((2, 3), 4)}, "0, 1, 2 or 3"),
        ({"labels": np.full((2, 3), -1)}, "0, 1, 2 or 3"),
    ],
)
def test_contradictions_are_refused(change: dict, message: str) -> None:
    grids = {"labels": np.where(HAND > 0, 2, 1), "instances": HAND}
    fields = {"sample": "a", "image_sha256": "", **grids, "verdict": "good"}
    with pytest.raises(HandscopeError, match=message):
        Annotation(**{**fields, **change})


def test_kinds_that_the_subject_has_are_stored_and_no_others(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels.sqlite")
    labels.add([annotation("a", "bad", 3, kinds=("fused:global", "joint"))])
    with pytest.raises(HandscopeError, match=r"kinds of b .*count, joint.* found toes, wing:local"):
        labels.add([annotation("c", "good"), annotation("b", "bad", 3, kinds=("wing:local", "toes"))])
    with pytest.raises(HandscopeError, match="found toes"):
        labels.append(annotation("b", "bad", 3, kinds=("toes",)), None, "one")
    assert labels.table()["kinds"].tolist() == [("fused:global", "joint")]
    (tmp_path / "run.yaml").write_text(BIRD)
    with pytest.raises(HandscopeError, match="subject bird has, .* found fused"):
        labels.add([annotation("b", "bad", 3, kinds=("fused",))])
    labels.add([annotation("b", "bad", 3, kinds=("wing:local",))])
    assert labels.table()["kinds"].tolist() == [("fused:global", "joint"), ("wing:local",)]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(HandscopeError, match=r"labels\.sqlite is not a database"):
        Labels(path).current()

OLD = """
PRAGMA journal_mode = WAL;
CREATE TABLE annotations (
    id INTEGER PRIMARY KEY, made TEXT DEFAULT CURRENT_TIMESTAMP, sample TEXT NOT NULL, image_sha256 TEXT NOT NULL,
    height INTEGER NOT NULL, width INTEGER NOT NULL, labels BLOB NOT NULL, hands BLOB NOT NULL,
    verdict TEXT NOT NULL, kinds TEXT NOT NULL, author TEXT NOT NULL, source TEXT NOT NULL, score REAL);
CREATE INDEX by_sample ON annotations (sample, id);
CREATE TRIGGER no_update BEFORE UPDATE ON annotations
    BEGIN SELECT RAISE(ABORT, 'annotations are only appended'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON annotations
    BEGIN SELECT RAISE(ABORT, 'annotations are only appended'); END;
"""
"""What handscope 0.2.0 wrote."""


@pytest.fixture
def labels(tmp_path: Path) -> Labels:
    return Labels(tmp_path / "labels.sqlite")


def test_a_file_of_the_first_version_is_read_and_written_on(labels: Labels) -> None:
    old = [annotation("a", "good"), annotation("b", "bad", 3, kinds=("fused",), author="x", source="hand", score=0.5)]
    with sqlite3.connect(labels.path) as database:
        database.executescript(OLD)
        database.executemany(
            "INSERT INTO annotations (sample, image_sha256, height, width, labels, hands, verdict, kinds, author, "
            "source, score) VALUES (?, ?, 2, 3, ?, ?, ?, ?, ?, ?, ?)",
            [
                (a.sample, a.image_sha256, a.labels.tobytes(), a.instances.tobytes(), a.verdict, json.dumps(a.kinds))
                + (a.author, a.source, a.score)
                for a in old
            ],
        )
    database.close()
    current = labels.current()
    for a in old:
        found = current[a.sample]
        assert np.array_equal(found.labels, a.labels) and np.array_equal(found.instances, a.instances)
        for name in ("verdict", "kinds", "author", "source", "score", "done", "faults", "seconds"):
            assert getattr(found, name) == getattr(a, name), name
    assert labels.append(annotation("b", "good", author="x", source="hand"), current["b"].revision, "one") == 3
    assert labels.current()["b"].verdict == "good" and labels.by_author()["a", ""].verdict == "good"


def test_a_file_of_the_second_version_is_brought_up_to_date(labels: Labels) -> None:
    first = labels.append(annotation("a", "bad", 3, author="x", source="hand"), None, "one")
    labels.rate("a", "0" * 64, "ann", 0.5, None, "rated")
    with sqlite3.connect(labels.path) as database:
        database.execute("ALTER TABLE annotations RENAME COLUMN instances TO hands")
        database.execute("ALTER TABLE ratings DROP COLUMN withdrawn")
        database.execute("PRAGMA user_version = 2")
    database.close()
    assert labels.rated("ann") == {"a": ("0" * 64, 0.5)}
    labels.rate("a", "0" * 64, "ann", 0.5, None, "taken back", withdrawn=True)
    assert labels.rated("ann") == {} and labels.ratings().empty
    assert np.array_equal(labels.current()["a"].instances, HAND)
    assert labels.append(annotation("a", "good", author="x", source="hand"), first, "two") == 2
    with sqlite3.connect(labels.path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (4,)
        for change in ("DELETE FROM annotations", "UPDATE annotations SET instances = x''"):
            with pytest.raises(sqlite3.IntegrityError, match="only appended"):
                database.execute(change)
    database.close()


def test_a_file_of_a_newer_version_is_refused(labels: Labels) -> None:
    labels.add([annotation("a", "good")])
    with sqlite3.connect(labels.path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(HandscopeError, match="written by a newer handscope"):
        labels.current()


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=70), elements=integers(0, 3)))
def test_a_packed_grid_is_the_same_and_never_longer(grid: np.ndarray) -> None:
    blob = pack(grid)
    assert len(blob) <= grid.size and np.array_equal(unpack(blob, *grid.shape), grid)


def test_a_grid_that_does_not_fit_is_named(labels: Labels) -> None:
    labels.add([annotation("a", "good")])
    with sqlite3.connect(labels.path) as database:
        database.execute(
            "INSERT INTO annotations SELECT 7, made, 'b', image_sha256, 9, 9, labels, instances, verdict, kinds, "
            "author, source, score, done, faults, seconds, base, uid, review FROM annotations"
        )
    database.close()
    with pytest.raises(HandscopeError, match=r"Revision 7 of b in .*labels\.sqlite is damaged"):
        labels.current()


def test_a_draft_is_kept_and_counts_for_nothing(labels: Labels) -> None:
    finished = labels.append(annotation("a", "good", author="x"), None, "one")
    draft = labels.append(annotation("a", "", 3, author="x", done=False, seconds=3.0), finished, "two")
    labels.append(annotation("b", "unsure", 0, author="x", done=False), None, "three")
    assert set(labels.current()) == {"a"} and labels.current()["a"].revision == finished
    assert labels.table()["sample"].tolist() == ["a"] and set(labels.by_author()) == {("a", "x")}
    newest = labels.newest("a", "x")
    assert newest is not None
    assert (newest.revision, newest.done, newest.verdict, newest.seconds) == (draft, False, "", 3.0)
    assert labels.states("x") == [("x", "a", "ab" * 32, False, 3.0), ("x", "b", "ab" * 32, False, None)]
    assert labels.states() == labels.states("x") and labels.states("y") == []
    with pytest.raises(HandscopeError, match="verdict"):
        annotation("a", "", done=True)


def test_a_write_on_an_older_state_is_refused_and_shows_the_newest(labels: Labels) -> None:
    first = labels.append(annotation("a", "good", author="x"), None, "one")
    for base in (None, first + 1):
        with pytest.raises(Conflict, match=f"the newest is {first}") as refused:
            labels.append(annotation("a", "bad", 3, author="x"), base, "two")
        assert refused.value.current is not None and refused.value.current.verdict == "good"
    with pytest.raises(Conflict) as refused:
        labels.append(annotation("b", "good", author="x"), first, "two")
    assert refused.value.current is None
    assert labels.last_revision() == first
    labels.append(annotation("a", "bad", 3, author="y"), None, "two")  # another author's strand begins anew
    labels.append(annotation("a", "bad", 3, author="x", source="review"), None, "three")  # and so does a review
    assert labels.append(annotation("a", "bad", 3, author="x"), first, "four") == first + 3


def test_a_write_repeated_is_the_same_write(labels: Labels) -> None:
    first = labels.append(annotation("a", "good", author="x"), None, "one")
    second = labels.append(annotation("a", "bad", 3, author="x"), first, "two")
    assert labels.append(annotation("a", "good", author="x"), None, "one") == first
    assert (labels.written("one"), labels.written("two"), labels.written("three")) == (first, second, None)
    assert labels.last_revision() == second and labels.current()["a"].verdict == "bad"
    for other in (annotation("b", "good", author="x"), annotation("a", "good", author="y")):
        with pytest.raises(HandscopeError, match="needs a uid of its own"):
            labels.append(other, None, "one")


def test_a_review_outranks_what_was_painted_on_the_same_picture(labels: Labels) -> None:
    labels.add([annotation("a", "good", author="x"), annotation("a", "bad", 3, author="y")])
    labels.add([annotation("a", "good?", author="z", source="review"), annotation("a", "bad", 3, author="z")])
    assert labels.current()["a"].verdict == "good?"
    assert {author: a.verdict for (_, author), a in labels.by_author().items()} == {"x": "good", "y": "bad", "z": "bad"}
    assert labels.by_author("b") == {} and set(labels.by_author("a")) == set(labels.by_author())
    assert labels.reviewed() == {("a", "ab" * 32)}
    labels.add([annotation("a", "unsure", 0, author="w", source="review, imported from x.npz")])
    assert labels.current()["a"].verdict == "unsure"
    labels.add([annotation("a", "good", author="z", source="review", done=False)])
    assert labels.current()["a"].verdict == "unsure", "a draft of a review"
    labels.add([replace(annotation("a", "bad", 3, author="x"), image_sha256="cd" * 32)])
    assert labels.current()["a"].image_sha256 == "cd" * 32, "a review of another picture"


def test_every_earlier_state_can_be_brought_back(labels: Labels) -> None:
    faults = {2: ("fused:global",), 1: ("count", "joint")}
    first = labels.append(annotation("a", "bad", 3, author="x", faults=faults, seconds=1.5), None, "one")
    second = labels.append(annotation("a", "good", author="x"), first, "two")
    earlier = labels.revision(first)
    assert earlier is not None and labels.revision(99) is None
    third = labels.append(replace(earlier, made=None), second, "three")
    assert labels.append(replace(earlier, made=None), second, "three") == third > second
    history = labels.history("a")
    assert [state.revision for state in history] == [third, second, first]
    again = labels.current()["a"]
    assert (again.revision, again.verdict, again.faults, again.seconds) == (third, "bad", faults, 1.5)
    assert again.kinds == ("count", "joint", "fused:global") and (again.labels == history[2].labels).all()
    mine = labels.append(replace(earlier, author="y", made=None), None, "four")
    assert [state.revision for state in labels.history("a", "y")] == [mine] and len(labels.history("a")) == 4


def test_an_import_keeps_when_it_was_made_and_all_else_is_of_now(labels: Labels) -> None:
    labels.add([annotation("a", "good", made="2020-01-02 03:04:05"), annotation("b", "good")])
    assert labels.current()["a"].made == "2020-01-02 03:04:05" < str(labels.current()["b"].made)
    labels.append(annotation("a", "good", author="x"), None, "one")
    assert labels.current()["a"].made > "2026"  # type: ignore[operator]


@pytest.mark.parametrize(
    ("faults", "kinds", "message"),
    [({0: ("count",)}, (), "1 to 255"), ({1: ("Toes",)}, (), "Toes"), ({1: ("count",)}, ("joint",), "joint as well")],
)
def test_faults_belong_to_hands(faults: dict, kinds: tuple, message: str) -> None:
    with pytest.raises(HandscopeError, match=message):
        annotation("a", "bad", 3, faults=faults, kinds=kinds)


def test_ratings_and_orders_are_kept_as_they_came(labels: Labels) -> None:
    assert labels.ratings().empty and labels.orders().empty and labels.rated("x") == {} and not labels.path.exists()
    labels.rate("a", "ab" * 32, "x", 0.5, 2.0, "one")
    labels.rate("a", "ab" * 32, "x", 1, None, "two")
    assert labels.rate("a", "ab" * 32, "x", 0.5, 2.0, "one") == 1
    labels.rate("a", "ab" * 32, "y", 0, 3.0, "three")
    ratings = labels.ratings()
    assert list(zip(ratings["sample"], ratings["rater"], ratings["value"])) == [("a", "x", 1.0), ("a", "y", 0.0)]
    assert labels.rated("x") == {"a": ("ab" * 32, 1.0)} and labels.rated("z") == {}
    with pytest.raises(HandscopeError, match="0, 0.5 or 1, found 0.7"):
        labels.rate("a", "ab" * 32, "x", 0.7, None, "four")
    with pytest.raises(HandscopeError, match="uid of its own"):
        labels.rate("b", "ab" * 32, "x", 1, None, "one")
    first = labels.record_order("random", 0, ["b", "a"], {"double": 0.1})
    assert labels.record_order("random", 0, ("b", "a"), {"double": 0.1}) == first
    assert labels.record_order("random", 1, ["a", "b"], {"double": 0.1}) == first + 1
    assert labels.record_order("random", 0, ["b", "a"], {"double": 0.1}) == first + 2, "it was another one in between"
    orders = labels.orders()
    assert orders["samples"].tolist() == [["b", "a"], ["a", "b"], ["b", "a"]] and orders["seed"].tolist() == [0, 1, 0]
    with sqlite3.connect(labels.path) as database:
        for change in ("DELETE FROM ratings", "UPDATE ratings SET value = 1", "DELETE FROM orders"):
            with pytest.raises(sqlite3.IntegrityError, match="only appended"):
                database.execute(change)
    database.close()


def test_a_full_disk_is_said_and_what_was_there_stays(labels: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    first = labels.append(annotation("a", "good", author="x"), None, "one")
    connect = sqlite3.connect

    def full(*given: object, **named: object) -> sqlite3.Connection:
        database = connect(*given, **named)  # type: ignore[arg-type]
        database.execute(f"PRAGMA max_page_count = {database.execute('PRAGMA page_count').fetchone()[0]}")
        return database

    noise = np.random.default_rng(0).integers(0, 2, (200, 200)).astype(np.uint8)
    large = Annotation("a", "ab" * 32, noise + 1, noise, "good", author="x")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", full)
        with labels.kept_open():
            for _ in range(2):
                with pytest.raises(Unusable, match="disk is full"):
                    labels.append(large, first, "two")
                assert labels.last_revision() == first, "and it can still be read"
    assert labels.append(large, first, "two") == first + 1


@pytest.mark.parametrize("kept", [True, False])
def test_threads_that_write_at_once_lose_nothing(labels: Labels, kept: bool) -> None:
    def paint(author: str) -> list[int]:
        revisions: list[int] = []
        for i in range(20):
            base = revisions[-1] if revisions else None
            revisions.append(labels.append(annotation("a", "good", author=author), base, f"{author}-{i}"))
        return revisions

    with labels.kept_open() if kept else nullcontext(), ThreadPoolExecutor(4) as pool:
        written = list(pool.map(paint, "wxyz"))
    assert sorted(sum(written, [])) == list(range(1, 81)), "every write has a revision of its own"
    for author, revisions in zip("wxyz", written):
        assert [state.revision for state in labels.history("a", author)] == revisions[::-1]
    assert not labels.path.with_name("labels.sqlite-wal").exists(), "closed: all of it is in the file"


def test_of_two_writes_on_one_state_one_is_refused(labels: Labels) -> None:
    def write(i: int) -> int | None:
        try:
            return labels.append(annotation("a", "good", author="x"), None, f"write-{i}")
        except Conflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert sorted(map(str, pool.map(write, range(8)))) == ["1"] + ["None"] * 7


@pytest.mark.process
def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from handscope.labeling.database.labels import Annotation, Labels
labels, base = Labels(sys.argv[1]), None
with labels.kept_open():
    for i in range(100000):
        grid = np.full((64, 64), 1 + i % 2, np.uint8)
        base = labels.append(Annotation("a", "ab" * 32, grid, grid - 1, "good", author="x"), base, f"write-{i}")
        print(base, flush=True)
"""
    path = tmp_path / "labels.sqlite"
    writer = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(30)]
    writer.kill()
    acknowledged += [int(line) for line in writer.communicate()[0].splitlines()]
    history = Labels(path).history("a")
    found = [state.revision for state in reversed(history)]
    assert found[: len(acknowledged)] == acknowledged and len(found) <= len(acknowledged) + 1
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
