"""Use what is known of a generation while it runs: steering, guidance, and stopping what goes wrong."""

from .guide import guidance_callback, guide
from .losses import LatentLoss, PictureLoss, ProbeLoss
from .steer import ablate, probe_gate, random_directions, steer
from .triage import stop_callback, triage

__all__ = [
    "LatentLoss",
    "PictureLoss",
    "ProbeLoss",
    "ablate",
    "guidance_callback",
    "guide",
    "probe_gate",
    "random_directions",
    "stop_callback",
    "steer",
    "triage",
]
