"""Writing shards beside the work that makes them."""

import os
from collections.abc import Mapping
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Any

import numpy as np

from .shard import write_shard

_Shard = tuple[str | os.PathLike[str], np.ndarray, np.ndarray, np.ndarray, Mapping[str, Any]]


class ShardWriter:
    """A thread that writes shards while the next activations are made.

    >>> with ShardWriter() as writer:                                    # doctest: +SKIP
    ...     for sample in samples:
    ...         writer.put(path, bits, steps, tokens, attrs)             # waits only while `depth` shards wait

    What was put is written when the block ends, also when it ends with an exception. A shard that fails is reported by
    the next `put`, or at the end of the block; what was put after it is dropped, and is made by the next extraction
    like all that is missing. Each shard is whole or not there, whatever happens to the process.

    Parameters
    ----------
    compression : None or "lossless"
        See `write_shard`.
    depth : int
        Shards that may wait. With the one that is being written, `depth` + 1 are in memory.
    """

    def __init__(self, compression: str | None = None, depth: int = 1) -> None:
        self._compression = compression
        self._waiting: Queue[_Shard | None] = Queue(depth)
        self._error: BaseException | None = None
        # A second interrupt, while the last shards are being written, ends the process without waiting for them.
        self._thread = Thread(target=self._write, name="shard writer", daemon=True)

    def __enter__(self) -> "ShardWriter":
        self._thread.start()
        return self

    def put(
        self,
        path: str | os.PathLike[str],
        bits: np.ndarray,
        steps: np.ndarray,
        tokens: np.ndarray,
        attrs: Mapping[str, Any],
    ) -> None:
        """Have a shard written; arguments are those of `write_shard`. Do not change the arrays afterwards.

        Raises
        ------
        HandscopeError or OSError
            An earlier shard could not be written.
        """
        self._raise()
        self._waiting.put((path, bits, steps, tokens, attrs))

    def settle(self) -> None:
        """Wait until all that was put is written.

        Raises
        ------
        HandscopeError or OSError
            A shard could not be written.
        """
        self._waiting.join()
        self._raise()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._waiting.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def _write(self) -> None:
        while (shard := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    write_shard(*shard, self._compression)
                except BaseException as error:
                    self._error = error
            self._waiting.task_done()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
