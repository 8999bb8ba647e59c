"""How far annotators agree, kept beside the labels: made again when there are new ones, without anybody waiting."""

import threading
import time
from typing import Any, NamedTuple

from ...run.folder import Run
from ..database.labels import Labels

REST = 9
"""Times its own length that a comparison rests before the next one: it takes a tenth of one core's time at most."""


class Compared(NamedTuple):
    """How far what annotators say agrees.

    Attributes
    ----------
    agreement : list of dict
        The rows of `agreement.agreement`, None for NaN.
    review : list of str
        Samples to look at again, the most disputed first.
    of : tuple of int or None
        The `Labels.judgements` that were compared; None before the first comparison.
    """

    agreement: list[dict[str, Any]]
    review: list[str]
    of: tuple[int, int] | None = None


class Comparing:
    """Compares annotators of a run; every method may be called from any thread."""

    def __init__(self, run: Run, labels: Labels) -> None:
        self.run, self.labels = run, labels
        self._one_at_a_time = threading.Lock()
        self._last = Compared([], [])
        self._rested = 0.0
        self._thread: threading.Thread | None = None

    def fresh(self) -> Compared:
        """The comparison of all that is stored by now; waits for it."""
        with self._one_at_a_time:
            judgements = self.labels.judgements()
            if judgements != self._last.of:
                began = time.monotonic()
                self._last = _compare(self.run, judgements)
                ended = time.monotonic()
                self._rested = ended + REST * (ended - began)
            return self._last

    def last(self) -> Compared:
        """The newest comparison that was made; where there is more to compare, that is begun, and not waited for."""
        idle = self._thread is None or not self._thread.is_alive()
        if idle and time.monotonic() >= self._rested and self.labels.judgements() != self._last.of:
            self._thread = threading.Thread(target=self.fresh, daemon=True)
            self._thread.start()
        return self._last


def _compare(run: Run, judgements: tuple[int, int]) -> Compared:
    # It brings scipy and scikit-learn with it, for which nobody who opens the page should wait.
    from ..agreement import agreement, review_queue, shared_judgements

    shared = shared_judgements(run)
    table = agreement(run, shared)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return Compared(rows, review_queue(run, shared)["sample"].tolist(), judgements)
