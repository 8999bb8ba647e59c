"""What is measured on the organism's pictures where many are compared: its judge, its outline and its features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...evaluation.patching import Looked, Pictures
from ..judge import Judge
from ..shape import features
from ..silhouette import silhouette


def organism_look(name: str, pictures: Pictures, prompts: Sequence[str]) -> Looked:
    """The probability by the judge of that organism, the silhouette, and the judge's features in units of their spread.
    """
    judge = Judge.of(name)
    found = [features(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
    x = np.array([[one[name] for name in judge.names] for one in found])
    scaled = (x - np.array(judge.mean)) / np.array(judge.scale)
    outline = np.stack([silhouette(picture) for picture in pictures])
    return Looked(judge.probability(x), {"outline": outline, "features": scaled})
