"""Files that are either whole or not there."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import HandscopeError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that a reader sees all of it or nothing, whenever the writer is killed.

    Yields a temporary path in the same folder, which ends in the suffix of `path` (some writers choose their format by
    it) and is no other writer's, on whichever machine. When the block ends well the file is flushed to disk and renamed
    to `path`; when it raises, the temporary file is removed and what stood at `path` before stays. The file gets the
    mode that the umask asks for, whatever the writer does: safetensors makes files that only their owner reads.

    Raises
    ------
    HandscopeError
        The disk is full. Nothing is left half-written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.urandom(4).hex()}.tmp{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        _explain(error, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def append(path: str | os.PathLike[str], data: bytes) -> None:
    """Add bytes to the end of a file, on the disk when this returns; the file is made if it is missing.

    Raises
    ------
    HandscopeError
        The disk is full. What was there before is unchanged.
    """
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(before)
            _explain(error, path)
            raise


def _explain(error: OSError, path: str | os.PathLike[str]) -> None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise HandscopeError(
            f"The disk is full: {path} could not be written, and what was there before is unchanged. "
            "Free some space and run the same command again."
        ) from error


def sha256(data: bytes | str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of bytes, or of the contents of the file at a path."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with open(data, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a tidy CSV file, whole or not at all; a number that could not be computed is an empty field."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
