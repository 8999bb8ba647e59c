"""The SQLite file behind `Labels`: opened, brought up to date, and only appended to."""

import sqlite3
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from ...errors import HandscopeError, Unusable

NOT_OURS = (
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM),
)
"""Errors of the system, and not of what is in the file."""
NO_LOG = (sqlite3.SQLITE_READONLY_DIRECTORY, sqlite3.SQLITE_CANTOPEN)
VERSION = 4
_TABLE = """
CREATE TABLE IF NOT EXISTS annotations (
    id INTEGER PRIMARY KEY, made TEXT DEFAULT CURRENT_TIMESTAMP, sample TEXT NOT NULL, image_sha256 TEXT NOT NULL,
    height INTEGER NOT NULL, width INTEGER NOT NULL, labels BLOB NOT NULL, instances BLOB NOT NULL,
    verdict TEXT NOT NULL, kinds TEXT NOT NULL, author TEXT NOT NULL, source TEXT NOT NULL, score REAL)"""
_ADDED = {
    "done": "INTEGER NOT NULL DEFAULT 1",
    "faults": "TEXT NOT NULL DEFAULT '{}'",
    "seconds": "REAL",
    "base": "INTEGER",
    "uid": "TEXT",
    "review": "INTEGER NOT NULL DEFAULT 0",
}
"""Columns that files of the first version lack."""
_RENAMED = {"hands": "instances"}
"""Columns that files before the third version call otherwise."""
_REST = (
    "CREATE INDEX IF NOT EXISTS by_sample ON annotations (sample, id)",
    "CREATE INDEX IF NOT EXISTS by_author ON annotations (author, sample, review, id, done, image_sha256, seconds)",
    "CREATE INDEX IF NOT EXISTS finished ON annotations (sample, id, image_sha256) WHERE done",
    "CREATE INDEX IF NOT EXISTS reviews ON annotations (sample, image_sha256, id) WHERE done AND review",
    "CREATE UNIQUE INDEX IF NOT EXISTS by_uid ON annotations (uid)",
    """CREATE TABLE IF NOT EXISTS ratings (
    id INTEGER PRIMARY KEY, made TEXT DEFAULT CURRENT_TIMESTAMP, sample TEXT NOT NULL, image_sha256 TEXT NOT NULL,
    rater TEXT NOT NULL, value REAL NOT NULL, seconds REAL, uid TEXT NOT NULL UNIQUE,
    withdrawn INTEGER NOT NULL DEFAULT 0)""",
    "CREATE INDEX IF NOT EXISTS by_rater ON ratings (rater, sample, id)",
    """CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY, made TEXT DEFAULT CURRENT_TIMESTAMP, method TEXT NOT NULL, seed INTEGER NOT NULL,
    samples TEXT NOT NULL, parameters TEXT NOT NULL)""",
    *(
        f"""CREATE TRIGGER IF NOT EXISTS {table}_no_{change} BEFORE {change.upper()} ON {table}
    BEGIN SELECT RAISE(ABORT, '{table} are only appended'); END"""
        for table in ("annotations", "ratings", "orders")
        for change in ("update", "delete")
    ),
)


