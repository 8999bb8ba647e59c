"""How far angles and digit ratios lie outside what a hand does, in units of the reading's own error; differentiable."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .limits import JOINT_LIMITS, bounds, reference_ratios


def angle_excess(angles: Tensor) -> Tensor:
    """Flexion beyond the passive range, in units of each joint's tolerance: (m, 15), 0 inside."""
    low, high = (end.to(angles) for end in bounds("passive"))
    tolerance = torch.tensor([limit.tolerance for limit in JOINT_LIMITS]).to(angles)
    return (F.relu(low - angles) + F.relu(angles - high)) / tolerance


def ratio_deviation(ratios: Tensor) -> Tensor:
    """How far digit ratios lie from the reference: (m, 5) spreads of the logarithm, signed; the middle finger's is 0."""
    reference, spread = (values.to(ratios) for values in reference_ratios())
    deviation = (ratios.clamp_min(1e-6) / reference).log() / spread.clamp_min(1e-6)
    return torch.where(spread > 0, deviation, torch.zeros_like(deviation))
