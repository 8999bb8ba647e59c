"""Files that are either whole or not there, and what the system says where it does not let one be used."""

import csv
import errno
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .errors import HandscopeError, Unusable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import pandas as pd

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_CONTENTS = (errno.ENOENT, errno.EINVAL, errno.EFAULT, errno.EOVERFLOW)
"""A missing file, and what a library is told that reads where a damaged file sends it."""
LOCKED = (errno.EAGAIN, errno.EDEADLK, errno.ETXTBSY)
STALE = 3600.0
"""Seconds after which a temporary file that nothing was written to is one that a killed process left behind."""
TEXTS = {"prompt", "sample"}
"""Columns that hold whatever text a user gave."""
_OURS = re.compile(r"\..*\.[0-9a-f]{8}\.tmp(\..*)?")
"""Names of the temporary files of `atomic`."""
_NUMBER = re.compile(r"\((?:os )?error (\d+)\)|errno = (\d+)")
"""How safetensors and HDF5 write the system's number of an error into their own messages."""


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file so that a reader sees all of it or nothing, whenever the writer is killed.

    Yields a temporary path in the same folder, which ends in the suffix of `path` (some writers choose their format by
    it) and is no other writer's, on whichever machine. When the block ends well the file is flushed to disk and renamed
    to `path`; when it raises, the temporary file is removed and what stood at `path` before stays. The file gets the
    mode that the umask asks for, whatever the writer does: safetensors makes files that only their owner reads.

    Raises
    ------
    Unusable
        The disk is full, or the folder cannot be written to. Nothing is left half-written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.urandom(4).hex()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as held:  # locked until it has its name, so that nobody sweeps it
            if not _lock(held):
                held.close()
            mode = temporary.stat().st_mode
            yield temporary
            if temporary.stat().st_mode != mode:
                temporary.chmod(mode)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except Exception as error:  # of whichever library writes: not all pass the system's errors on as OSError
        about = getattr(error, "filename", None)
        if about is None or str(about) in (str(temporary), str(path), str(path.parent)):
            _refuse(error, path, written=True)
        raise
    finally:
        with suppress(OSError):  # what keeps it from being removed has kept it from being made
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Write a folder so that a reader sees all of it or none: yields another, which then takes the place of `path`.

    Its files get the modes that the umask asks for. When the block raises, what stood at `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary:
        made, before = Path(temporary) / "new", Path(temporary) / "old"
        made.mkdir()
        yield made
        for folder, _, names in os.walk(made):
            mode = Path(folder).stat().st_mode & 0o666  # of a folder that was made by the umask, without its x
            for name in names:
                Path(folder, name).chmod(mode)
        if path.exists():
            path.rename(before)
        try:
            made.rename(path)
        except OSError:
            if before.exists():
                before.rename(path)  # else it would go with the temporary folder
            raise


def listed(folder: Path) -> set[str]:
    """Names of the files in a folder, none where there is no folder: one look, however many there are."""
    try:
        return {*os.listdir(folder)}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder, and none that `atomic` is writing now.

    A writer holds the system's lock of its file, which goes with its process. A file that cannot tell goes when nothing
    was written to it for an hour: where there are no locks, and of safetensors, which puts a file of its own in place.
    """
    with suppress(OSError):  # no folder, or one that is not ours to tidy
        for entry in os.scandir(folder):
            if entry.name.startswith(".") and ".tmp" in entry.name and entry.is_file(follow_symlinks=False):
                telling = _OURS.fullmatch(entry.name) and not entry.name.endswith(".safetensors")
                with suppress(OSError), open(entry.path, "rb") as file:
                    if (telling and _lock(file)) or time.time() - entry.stat().st_mtime > STALE:
                        os.unlink(entry.path)


def _lock(file: IO[bytes]) -> bool:
    """Whether this process now holds the lock of a file."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def order_header(path: Path) -> None:
    """Sort the header of a safetensors file, whose metadata the library writes in any order: equal files are alike."""
    with open(path, "rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.dumps(json.loads(file.read(size)), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        data = header.encode().ljust(size)
        if len(data) == size:  # or the library writes a letter otherwise than Python, and its own order stays
            file.seek(8)
            file.write(data)


def append(path: str | os.PathLike[str], data: bytes) -> None:
    """Add bytes to the end of a file, on the disk when this returns; the file is made if it is missing.

    Raises
    ------
    Unusable
        The disk is full, or the file cannot be written to. What was there before is unchanged.
    """
    try:
        with open(path, "ab", buffering=0) as file:
            before = file.tell()
            try:
                left = memoryview(data)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        _refuse(error, path, written=True)
        raise


def refuse_unusable(error: BaseException, path: str | os.PathLike[str]) -> None:
    """Raise `Unusable` where an error in reading a file is the system's, and not of what is in the file.

    To be called before a file is said to be damaged: a file that is locked, forbidden or on a disk that fails may be
    whole. A missing file is left to the caller, and so is an error without the system's number: then a library did
    read the file, and did not like what it read.
    """
    _refuse(error, path, written=False)


def check_readable(path: str | os.PathLike[str]) -> None:
    """Open a file and close it, so that an error is the system's own: safetensors calls every one a missing file."""
    with open(path, "rb"):
        pass


def _refuse(error: BaseException, path: str | os.PathLike[str], written: bool) -> None:
    number = system_number(error)
    if number is None or isinstance(error, HandscopeError) or (number in OF_CONTENTS and not written):
        return
    done, reason = "written" if written else "read", os.strerror(number)
    if number in FULL:
        why = "The disk is full" if number != errno.EFBIG else "Files may not grow so large here (see ulimit -f)"
        raise Unusable(
            f"{why}: {path} could not be written, and what was there before is unchanged. "
            "Free some space and run the same command again."
        ) from error
    if number in LOCKED:
        raise Unusable(
            f"{path} is locked by another process ({reason}): wait until that has ended and run the same command again."
        ) from error
    raise Unusable(
        f"{path} could not be {done} ({reason}), and is unchanged: check the path, its permissions and the disk, and "
        "run the same command again."
    ) from error


def system_number(error: BaseException) -> int | None:
    """The system's number of an error, whichever library passes it on; None where the system has nothing against it."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return number
    said = _NUMBER.search(str(error))
    return int(said[1] or said[2]) if said else None


def sha256(data: bytes | str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of bytes, or of the contents of the file at a path."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with open(data, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a tidy CSV file, whole or not at all; a number that could not be computed is an empty field."""
    texts = table.select_dtypes(["object", "string"])
    # Readers take a bare carriage return for the end of a row, and pandas quotes it only where it quotes every text.
    returns = any("\r" in text for column in texts for text in texts[column] if isinstance(text, str))
    with atomic(path) as temporary:
        quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
        table.to_csv(temporary, index=False, float_format="%.6g", quoting=quoting)


def read_csv(path: Path) -> "pd.DataFrame":
    """Read what `write_csv` wrote: an empty field of any column but a text's own is NaN, and NA or null are texts."""
    import pandas as pd

    names = pd.read_csv(path, nrows=0).columns
    missing = {name: [] if name in TEXTS else ["", "nan", "NaN"] for name in names}
    return pd.read_csv(path, keep_default_na=False, na_values=missing, dtype=dict.fromkeys(TEXTS & {*names}, str))