class LabelFile:
    """Connections to one file: a new one for each use, or a few that are kept while a server writes.

    A commit is on the disk when it returns (``synchronous = FULL``), so that what was acknowledged survives the end of
    the process, and of the machine as far as the disk keeps its word.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: list[sqlite3.Connection] | None = None
        self._one_writer = threading.Lock()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep connections open between uses: the last one to close would else copy the log into the file each time."""
        self._kept = []
        try:
            with self.reading():
                pass
            yield
        finally:
            kept, self._kept = self._kept, None
            for database in kept:
                database.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection; what it reads is one state of the file for as long as one statement runs."""
        with self._explained():
            kept = self._kept
            try:
                # Asked for, and not looked for first: another thread may take the last one in between.
                database = self._connect() if kept is None else kept.pop()
            except IndexError:
                database = self._connect()
            try:
                yield database
            finally:
                if kept is None or kept is not self._kept:
                    database.close()
                else:
                    kept.append(database)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction that no other writer is in; committed where the block ends well."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Threads of one process wait for each other here, at once served, and not by asking SQLite again and again.
        with self._one_writer, self.reading() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:  # a full disk has ended it already
                    database.execute("ROLLBACK")
                raise

    def _connect(self) -> sqlite3.Connection:
        if not self.path.exists():
            with suppress(OSError):  # SQLite says better what is wrong
                self.path.touch()  # with the mode that the umask asks for: SQLite's own is 0644 at most
        database = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(database)
        except sqlite3.OperationalError as error:
            database.close()
            return self._unchanging(error)
        except BaseException:
            database.close()
            raise
        return database

    def _unchanging(self, error: sqlite3.OperationalError) -> sqlite3.Connection:
        """A connection that reads in a folder that may not be written to, where SQLite cannot keep its log; else the
        error that it met.
        """
        wal = self.path.with_name(f"{self.path.name}-wal")
        if error.sqlite_errorcode not in NO_LOG or not self.path.is_file() or wal.exists():
            raise error
        where = f"{self.path.absolute().as_uri()}?immutable=1"
        database = sqlite3.connect(where, uri=True, isolation_level=None, check_same_thread=False)
        if database.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            database.close()
            raise error
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA synchronous = FULL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise HandscopeError(
                f"{self.path} was written by a newer handscope (form {version}, this one knows up to {VERSION}): use "
                "that one."
            )
        if version == VERSION:
            return
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("BEGIN IMMEDIATE")
        database.execute(_TABLE)
        found = {row[1] for row in database.execute("PRAGMA table_info(annotations)")}
        for old, new in _RENAMED.items():
            if old in found:
                database.execute(f"ALTER TABLE annotations RENAME COLUMN {old} TO {new}")
        for column, kind in _ADDED.items():
            if column not in found:
                database.execute(f"ALTER TABLE annotations ADD COLUMN {column} {kind}")
        for statement in _REST:
            database.execute(statement)
        if "withdrawn" not in {row[1] for row in database.execute("PRAGMA table_info(ratings)")}:
            database.execute("ALTER TABLE ratings ADD COLUMN withdrawn INTEGER NOT NULL DEFAULT 0")
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "disk is full" in str(error):
                raise Unusable(
                    f"The disk is full: {self.path} could not be written, and what was in it before is unchanged. Free "
                    "some space and run the same command again."
                ) from error
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in NOT_OURS:
                raise Unusable(
                    f"The labels in {self.path} could not be used now ({error}), and are unchanged: another process "
                    "may be writing them, or their folder may not be written to. Mend that and run the same command "
                    "again."
                ) from error
            raise Unusable(
                f"The labels in {self.path} could not be used ({error}): expected a labels.sqlite of handscope."
            ) from error
        except sqlite3.DatabaseError as error:
            raise Unusable(
                f"{self.path} is not a database of labels, or is damaged ({error}): restore it from a copy, or remove "
                "it and label again."
            ) from error


def pack(grid: np.ndarray) -> bytes:
    """A uint8 grid, compressed where that is shorter: a blob as long as the grid is the grid itself.

    >>> len(pack(np.zeros((64, 64), np.uint8))) < 30
    True
    """
    raw = grid.tobytes()
    packed = zlib.compress(raw)
    return packed if len(packed) < len(raw) else raw


def unpack(blob: bytes, height: int, width: int) -> np.ndarray:
    """The grid that `pack` was given; ValueError where it is none."""
    if len(blob) != height * width:
        try:
            blob = zlib.decompress(blob)
        except zlib.error as error:
            raise ValueError(str(error)) from error
    return np.frombuffer(blob, np.uint8).reshape(height, width)
