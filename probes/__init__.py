"""Linear probes: fitted, cross-validated by prompt, and set beside what simpler things can do."""

from .crossval import Comparison, CrossValidation, compare, cross_validate, held_out_scores
from .linear import LinearProbe, even_weights
from .logistic import LogisticProbe
from .massmean import MassMeanProbe
from .ridge import RidgeProbe
from .saved import load_probe, save_probe
from .stage import probe

__all__ = [
    "Comparison",
    "CrossValidation",
    "LinearProbe",
    "LogisticProbe",
    "MassMeanProbe",
    "RidgeProbe",
    "compare",
    "cross_validate",
    "even_weights",
    "held_out_scores",
    "load_probe",
    "probe",
    "save_probe",
]
