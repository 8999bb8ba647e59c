"""How far angles and digit ratios lie outside what a hand does, in units of the reading's own error; differentiable."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .limits import JOINT_LIMITS, SPREAD_LIMITS, bounds, reference_ratios


def angle_excess(angles: Tensor) -> Tensor:
    """Flexion beyond the passive range, in units of each joint's tolerance: (m, 15), 0 inside."""
    low, high = (end.to(angles) for end in bounds("passive"))
    tolerance = torch.tensor([limit.tolerance for limit in JOINT_LIMITS]).to(angles)
    return (F.relu(low - angles) + F.relu(angles - high)) / tolerance


def spread_excess(spread: Tensor, angles: Tensor) -> Tensor:
    """Spread of neighbouring digits (m, 4) beyond the passive range, in tolerances; it fades as the fingers bend.

    A finger bent by 90 degrees at its base cannot be spread, and its direction in the palm's plane is noise.
    """
    low, high = (end.to(spread) for end in bounds("passive", SPREAD_LIMITS))
    tolerance = torch.tensor([limit.tolerance for limit in SPREAD_LIMITS]).to(spread)
    upright = torch.deg2rad(angles.reshape(-1, 5, 3)[:, 1:, 0]).cos().clamp_min(0)
    fade = torch.stack([upright[:, 0], *(upright[:, :-1] * upright[:, 1:]).unbind(1)], 1)
    return (F.relu(low - spread) + F.relu(spread - high)) / tolerance * fade


def ratio_deviation(ratios: Tensor) -> Tensor:
    """How far digit ratios lie from the reference: (m, 5) spreads of the logarithm, signed; the middle finger has 0."""
    reference, spread = (values.to(ratios) for values in reference_ratios())
    deviation = (ratios.clamp_min(1e-6) / reference).log() / spread.clamp_min(1e-6)
    return torch.where(spread > 0, deviation, torch.zeros_like(deviation))
