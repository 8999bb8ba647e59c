"""Several models beside each other: maps, streams on shared samples, and probes carried from one to another."""

from .compare import Comparison, compare
from .similarity import Dependence, procrustes

__all__ = ["Comparison", "Dependence", "compare", "procrustes"]
