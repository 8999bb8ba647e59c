"""Annotations of samples: a database to which one only appends.

A token is 0 unlabelled, 1 not hand, 2 hand token of a good hand, 3 of a bad one; a sample has a verdict on four levels,
or unsure.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import HandscopeError

VERDICTS = ("good", "good?", "bad?", "bad", "unsure")
KINDS = ("count", "joint", "proportion", "fused", "missing", "other")
SCOPES = ("local", "global")
SCOPE = {
    "count": "global",
    "joint": "local",
    "proportion": "global",
    "fused": "local",
    "missing": "local",
    "other": "local",
}
"""Where a fault of a kind is seen, unless its label says otherwise (``fused:global``): in a part of the hand, such as
fingers that merge, or only in the whole of it, such as their number."""

_SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS annotations (
    id INTEGER PRIMARY KEY, made TEXT DEFAULT CURRENT_TIMESTAMP, sample TEXT NOT NULL, image_sha256 TEXT NOT NULL,
    height INTEGER NOT NULL, width INTEGER NOT NULL, labels BLOB NOT NULL, hands BLOB NOT NULL,
    verdict TEXT NOT NULL, kinds TEXT NOT NULL, author TEXT NOT NULL, source TEXT NOT NULL, score REAL);
CREATE INDEX IF NOT EXISTS by_sample ON annotations (sample, id);
CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON annotations
    BEGIN SELECT RAISE(ABORT, 'annotations are only appended'); END;
CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON annotations
    BEGIN SELECT RAISE(ABORT, 'annotations are only appended'); END;
"""
_COLUMNS = "sample, image_sha256, height, width, labels, hands, verdict, kinds, author, source, score"


@dataclass(frozen=True, eq=False)
class Annotation:
    """One judgement of one sample.

    Attributes
    ----------
    sample, image_sha256 : str
        The sample and the hash of the image that was judged.
    labels : uint8 array of shape (rows, columns)
        0 unlabelled, 1 not hand, 2 token of a good or good? hand, 3 of a bad or bad? hand.
    hands : uint8 array of shape (rows, columns)
        The instance number of the hand at a token, from 1; 0 where there is none. An unsure hand has a number and the
        label 0.
    verdict : str
        good, good?, bad?, bad or unsure.
    kinds : tuple of str
        What is wrong: any of count, joint, proportion, fused, missing, other; each may say where it is seen, as in
        ``fused:global``, and else has the scope of `SCOPE`.
    author, source : str
        Who or what judged, and from what.
    score : float or None
        The judge's probability that the hand is bad.

    Raises
    ------
    HandscopeError
        The arrays differ in shape or hold other values, labels and hands contradict each other, or a verdict or kind is
        not known.
    """

    sample: str
    image_sha256: str
    labels: np.ndarray
    hands: np.ndarray
    verdict: str
    kinds: tuple[str, ...] = ()
    author: str = ""
    source: str = ""
    score: float | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "hands"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.uint8))
        if self.labels.ndim != 2 or self.labels.shape != self.hands.shape:
            raise HandscopeError(
                f"Expected labels and hands of {self.sample} on one token grid (rows, columns), found "
                f"{self.labels.shape} and {self.hands.shape}."
            )
        if self.labels.max(initial=0) > 3:
            raise HandscopeError(f"Expected token labels 0, 1, 2 or 3 for {self.sample}, found {self.labels.max()}.")
        if np.any((self.labels >= 2) & (self.hands == 0)) or np.any((self.labels == 1) & (self.hands > 0)):
            raise HandscopeError(
                f"Labels and hands of {self.sample} contradict each other: a token labelled 2 or 3 needs a hand "
                "number, and one labelled 1 has none."
            )
        if self.verdict not in VERDICTS:
            raise HandscopeError(
                f"Expected the verdict on {self.sample} to be one of {', '.join(VERDICTS)}, found {self.verdict!r}."
            )
        unknown = [kind for kind in self.kinds if not _known(kind)]
        if unknown:
            raise HandscopeError(
                f"Expected the kinds of {self.sample} to be among {', '.join(KINDS)}, alone or with :local or :global "
                f"behind, found {', '.join(unknown)}."
            )


