"""Several models beside each other: maps, streams on shared samples, and probes carried from one to another."""

from .compare import Comparison, compare
from .similarity import cka, procrustes, u_centred

__all__ = ["Comparison", "cka", "compare", "procrustes", "u_centred"]
