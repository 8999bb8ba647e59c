"""What is to be painted anew in a picture, by name: a mask, and the depth that it should have."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .repair import Find

FINDERS = ("anatomy", "template")
"""By landmarks in any picture, or by the organism's caption."""


def finder(name: str) -> Find:
    """One of `FINDERS`."""
    if name == "template":
        from ..organism.template import template

        return template
    from ..anatomy.read.depth import found

    return found
