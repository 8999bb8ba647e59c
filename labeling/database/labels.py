"""Annotations of samples: a database to which one only appends."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import HandscopeError
from ..subject import subject_at
from .annotation import REVIEW as REVIEW
from .annotation import VERDICTS as VERDICTS
from .annotation import Annotation as Annotation
from .label_file import LabelFile, pack, unpack
from .label_records import LabelRecords, same_write

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = (
    "sample, image_sha256, height, width, labels, instances, verdict, kinds, author, source, score, done, faults, "
    "seconds"
)
_SELECT = f"SELECT {_COLUMNS}, id, made FROM annotations"
_INSERT = (
    f"INSERT INTO annotations ({_COLUMNS}, review, base, uid, made) "
    f"VALUES ({', '.join('?' * 17)}, coalesce(?, CURRENT_TIMESTAMP))"
)
_NEWEST = "SELECT max(id) FROM annotations WHERE sample = ? AND author = ? AND review = ?"


class State(NamedTuple):
    """How far an author is with a sample, without its grids."""

    author: str
    sample: str
    image_sha256: str
    done: bool
    seconds: float | None


class Said(NamedTuple):
    """What an author says of a sample as a whole."""

    author: str
    sample: str
    image_sha256: str
    done: bool
    verdict: str
    kinds: tuple[str, ...]


class Conflict(HandscopeError):
    """Somebody wrote since: the state that a write was made on is no longer the newest one.

    Attributes
    ----------
    current : Annotation or None
        The newest state, which was left as it is; None where there is none.
    """

    def __init__(self, sample: str, base: int | None, current: Annotation | None) -> None:
        now = current.revision if current else None
        super().__init__(
            f"{sample} was changed elsewhere: this write was made on revision {base}, and the newest is {now}. "
            "Nothing was written; look at both and choose."
        )
        self.current = current


class Labels(LabelRecords):
    """The annotations of a run, in an SQLite file that is made if it is missing.

    >>> labels = Labels("runs/demo/labels.sqlite")                       # doctest: +SKIP
    >>> labels.add([Annotation(sample, image_sha256, tokens, instances, "good")])   # doctest: +SKIP
    >>> labels.table()                                                   # doctest: +SKIP

    What an annotator paints on a sample, and what a reviewer decides on it (source ``review``), are two strands of
    states: a state is made on the newest one of its strand, or refused.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file = LabelFile(self.path)

    def __repr__(self) -> str:
        if not self.path.exists():
            return f"<Labels in {str(self.path)!r}: none yet>"
        counts = self.table()["verdict"].value_counts()
        said = ", ".join(f"{n} {verdict}" for verdict, n in counts.items()) or "none yet"
        return f"<Labels in {str(self.path)!r}: {said}>"

    def kept_open(self) -> AbstractContextManager[None]:
        """Keep the file open in between: for a server, whose threads read and write it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self._file.kept()

    def add(self, annotations: Sequence[Annotation]) -> None:
        """Append annotations, all of them or none, whatever was there before; `made` is now, unless they say it.

        Raises
        ------
        HandscopeError
            A kind of fault is none that the subject of the run has.
        """
        self._check(annotations)
        rows = [_row(annotation, None, None) for annotation in annotations]
        with self._file.writing() as database:
            database.executemany(_INSERT, rows)

    def append(self, annotation: Annotation, base: int | None, uid: str) -> int:
        """Append one state of what its author says of a sample, and return its revision.

        Parameters
        ----------
        base : int or None
            The revision that it was made on: the author's newest state of the sample, None where there is none yet.
        uid : str
            The writer's own name for this write. Repeated, it returns the first one's revision and writes nothing.

        Raises
        ------
        Conflict
            The author's newest state is another one.
        HandscopeError
            The uid is of a write to another sample, or by another author; or a kind of fault is none that the subject
            of the run has.
        """
        self._check([annotation])
        with self._file.writing() as database:
            known = database.execute("SELECT id, sample, author FROM annotations WHERE uid = ?", (uid,)).fetchone()
            if known is not None:
                return same_write(uid, known, annotation.sample, annotation.author)
            strand = (annotation.sample, annotation.author, annotation.review)
            newest = database.execute(_NEWEST, strand).fetchone()[0]
            if newest != base:
                current = self._one(database.execute(f"{_SELECT} WHERE id = ?", (newest,)))
                raise Conflict(annotation.sample, base, current)
            return int(database.execute(_INSERT, _row(annotation, base, uid)).lastrowid or 0)

    def written(self, uid: str) -> int | None:
        """The revision that a write with this uid made; None where there was none."""
        with self._file.reading() as database:
            row = database.execute("SELECT id FROM annotations WHERE uid = ?", (uid,)).fetchone()
        return None if row is None else int(row[0])

    def revision(self, revision: int) -> Annotation | None:
        """The state of this number; None where there is none."""
        if not self.path.exists():
            return None
        with self._file.reading() as database:
            return self._one(database.execute(f"{_SELECT} WHERE id = ?", (revision,)))

    def newest(self, sample: str, author: str, review: bool = False) -> Annotation | None:
        """What an author last said of a sample, draft or not; None where nothing.

        In their review of it with `review`, else in their own painting.
        """
        if not self.path.exists():
            return None
        with self._file.reading() as database:
            return self._one(database.execute(f"{_SELECT} WHERE id = ({_NEWEST})", (sample, author, review)))

    def history(self, sample: str, author: str | None = None) -> list[Annotation]:
        """Every state of a sample, or one author's, the newest first."""
        if not self.path.exists():
            return []
        with self._file.reading() as database:
            rows = database.execute(
                f"{_SELECT} WHERE sample = ? AND author = coalesce(?, author) ORDER BY id DESC", (sample, author)
            )
            return list(self._annotations(rows))

    def current(self) -> dict[str, Annotation]:
        """What counts for each sample, by sample; empty when there is no file yet.

        It is the newest annotation that is no draft, or the newest review of that same image where there is one.

        Raises
        ------
        HandscopeError
            The file is not a database of annotations.
        """
        if not self.path.exists():
            return {}
        with self._file.reading() as database:
            rows = database.execute(
                f"{_SELECT} WHERE id IN (SELECT coalesce((SELECT max(id) FROM annotations AS of_review WHERE review "
                "AND done AND of_review.sample = newest.sample AND of_review.image_sha256 = newest.image_sha256), "
                "newest.id) FROM (SELECT sample, image_sha256, max(id) AS id FROM annotations WHERE done "
                "GROUP BY sample) AS newest) ORDER BY sample"
            )
            return {annotation.sample: annotation for annotation in self._annotations(rows)}

    def by_author(self, sample: str | None = None) -> dict[tuple[str, str], Annotation]:
        """The newest annotation of each (sample, author) that is no draft, by both; of one sample, if it is named.

        Reviews are left out: a reviewer has seen what the others said, so that agreement with a review would flatter.
        """
        if not self.path.exists():
            return {}
        of_sample = "" if sample is None else "sample = :sample AND"
        with self._file.reading() as database:
            rows = database.execute(
                f"{_SELECT} WHERE id IN (SELECT max(id) FROM annotations WHERE {of_sample} done AND "
                "NOT review GROUP BY sample, author) ORDER BY sample, author",
                {"sample": sample},
            )
            return {(annotation.sample, annotation.author): annotation for annotation in self._annotations(rows)}

    def states(self, author: str | None = None) -> list[State]:
        """The newest state of each sample that an author, or any, painted; reads no grids."""
        if not self.path.exists():
            return []
        of_author = "" if author is None else "author = :author AND"
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT author, sample, image_sha256, done, seconds, max(id) FROM annotations "
                f"WHERE {of_author} NOT review GROUP BY author, sample",
                {"author": author},
            )
            return [State(name, sample, image, bool(done), seconds) for name, sample, image, done, seconds, _ in rows]

    def said(self, author: str | None = None) -> list[Said]:
        """What an author, or anybody, last said of each sample; reads no grids, and leaves reviews out."""
        if not self.path.exists():
            return []
        of_author = "" if author is None else "author = :author AND"
        with self._file.reading() as database:
            rows = database.execute(
                "SELECT author, sample, image_sha256, done, verdict, kinds, max(id) FROM annotations "
                f"WHERE {of_author} NOT review GROUP BY author, sample",
                {"author": author},
            )
            return [
                Said(name, sample, image, bool(done), verdict, tuple(json.loads(kinds)))
                for name, sample, image, done, verdict, kinds, _ in rows
            ]

    def days(self) -> list[tuple[str, str, int]]:
        """How many samples each author first finished on each day of this machine's calendar: (day, author, n)."""
        if not self.path.exists():
            return []
        with self._file.reading() as database:
            return database.execute(
                "SELECT date(made, 'localtime') AS day, author, count(*) FROM (SELECT author, min(made) AS made "
                "FROM annotations WHERE done AND NOT review GROUP BY author, sample) GROUP BY day, author ORDER BY day"
            ).fetchall()

    def judgements(self) -> tuple[int, int]:
        """The newest revision that is no draft, and the newest rating: while both stay, so do all judgements."""
        if not self.path.exists():
            return 0, 0
        with self._file.reading() as database:
            newest = "SELECT id FROM annotations WHERE done ORDER BY id DESC LIMIT 1"
            return database.execute(
                f"SELECT coalesce(({newest}), 0), coalesce((SELECT max(id) FROM ratings), 0)"
            ).fetchone()

    def last_revision(self) -> int:
        """The newest revision of all; 0 where there is none."""
        if not self.path.exists():
            return 0
        with self._file.reading() as database:
            return int(database.execute("SELECT coalesce(max(id), 0) FROM annotations").fetchone()[0])

    def reviewed(self) -> set[tuple[str, str]]:
        """(sample, image_sha256) of every finished review."""
        if not self.path.exists():
            return set()
        with self._file.reading() as database:
            return set(database.execute("SELECT DISTINCT sample, image_sha256 FROM annotations WHERE done AND review"))

    def fingerprint(self) -> str:
        """SHA-256 of what counts for each sample: image, verdict, kinds, source and masks. Drafts change nothing."""
        said = hashlib.sha256()
        for a in self.current().values():
            faults = sorted(a.faults.items())
            said.update(repr((a.sample, a.image_sha256, a.verdict, a.kinds, faults, a.source, a.score)).encode())
            said.update(repr(a.labels.shape).encode() + a.labels.tobytes() + a.instances.tobytes())
        return said.hexdigest()

    def table(self) -> "pd.DataFrame":
        """What counts for each sample, one row a sample.

        Columns: sample, verdict, sure (bool), bad (0.0, 1.0, NaN where unsure), kinds, source, score (NaN where none).
        """
        import pandas as pd

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

    def _check(self, annotations: Sequence[Annotation]) -> None:
        if any(annotation.kinds for annotation in annotations):
            subject = subject_at(self.path.with_name("run.yaml"))
            for annotation in annotations:
                subject.check_kinds(annotation.kinds, annotation.sample)

    def _one(self, rows: Iterable[tuple[Any, ...]]) -> Annotation | None:
        return next(self._annotations(rows), None)

    def _annotations(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[Annotation]:
        for row in rows:
            sample, image, height, width, labels, instances, verdict, kinds, *rest = row
            author, source, score, done, faults, seconds, revision, made = rest
            try:
                yield Annotation(
                    sample,
                    image,
                    unpack(labels, height, width),
                    unpack(instances, height, width),
                    verdict,
                    tuple(json.loads(kinds)),
                    author,
                    source,
                    score,
                    bool(done),
                    {int(instance): tuple(given) for instance, given in json.loads(faults).items()},
                    seconds,
                    revision,
                    made,
                )
            except (ValueError, TypeError, AttributeError) as error:
                raise HandscopeError(
                    f"Revision {revision} of {sample} in {self.path} is damaged ({error}): restore the file from a "
                    "copy."
                ) from error


def _row(annotation: Annotation, base: int | None, uid: str | None) -> tuple[Any, ...]:
    a = annotation
    faults = json.dumps({str(instance): list(kinds) for instance, kinds in sorted(a.faults.items())})
    grids = (*a.labels.shape, pack(a.labels), pack(a.instances))
    said = (a.verdict, json.dumps(a.kinds), a.author, a.source, a.score, a.done, faults, a.seconds)
    return (a.sample, a.image_sha256, *grids, *said, a.review, base, uid, a.made)
