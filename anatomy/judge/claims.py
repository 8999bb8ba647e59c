"""Which process looks at which picture, where several work on one output: one small file a picture, made by one only.

No lock of the system's is taken, so that it holds on any disk that makes a file for one process alone. A claim goes
when its picture is done. That of a process of this machine that is no more, or one that nobody renewed for a while, is
taken over. Should two ever look at one picture after all, the journal has it twice, and the newest counts.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = "claims"
STALE = 900.0
"""Seconds without a sign of life after which a claim of another machine is taken over; a batch takes seconds."""


@dataclass
class Claims:
    """Those of one process on the pictures of an output folder.

    >>> claims = Claims(Path("scored"))                                         # doctest: +SKIP
    >>> if claims.take("a.png"):                                                # doctest: +SKIP
    ...     work(); claims.release("a.png")
    """

    out: Path
    held: set[Path] = field(default_factory=set)

    def take(self, name: str) -> bool:
        """Whether the picture is now this process's."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path in self.held or self._make(path):
            return True
        if not _abandoned(path):
            return False
        # Of several that find it abandoned one can rename it; the others find nothing there.
        mine = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}")
        try:
            os.rename(path, mine)
        except OSError:
            return False
        mine.unlink(missing_ok=True)
        return self._make(path)

    def renew(self) -> None:
        """Say that this process is alive."""
        for path in self.held:
            with suppress(OSError):
                os.utime(path)

    def release(self, name: str) -> None:
        """Give a picture back: it is done, or cannot be."""
        path = self._path(name)
        if path in self.held:
            self.held.discard(path)
            path.unlink(missing_ok=True)

    def end(self) -> None:
        """Give all back, and remove the folder if nobody else has a claim."""
        for path in self.held:
            path.unlink(missing_ok=True)
        self.held.clear()
        with suppress(OSError):
            (self.out / FOLDER).rmdir()

    def _path(self, name: str) -> Path:
        return self.out / FOLDER / hashlib.sha256(os.fsencode(name)).hexdigest()[:32]

    def _make(self, path: Path) -> bool:
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(f"{platform.node()} {os.getpid()}")
        except OSError:
            return False
        self.held.add(path)
        return True


def _abandoned(path: Path) -> bool:
    """Whether whoever holds a claim is gone."""
    try:
        node, _, number = path.read_text(encoding="utf-8").rpartition(" ")
        age = time.time() - path.stat().st_mtime
    except OSError:  # given back just now
        return False
    if node == platform.node() and number.isdecimal() and os.name == "posix":
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's
            return age > STALE
    return age > STALE
