"""In which order samples are labelled, and who labels which: made once, recorded, and the same whenever it is made.

What order was used decides what may be concluded. Samples that come at random are a random sample of the run, however
many of them are done; samples that come by a probe's doubt are not, and a rate counted on them is the rate of doubtful
samples.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import HandscopeError
from ..run.folder import Run
from .database.annotation import AUTOMATIC
from .database.labels import Labels

METHODS = ("random", "uncertain", "given")


@dataclass(frozen=True)
class Order:
    """Samples in the order in which they are shown.

    Attributes
    ----------
    method : str
        ``random``, ``uncertain`` (`uncertain.by_doubt`) or ``given``.
    seed : int
    samples : tuple of str
        Every sample of the order.
    parameters : dict
        What else it was made from; JSON can hold it.
    assigned : mapping of tuple of str
        The samples of each named annotator, in order; empty where nobody was named.
    note : str
        What to know before numbers are drawn from what was labelled in it.
    """

    method: str
    seed: int
    samples: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    assigned: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    note: str = ""

    def queue(self, annotator: str) -> list[str]:
        """What an annotator is shown: their share, or everything where they were not named."""
        return list(self.assigned.get(annotator, self.samples))

    def record(self, labels: Labels) -> int:
        """Append it to the orders of a run, unless it is the newest one there, and return its number."""
        return labels.record_order(self.method, self.seed, self.samples, self.parameters)


def make_order(
    run: Run,
    method: str = "random",
    seed: int = 0,
    double_share: float = 0.1,
    annotators: Sequence[str] = (),
    samples: Sequence[str] | None = None,
) -> Order:
    """Order a run's samples, and divide them among annotators.

    Parameters
    ----------
    method : str
        ``random``; ``uncertain``: those first of which the run's probes are least sure; ``given``: as in `samples`, or
        as they were generated.
    seed : int
        Of the order and of the division. A sample's annotators depend on its name and the seed alone, so that samples
        generated later change nothing for those before.
    double_share : float
        The share, 0 to 1, of samples that two annotators label, when two or more are named.
    annotators : sequence of str
        Their names. Without any, everyone is shown everything.

    Raises
    ------
    HandscopeError
        The method, share or a sample is not known, a name is there twice, the run has no samples, or, for
        ``uncertain``, no probe or no activations.
    """
    _check(method, double_share, annotators, samples)
    every = list(run.metadata())
    if not every:
        raise HandscopeError(f"There are no samples in {run.samples_dir} to label: run generate first.")
    parameters: dict[str, Any] = {"annotators": list(annotators), "double_share": double_share}
    note = ""
    if method == "random":
        # By the rank of a hash: a later sample takes its place among the others, and these keep theirs.
        ordered = sorted(every, key=lambda sample: share(seed, "order", sample))
    elif method == "uncertain":
        from .suggestions.uncertain import by_doubt

        ordered, described = by_doubt(run, _labelled_by_people(run), seed)
        parameters |= described
        note = (
            "These come in the order of a probe's doubt: what is labelled first is no random sample of the run, so "
            "neither rates nor a probe's figures on it are those of the run. Label some at random for these."
        )
    else:
        ordered = list(every if samples is None else samples)
        missing = set(ordered) - set(every)
        if missing:
            raise HandscopeError(
                f"{len(missing)} samples of the order are not in {run.path}, {min(missing)!r} among them: check it."
            )
        note = "The order was given: what is labelled first is no random sample of the run."
    assigned = divide(ordered, annotators, double_share, seed)
    return Order(method, seed, tuple(ordered), parameters, assigned, note)


def divide(
    samples: Sequence[str], annotators: Sequence[str], double_share: float, seed: int
) -> dict[str, tuple[str, ...]]:
    """Each annotator's samples, in the order given: about `double_share` of all go to two, the others to one."""
    if not annotators:
        return {}
    names, n = sorted(annotators), len(annotators)
    own: dict[str, list[str]] = {name: [] for name in names}
    for sample in samples:
        first = int(n * share(seed, "annotator", sample))
        chosen = {first}
        if n > 1 and share(seed, "double", sample) < double_share:
            chosen.add((first + 1 + int((n - 1) * share(seed, "second", sample))) % n)
        for number in chosen:
            own[names[number]].append(sample)
    return {name: tuple(own[name]) for name in annotators}


def share(seed: int, purpose: str, sample: str) -> float:
    """A number in 0..1 that a sample's name, a seed and a purpose decide, evenly spread over names."""
    digest = hashlib.sha256(f"{seed}\n{purpose}\n{sample}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _labelled_by_people(run: Run) -> set[str]:
    images = {sample: row["image_sha256"] for sample, row in run.metadata().items()}
    states = Labels(run.labels_path).states()
    return {s.sample for s in states if s.done and s.author != AUTOMATIC and images.get(s.sample) == s.image_sha256}


def _check(method: str, double_share: float, annotators: Sequence[str], samples: Sequence[str] | None) -> None:
    if method not in METHODS:
        raise HandscopeError(f"Expected an order that is one of {', '.join(METHODS)}, found {method!r}.")
    if not 0 <= double_share <= 1:
        raise HandscopeError(f"Expected the share that is labelled twice, from 0 to 1, found {double_share}.")
    for what, names in (("annotator", annotators), ("sample", samples or ())):
        if len(set(names)) < len(names):
            twice = next(name for name in names if list(names).count(name) > 1)
            raise HandscopeError(f"The {what} {twice!r} is named twice in the order: name each once.")
