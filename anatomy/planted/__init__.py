"""Faults planted in photographs of sound hands, and the picture head that learns to see them."""
