"""The differentiable path: how far a hand is from plausible, as a loss with a gradient; and its soft subscores.

The published score is made of indicators, whose gradient is zero. Here each limit is a squared hinge whose unit is the
limit's tolerance, so that a joint at the edge of what any-violation allows costs 1. A subscore is exp(-loss): the sum
of losses is minus the logarithm of the product of subscores.

Parts: `joints` (flexion beyond the passive range), `proportions` (digit lengths more than two spreads from the
reference), `presence` (minus the logarithm of the network's probability that there is a hand) and `count` (minus the
logarithm of the probability of five fingers).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import HandscopeError
from ..read.networks import LANDMARK_INPUT
from ..read.regions import crop
from .angles import joint_angles
from .count import RELATIONS, SIDE, count_region
from .excess import angle_excess, ratio_deviation
from .ratios import digit_ratios

FIVE = RELATIONS.index("five")  # in the relation logits of the project's finger-count head
FREE_SPREADS = 2.0  # deviations of a digit's length that cost nothing


class Landmarker(Protocol):
    """A landmark network: crops (m, 3, size, size) to an object with `world`, `presence` and `right`."""

    def __call__(self, crops: Tensor) -> "Reading": ...


class Reading(Protocol):
    """What a landmark network says of crops: world (m, 21, 3), presence (m,), right (m,)."""

    world: Tensor
    presence: Tensor
    right: Tensor


def soft_parts(
    world: Tensor, presence: Tensor, count_logits: Tensor | None = None, right: Tensor | None = None, five: int = FIVE
) -> dict[str, Tensor]:
    """The parts of `soft_loss`, each (m,) and at least 0; `count` only where `count_logits` are given."""
    parts = {
        "joints": angle_excess(joint_angles(world, right)).square().sum(1),
        "proportions": F.relu(ratio_deviation(digit_ratios(world)).abs() - FREE_SPREADS).square().sum(1),
        "presence": -presence.clamp_min(1e-6).log(),
    }
    if count_logits is not None:
        if count_logits.ndim != 2 or not 0 <= five < count_logits.shape[1]:
            raise HandscopeError(
                f"Count logits must have shape (hands, classes) with a class {five} for five fingers; found "
                f"{tuple(count_logits.shape)}."
            )
        parts["count"] = -count_logits.log_softmax(1)[:, five]
    return parts


def soft_loss(
    world: Tensor, presence: Tensor, count_logits: Tensor | None = None, right: Tensor | None = None, five: int = FIVE
) -> Tensor:
    """How implausible hands are, differentiably.

    Parameters
    ----------
    world : (m, 21, 3) float, landmarks in space.
    presence : (m,) probability that a hand is there.
    count_logits : (m, k) of a finger counter, without softmax.
    right : (m,) bool or probability of a right hand; judged by the shape where None (see `joint_angles`).
    five : which class of the counter means five digits, folded ones included; 1 in the project's finger-count head,
        whose `relation` is to be given.

    Returns
    -------
    (m,), 0 for a hand inside every limit that is surely there (and has surely five fingers).

    Raises
    ------
    HandscopeError
        If a shape does not fit.
    """
    return torch.stack(list(soft_parts(world, presence, count_logits, right, five).values())).sum(0)


def robust_loss(
    images: Tensor | Sequence[Tensor],
    region: Tensor,
    networks: Sequence[Landmarker],
    generator: torch.Generator,
    *,
    image: Tensor | None = None,
    count: Callable[[Tensor], Tensor] | None = None,
    views: int = 4,
    five: int = FIVE,
) -> Tensor:
    """The loss of hands in pictures, as several networks read them under random transformations.

    One network's gradient on one crop finds pixels that fool that network. So each view turns, moves and scales the
    region, and changes contrast, brightness and noise; every network reads every view, and the mean is what counts
    (expectation over transformations, Athalye et al. 2018). Free pixels fool the networks all the same
    (docs/anatomy_scores.md): use it where something else keeps the picture a picture, and judge by other means.

    Parameters
    ----------
    images : (n, 3, h, w) in [0, 1], or a sequence of (3, h, w); the gradient goes to them.
    region : (m, 4) centre, size and rotation, as `detect` gives them; `image` (m,) says in which picture.
    networks : for instance ``[load_landmarks("full"), load_landmarks("lite")]``.
    generator : of the transformations.
    count : crops to logits (m, k), for instance ``lambda crops: head(crops).relation`` with ``head = load_count()``; it
        is shown the regions of `count_region` at 96 pixels.
    views : random transformations for each hand and call.
    five : which class of `count` means five digits.

    Returns
    -------
    (m,) losses; a network that sees no hand says so in its presence, and that costs too.
    """
    losses = []
    for _ in range(views):
        square = _jittered(region, generator)
        logits = None
        if count is not None:
            logits = count(_varied(crop(images, count_region(square), SIDE, image), generator))
        crops = _varied(crop(images, square, LANDMARK_INPUT, image), generator)
        for network in networks:
            seen = network(crops)
            # Which hand it is, is not for the gradient to change.
            losses.append(soft_loss(seen.world, seen.presence, logits, seen.right.detach(), five))
    return torch.stack(losses).mean(0)


def _draw(n: int, spread: float, generator: torch.Generator, like: Tensor) -> Tensor:
    return ((torch.rand(n, generator=generator) * 2 - 1) * spread).to(like)


def _jittered(region: Tensor, generator: torch.Generator) -> Tensor:
    n = len(region)
    size = region[:, 2] * (1 + _draw(n, 0.1, generator, region))
    x = region[:, 0] + region[:, 2] * _draw(n, 0.04, generator, region)
    y = region[:, 1] + region[:, 2] * _draw(n, 0.04, generator, region)
    return torch.stack([x, y, size, region[:, 3] + _draw(n, 0.25, generator, region)], 1)


def _varied(crops: Tensor, generator: torch.Generator) -> Tensor:
    n = len(crops)
    contrast = 1 + _draw(n, 0.15, generator, crops)[:, None, None, None]
    brightness = _draw(n, 0.08, generator, crops)[:, None, None, None]
    noise = 0.02 * torch.randn(crops.shape, generator=generator).to(crops)
    return ((crops - 0.5) * contrast + 0.5 + brightness + noise).clamp(0, 1)
