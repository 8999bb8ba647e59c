"""What could be suggested for a sample: hand tokens from a silhouette or a hand detector, and a probe's map.

A suggestion is drawn beside the labels and never becomes one by itself: somebody must take it over. A probe's map
cannot even be taken over, since a probe judged on labels that it gave itself would agree with itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError
from ...run.folder import Run
from ..grid import grid

if TYPE_CHECKING:
    from ...models.model import Model

SOURCES = ("silhouette", "detector", "probe")
FINGER = 0.12
"""Half a finger's width in palm lengths, from wrist to middle knuckle."""
REACH = 1 / 3
"""How far from a finger's edge, in tokens, a token's centre may lie for the token to show enough of the finger."""


@dataclass(frozen=True, eq=False)
class Suggestion:
    """One source's suggestion for a sample.

    Attributes
    ----------
    source : str
        ``silhouette``, ``detector`` or ``probe``.
    labels : uint8 array of shape (rows, columns)
        1 where it sees no hand, else 0: whether a hand is good is for whoever takes it over to say. All 0 of a probe.
    instances : uint8 array of shape (rows, columns)
        Hand numbers, from 1. All 0 of a probe.
    map : float32 array of shape (rows, columns) or None
        A probe's log-odds of bad at each token; NaN where it is not known.
    score : float or None
        The detector's least probability that a hand is there; of a probe, the mean of its map.
    """

    source: str
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    map: NDArray[np.float32] | None = None
    score: float | None = None


@dataclass(frozen=True)
class Suggestions:
    """The suggestions for a sample, and why other sources have none.

    Attributes
    ----------
    found : list of Suggestion
    absent : dict of str
        A sentence by source.
    """

    found: list[Suggestion] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)


def suggestions(run: Run, sample: str, model: "Model | None" = None) -> Suggestions:
    """What each source has to say of a sample.

    Parameters
    ----------
    model : Model, optional
        The run's model. With it, and a trajectory of the sample, the probe's map covers every token by one forward
        pass; else it covers the tokens whose activations are stored.

    Raises
    ------
    HandscopeError
        There is no such sample, or its image is missing.
    """
    image, shape = run.image(sample), grid(run, sample)
    made = Suggestions()
    asked: dict[str, Callable[[], Suggestion]] = {
        "silhouette": lambda: _silhouette(run, image, shape),
        "detector": lambda: _detector(image, shape),
        "probe": lambda: _probe(run, sample, shape, model),
    }
    for source, ask in asked.items():
        try:
            made.found.append(ask())
        except HandscopeError as reason:
            made.absent[source] = str(reason)
    return made


def hand_region(points: NDArray[np.floating], height: int, width: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The tokens of a hand, from its landmarks.

    Parameters
    ----------
    points : float array of shape (21, 2)
        x, y in pixels, in MediaPipe's order: wrist, thumb, index, middle, ring, little finger.
    height, width : int
        Of the image, in pixels.
    shape : (rows, columns)

    Returns
    -------
    bool array of shape (rows, columns)
        Tokens whose centre lies on the palm, or within a finger's half-width (and a third of a token) of a bone.
    """
    (rows, columns), joints = shape, np.asarray(points, np.float64)
    y, x = (np.arange(rows) + 0.5) * height / rows, (np.arange(columns) + 0.5) * width / columns
    centres = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    reach = FINGER * np.linalg.norm(joints[9] - joints[0]) + REACH * max(height / rows, width / columns)
    near = np.min([_distance(centres, joints[a], joints[b]) for a, b in _BONES], axis=0) <= reach
    return (near | _inside(centres, joints[_PALM])).reshape(shape)


_FINGERS = [range(first, first + 4) for first in (1, 5, 9, 13, 17)]
_BONES = [(a, a + 1) for finger in _FINGERS for a in list(finger)[:-1]]
_BONES += [(0, finger[0]) for finger in _FINGERS] + [(5, 9), (9, 13), (13, 17)]
_PALM = [0, 1, 5, 9, 13, 17]


def _distance(places: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """From each place (n, 2) to a line from a to b: (n,)."""
    along = (places - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-9)
    return np.asarray(np.linalg.norm(places - a - np.clip(along, 0, 1)[:, None] * (b - a), axis=1))


def _inside(places: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each place (n, 2) lies in a polygon (k, 2): a line to the right crosses an odd number of sides."""
    inside = np.zeros(len(places), bool)
    for a, b in zip(corners, np.roll(corners, -1, 0)):
        spans = (a[1] > places[:, 1]) != (b[1] > places[:, 1])
        slope = (b[0] - a[0]) / (b[1] - a[1]) if a[1] != b[1] else 0.0
        inside ^= spans & (places[:, 0] < a[0] + (places[:, 1] - a[1]) * slope)
    return inside


def _of_hands(source: str, instances: NDArray[np.uint8], score: float | None = None) -> Suggestion:
    return Suggestion(source, np.where(instances > 0, 0, 1).astype(np.uint8), instances, None, score)


def _silhouette(run: Run, image: NDArray[np.uint8], shape: tuple[int, int]) -> Suggestion:
    if run.settings.get("provenance", {}).get("name") != "organism":
        raise HandscopeError(
            "The silhouette is made for the organism's pictures, one hand on a plain background, and another model "
            "made this one."
        )
    from ...organism.silhouette import hand_tokens, silhouette

    found = hand_tokens(silhouette(image), *shape)
    if not found.any():
        raise HandscopeError("Nothing stands out from the background.")
    return _of_hands("silhouette", found.astype(np.uint8))


def _detector(image: NDArray[np.uint8], shape: tuple[int, int]) -> Suggestion:
    import torch

    from ...anatomy.read.detect import detect

    height, width = image.shape[:2]
    found = detect(torch.tensor(image).permute(2, 0, 1)[None].float() / 255)
    instances = np.zeros(shape, np.uint8)
    for number, points in enumerate(found.points[:, :, :2].numpy(), 1):
        instances[hand_region(points, height, width, shape) & (instances == 0)] = number
    if not instances.any():
        raise HandscopeError("The hand detector found no hand.")
    return _of_hands("detector", instances, float(found.presence.min()))


def _probe(run: Run, sample: str, shape: tuple[int, int], model: "Model | None") -> Suggestion:
    from .probe_map import probe_map

    scores = probe_map(run, sample, shape, model)
    nothing = np.zeros(shape, np.uint8)
    return Suggestion("probe", nothing, nothing, scores, float(np.nanmean(scores)))
