"""One judgement of one sample, and the words it may use.

An instance is one of what is labelled (see `labeling.subject`). A token is 0 unlabelled, 1 of no instance, 2 of a good
instance, 3 of a bad one; a sample has a verdict on four levels, or unsure.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...brief import brief
from ...errors import HandscopeError

VERDICTS = ("good", "good?", "bad?", "bad", "unsure")
_KIND = re.compile("[a-z][a-z0-9_]*(:(local|global))?")
REVIEW = "review"
"""The source of an annotation that settles what annotators disagreed on; more may follow it, behind a comma."""

AUTOMATIC = "handscope"
"""The author of labels that no person gave in this run."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One judgement of one sample.

    Attributes
    ----------
    sample, image_sha256 : str
        The sample and the hash of the image that was judged.
    labels : uint8 array of shape (rows, columns)
        0 unlabelled, 1 of no instance, 2 of a good or good? one, 3 of a bad or bad? one.
    instances : uint8 array of shape (rows, columns)
        The number of the instance at a token, from 1; 0 where there is none. An unsure instance has a number and the
        label 0.
    verdict : str
        good, good?, bad?, bad or unsure; a draft may have none yet, "".
    kinds : tuple of str
        What is wrong: kinds of fault that the subject has. Each may say where it is seen, as in ``fused:global``, and
        else has the scope that the subject gives it.
    author, source : str
        Who or what judged, and from what.
    score : float or None
        The judge's probability of bad.
    done : bool
        False for a draft: a state on the way, which no other stage reads.
    faults : dict of tuple of str by instance number
        The kinds of each instance, where they are known one by one; `kinds` is then all of them.
    seconds : float or None
        The time that the annotator had the sample in view.
    revision : int or None
        Its number in the store, which rises with time.
    made : str or None
        When it was stored: UTC, as SQLite writes it.

    Raises
    ------
    HandscopeError
        The arrays differ in shape or hold other values, labels and instances contradict each other, the verdict
        is not known, or a kind is not of this form. Whether the subject has the kinds is asked when they are stored.
    """

    sample: str
    image_sha256: str
    labels: np.ndarray
    instances: np.ndarray
    verdict: str
    kinds: tuple[str, ...] = ()
    author: str = ""
    source: str = ""
    score: float | None = None
    done: bool = True
    faults: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    seconds: float | None = None
    revision: int | None = None
    made: str | None = None

    __repr__ = brief

    @property
    def review(self) -> bool:
        """Whether it is a review, made here or imported: it has seen what others said, and outranks it."""
        return self.source == REVIEW or self.source.startswith(f"{REVIEW}, ")

    def __post_init__(self) -> None:
        for name in ("labels", "instances"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.uint8))
        if self.labels.ndim != 2 or self.labels.shape != self.instances.shape:
            raise HandscopeError(
                f"Expected labels and instances of {self.sample} on one token grid (rows, columns), found "
                f"{self.labels.shape} and {self.instances.shape}."
            )
        if self.labels.max(initial=0) > 3:
            raise HandscopeError(f"Expected token labels 0, 1, 2 or 3 for {self.sample}, found {self.labels.max()}.")
        if np.any((self.labels >= 2) & (self.instances == 0)) or np.any((self.labels == 1) & (self.instances > 0)):
            raise HandscopeError(
                f"Labels and instances of {self.sample} contradict each other: a token labelled 2 or 3 needs an "
                "instance number, and one labelled 1 has none."
            )
        if self.verdict not in VERDICTS and (self.done or self.verdict):
            raise HandscopeError(
                f"Expected the verdict on {self.sample} to be one of {', '.join(VERDICTS)}, found {self.verdict!r}."
            )
        if self.faults:
            named = dict.fromkeys(kind for _, kinds in sorted(self.faults.items()) for kind in kinds)
            if set(self.kinds) - set(named):
                raise HandscopeError(
                    f"The kinds of {self.sample} are those of its instances, {', '.join(named) or 'none'}; found "
                    f"{', '.join(self.kinds)} as well."
                )
            object.__setattr__(self, "kinds", tuple(named))
            if not all(1 <= instance <= 255 for instance in self.faults):
                raise HandscopeError(
                    f"Expected faults of {self.sample} by instance number, 1 to 255, found {self.faults}."
                )
        unfit = [kind for kind in self.kinds if not _KIND.fullmatch(kind)]
        if unfit:
            raise HandscopeError(
                f"Expected the kinds of {self.sample} in small letters, alone or with :local or :global behind, found "
                f"{', '.join(unfit)}."
            )
