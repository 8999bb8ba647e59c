"""Rating without knowing: samples under names that tell nothing, in a random order of each rater's own."""

import hashlib

from ...run.folder import Run
from ..database.labels import Labels
from ..order import share


class Blind:
    """The samples of a run as raters see them; every method may be called from any thread.

    Parameters
    ----------
    run_id : str
        What the names are made from beside the samples, so that they are the same in every session of the run.
    seed : int
        Of the raters' orders.
    """

    def __init__(self, run: Run, labels: Labels, run_id: str, seed: int) -> None:
        self.run, self.labels, self.run_id, self.seed = run, labels, run_id, seed
        self._samples: dict[str, str] = {}
        self._orders: dict[str, tuple[str, ...]] = {}

    def name(self, sample: str) -> str:
        """A name that says nothing of a sample's prompt, seed or arm."""
        return "p" + hashlib.sha256(f"{self.run_id}:{sample}".encode()).hexdigest()[:20]

    def sample(self, name: str) -> str | None:
        """The sample that has a name; None where none has."""
        if name not in self._samples:
            rows = self.run.metadata()
            if len(self._samples) != len(rows):
                self._samples = {self.name(sample): sample for sample in rows}
        return self._samples.get(name)

    def order(self, rater: str) -> tuple[str, ...]:
        """The samples in a rater's own random order, which is recorded as method ``rate``."""
        rows, order = self.run.metadata(), self._orders.get(rater)
        if order is None or len(order) != len(rows):
            # By the rank of a hash, as in `make_order`: what is generated later leaves the others in their order.
            order = tuple(sorted(rows, key=lambda sample: share(self.seed, f"rate {rater}", sample)))
            self.labels.record_order("rate", self.seed, order, {"rater": rater})
            self._orders[rater] = order
        return order
