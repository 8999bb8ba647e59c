"""Moments of every block at every step, in one pass."""
