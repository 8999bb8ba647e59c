"""What could be suggested for a sample: a mask from a silhouette or a detector, and a probe's map.

A subject's file names its suggesters. A suggestion is drawn beside the labels and never becomes one by itself: somebody
must take it over. A probe's map cannot even be taken over, since a probe judged on labels that it gave itself would
agree with itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError
from ...models.embedded import organism_of
from ...run.folder import Run
from ..grid import grid
from ..subject import subject_of
from .suggestion import Suggestion, Suggestions

if TYPE_CHECKING:
    from ...models.model import Model


@dataclass(frozen=True, eq=False)
class Asked:
    """What a suggester may look at: a sample, its image, the form (rows, columns) of its grid, the run's model."""

    run: Run
    sample: str
    image: NDArray[np.uint8]
    shape: tuple[int, int]
    model: "Model | None"


def suggestions(
    run: Run, sample: str, model: "Model | None" = None, sources: Sequence[str] | None = None
) -> Suggestions:
    """What each source has to say of a sample.

    Parameters
    ----------
    model : Model, optional
        The run's model. With it, and a trajectory of the sample, the probe's map covers every token by one forward
        pass; else it covers the tokens whose activations are stored.
    sources : sequence of str, optional
        Names in `SUGGESTERS`; those of the run's subject when left out.

    Raises
    ------
    HandscopeError
        There is no such sample, its image is missing, or there is no suggester of such a name.
    """
    sources = subject_of(run).suggestions if sources is None else sources
    check_sources(sources)
    asked = Asked(run, sample, run.image(sample), grid(run, sample), model)
    made = Suggestions()
    for source in sources:
        try:
            made.found.append(SUGGESTERS[source](asked))
        except HandscopeError as reason:
            made.absent[source] = str(reason)
    return made


def check_sources(sources: Sequence[str]) -> None:
    """Refuse names of no suggester, with a HandscopeError."""
    unknown = [source for source in sources if source not in SUGGESTERS]
    if unknown:
        raise HandscopeError(
            f"Expected suggestions by some of {', '.join(SUGGESTERS)}, found {', '.join(unknown)}: change the file of "
            "the subject."
        )


def _silhouette(asked: Asked) -> Suggestion:
    if organism_of(asked.run.settings) is None:
        raise HandscopeError(
            "The silhouette is made for an organism's pictures, on a plain background, and another model made this "
            "one."
        )
    from ...organism.silhouette import foreground

    found = foreground(asked.image, *asked.shape)
    if not found.any():
        raise HandscopeError("Nothing stands out from the background.")
    return _mask("silhouette", found.astype(np.uint8))


def _detector(asked: Asked) -> Suggestion:
    from ...anatomy.read.tokens import detected_tokens

    return _mask("detector", *detected_tokens(asked.image, asked.shape))


def _probe(asked: Asked) -> Suggestion:
    from .probe_map import probe_map

    scores = probe_map(asked.run, asked.sample, asked.shape, asked.model)
    nothing = np.zeros(asked.shape, np.uint8)
    return Suggestion("probe", nothing, nothing, scores, float(np.nanmean(scores)))


SUGGESTERS: dict[str, Callable[[Asked], Suggestion]] = {
    "silhouette": _silhouette,
    "detector": _detector,
    "probe": _probe,
}
"""By the name that a subject's file gives."""


def _mask(source: str, instances: NDArray[np.uint8], score: float | None = None) -> Suggestion:
    return Suggestion(source, np.where(instances > 0, 0, 1).astype(np.uint8), instances, None, score)
