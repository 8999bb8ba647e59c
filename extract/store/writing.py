"""Writing HDF5 files on disks that become full."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

Check = Callable[[], None]


@contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[tuple[h5py.File, Check]]:
    """Open an HDF5 file for writing, with a function that raises the error of a write that has failed, if one has.

    >>> with writing(path) as (file, check):                             # doctest: +SKIP
    ...     file["steps"] = steps
    ...     check()                                                      # where much work follows; the end checks too

    HDF5 2.0 ends the process with a segmentation fault where it cannot write what it still holds of a file that is
    closed, which is what a full disk makes of it. So it writes through a file that takes all that it is given, and the
    first error of the system is raised here.

    Parameters
    ----------
    mode : ``w`` for a new file, ``r+`` to change one

    Raises
    ------
    OSError
        The system refused a write.
    """
    with open(path, {"w": "wb+", "r+": "rb+"}[mode], buffering=0) as raw:
        patient = _Patient(raw)
        try:
            with h5py.File(patient, mode) as file:
                yield file, patient.check
        except Exception:
            patient.check()  # what was not written may be missed by HDF5: then that is the reason
            raise
        patient.check()


class _Patient(io.RawIOBase):
    """A file whose writes all seem to end well."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._error: OSError | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while left and self._error is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._error = error
        return count

    def truncate(self, size: int | None = None) -> int:
        try:
            return int(self._file.truncate(size))
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        return int(self._file.readinto(buffer))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def flush(self) -> None:
        """Nothing is held back."""
