"""Linear probes: fitted, cross-validated by prompt, and set beside what simpler things can do."""

from .between import pairs_of_cells
from .calibration import Calibration, calibration, platt
from .crossval import Comparison, CrossValidation, compare, cross_validate, held_out_scores, nested_cross_validate
from .linear import LinearProbe, even_weights
from .logistic import LogisticProbe
from .massmean import MassMeanProbe
from .ridge import RidgeProbe
from .saved import load_probe, save_probe
from .stage import probe
from .tokens import TokenCrossValidation, cross_validate_tokens
from .transfer import probe_transfer

__all__ = [
    "Calibration",
    "Comparison",
    "CrossValidation",
    "LinearProbe",
    "LogisticProbe",
    "MassMeanProbe",
    "RidgeProbe",
    "TokenCrossValidation",
    "calibration",
    "compare",
    "cross_validate",
    "cross_validate_tokens",
    "even_weights",
    "held_out_scores",
    "load_probe",
    "nested_cross_validate",
    "pairs_of_cells",
    "platt",
    "probe",
    "probe_transfer",
    "save_probe",
]
