"""MediaPipe's networks for hands as torch modules: where palms are, and where 21 landmarks of a cropped hand are.

    palm, landmarks = load_palm(), load_landmarks("lite")

Both run on any device, in batches, and pass gradients to the picture. The weights are those of the mediapipe 0.10.21
wheel (Apache-2.0; NOTICE.md), which holds them in float16 too: converting lost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ...errors import HandscopeError
from .graph import WEIGHTS, Graph

Size = Literal["full", "lite"]
PALM_INPUT = 192
LANDMARK_INPUT = 224


@dataclass(frozen=True)
class Landmarks:
    """What the landmark network says of m crops.

    Attributes
    ----------
    points : (m, 21, 3), pixels of the crop, MediaPipe's order; z is depth relative to the wrist at the same scale,
        smaller is nearer.
    presence : (m,), probability that the crop shows a hand.
    right : (m,), probability of a right hand, in a picture that is not mirrored. It is the network's own output, which
        MediaPipe calls "Left": it takes pictures to be selfies.
    world : (m, 21, 3), metres, about the hand's centre, in the crop's orientation.
    embedding : (m, c), the backbone's last features, averaged over places; c is 1152 of the full network, 672 of the
        lite one.
    """

    points: Tensor
    presence: Tensor
    right: Tensor
    world: Tensor
    embedding: Tensor


class PalmNetwork(nn.Module):
    """The palm detector: pictures (n, 3, 192, 192) in [0, 1] -> boxes (n, 2016, 18) and raw scores (n, 2016).

    Boxes are in pixels relative to their anchors; palm.py decodes them. Scores are logits.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = self.graph(x)
        return boxes, scores.squeeze(-1)


class LandmarkNetwork(nn.Module):
    """The landmark network: crops (m, 3, 224, 224) in [0, 1], a hand upright in each, -> `Landmarks`."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self._pooled = next(node["out"] for node in graph.nodes if node["op"] == "mean")

    def forward(self, x: Tensor) -> Landmarks:
        points, presence, right, world, embedding = self.graph(x, [*self.graph.outputs, self._pooled])
        shaped = (len(x), 21, 3)
        return Landmarks(points.reshape(shaped), presence[:, 0], right[:, 0], world.reshape(shaped), embedding)

    def features(self, x: Tensor) -> Tensor:
        """The `embedding` of `Landmarks` alone, (m, c)."""
        return self.forward(x).embedding


def load_palm(size: Size = "full") -> PalmNetwork:
    """The palm detector; the lite one is smaller and misses a little more."""
    return PalmNetwork(_load("palm", size))


def load_landmarks(size: Size = "full") -> LandmarkNetwork:
    """The landmark network; the lite one is faster and a little less exact."""
    return LandmarkNetwork(_load("landmarks", size))


def _load(kind: str, size: str) -> Graph:
    if size not in ("full", "lite"):
        raise HandscopeError(f"The networks come as 'full' and 'lite'; {size!r} was asked for.")
    return Graph.load(WEIGHTS / f"{kind}_{size}.safetensors").eval()
