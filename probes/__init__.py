"""Linear probes: fitted, cross-validated by prompt, and set beside what simpler things can do."""

from .crossval import Comparison, CrossValidation, compare, cross_validate, held_out_scores
from .logistic import LogisticProbe
from .stage import probe

__all__ = ["Comparison", "CrossValidation", "LogisticProbe", "compare", "cross_validate", "held_out_scores", "probe"]
