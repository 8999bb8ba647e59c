"""Diffusion transformers: found, loaded, placed, and called as their pipelines call them."""

from .family import BlockList, Family, Times
from .registry import register

__all__ = ["BlockList", "Family", "Times", "register"]