def scopes(kinds: Iterable[str]) -> set[str]:
    """Where the faults of a hand are seen: any of local and global; none where no kind is given.

    >>> sorted(scopes(["fused", "count"])), scopes(["fused:global"])
    (['global', 'local'], {'global'})
    """
    return {scope or SCOPE[kind] for kind, _, scope in (kind.partition(":") for kind in kinds)}


def _known(kind: str) -> bool:
    name, colon, scope = kind.partition(":")
    return name in KINDS and (scope in SCOPES if colon else True)


class Labels:
    """The annotations of a run, in an SQLite file that is made if it is missing.

    >>> labels = Labels("runs/demo/labels.sqlite")                       # doctest: +SKIP
    >>> labels.add([Annotation(sample, image_sha256, tokens, hands, "good")])   # doctest: +SKIP
    >>> labels.table()                                                   # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def add(self, annotations: Sequence[Annotation]) -> None:
        """Append annotations, all of them or none."""
        rows = [
            (
                a.sample,
                a.image_sha256,
                *a.labels.shape,
                a.labels.tobytes(),
                a.hands.tobytes(),
                a.verdict,
                json.dumps(a.kinds),
                a.author,
                a.source,
                a.score,
            )
            for a in annotations
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database, database:
            database.executemany(f"INSERT INTO annotations ({_COLUMNS}) VALUES ({', '.join('?' * 11)})", rows)

    def current(self) -> dict[str, Annotation]:
        """The newest annotation of each sample, by sample; empty when there is no file yet.

        Raises
        ------
        HandscopeError
            The file is not a database of annotations.
        """
        if not self.path.exists():
            return {}
        with self._open() as database:
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM annotations WHERE id IN (SELECT max(id) FROM annotations GROUP BY sample) "
                "ORDER BY sample"
            )
            return {row[0]: _annotation(row) for row in rows}

    def table(self) -> pd.DataFrame:
        """The newest verdicts, one row a sample.

        Columns: sample, verdict, sure (bool), bad (0.0, 1.0, NaN where unsure), kinds, source, score (NaN where none).
        """
        rows = [
            (
                a.sample,
                a.verdict,
                a.verdict in ("good", "bad"),
                np.nan if a.verdict == "unsure" else float(a.verdict.startswith("bad")),
                a.kinds,
                a.source,
                np.nan if a.score is None else a.score,
            )
            for a in self.current().values()
        ]
        table = pd.DataFrame(rows, columns=["sample", "verdict", "sure", "bad", "kinds", "source", "score"])
        return table.astype({"sure": bool, "bad": float, "score": float})

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            database = sqlite3.connect(self.path, timeout=60)
            try:
                database.executescript(_SCHEMA)
                yield database
            finally:
                database.close()
        except sqlite3.OperationalError as error:
            if "disk is full" in str(error):
                raise HandscopeError(
                    f"The disk is full: {self.path} could not be written, and what was in it before is unchanged. Free "
                    "some space and run the same command again."
                ) from error
            raise HandscopeError(
                f"The labels in {self.path} could not be used ({error}): expected a labels.sqlite of handscope."
            ) from error
        except sqlite3.DatabaseError as error:
            raise HandscopeError(
                f"{self.path} is not a database of labels, or is damaged ({error}): restore it from a copy, or remove "
                "it and label again."
            ) from error


def _annotation(row: tuple) -> Annotation:
    sample, image_sha256, height, width, labels, hands, verdict, kinds, author, source, score = row
    grid = [np.frombuffer(blob, np.uint8).reshape(height, width) for blob in (labels, hands)]
    return Annotation(sample, image_sha256, grid[0], grid[1], verdict, tuple(json.loads(kinds)), author, source, score)
