"""Labels: append-only, newest wins, and nothing that contradicts itself."""

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.errors import HandscopeError
from handscope.extract.labels import KINDS, SCOPE, Annotation, Labels, scopes

HAND = np.array([[0, 1, 1], [0, 1, 0]], np.uint8)


def annotation(sample: str, verdict: str, label: int = 2, **more: object) -> Annotation:
    return Annotation(sample, "ab" * 32, np.where(HAND > 0, label, 1), HAND, verdict, **more)  # type: ignore[arg-type]


def test_what_is_added_comes_back(tmp_path: Path) -> None:
    labels = Labels(tmp_path / "labels.sqlite")
    labels.add([annotation("a-00001", "bad?", 3, kinds=("count", "fused"), author="judge", source="auto", score=0.75)])
    found = Labels(tmp_path / "labels.sqlite").current()["a-00001"]
    assert np.array_equal(found.labels, np.where(HAND > 0, 3, 1)) and np.array_equal(found.hands, HAND)
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "fine"}, "verdict"),
        ({"kinds": ("toes",)}, "toes"),
        ({"kinds": ("fused:everywhere",)}, "fused:everywhere"),
        ({"kinds": ("fused:",)}, "with :local or :global behind, found fused:"),
        ({"hands": np.zeros((2, 3))}, "contradict"),
        ({"labels": np.ones((2, 3))}, "contradict"),
        ({"labels": np.zeros((3, 2))}, "one token grid"),
        ({"labels": np.full((2, 3), 4)}, "0, 1, 2 or 3"),
        ({"labels": np.full((2, 3), -1)}, "0, 1, 2 or 3"),
    ],
)
def test_contradictions_are_refused(change: dict, message: str) -> None:
    fields = {"sample": "a", "image_sha256": "", "labels": np.where(HAND > 0, 2, 1), "hands": HAND, "verdict": "good"}
    with pytest.raises(HandscopeError, match=message):
        Annotation(**{**fields, **change})


def test_a_kind_has_a_scope_or_is_given_one(tmp_path: Path) -> None:
    assert set(SCOPE) == set(KINDS)
    assert scopes(["count", "proportion"]) == {"global"} and scopes(["joint", "missing", "other"]) == {"local"}
    assert scopes(["count", "fused"]) == {"local", "global"} and scopes([]) == set()
    assert scopes(["fused:global", "count:local"]) == {"local", "global"} and scopes(["missing:global"]) == {"global"}
    labels = Labels(tmp_path / "labels.sqlite")
    labels.add([annotation("a", "bad", 3, kinds=("fused:global", "joint"))])
    assert labels.table()["kinds"].item() == ("fused:global", "joint")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(HandscopeError, match=r"labels\.sqlite is not a database"):
        Labels(path).current()
