"""Work that several machines divide, each by itself: which samples are whose."""

import hashlib

from ..errors import HandscopeError

Part = tuple[int, int]
"""(i, n): the i-th of n parts, counted from 1."""


def in_part(name: str, part: Part | None) -> bool:
    """Whether a sample is in a part: by its name alone, so that every machine divides alike. All are in no part.

    >>> [i for i in (1, 2, 3) if in_part("1379ff25-00007", (i, 3))]
    [1]
    """
    if part is None:
        return True
    number, parts = part
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % parts == number - 1


class PartsLeftError(HandscopeError):
    """What this part had to do is done, and what comes next needs all parts."""


def check_part(part: Part | None) -> None:
    """Refuse a part that is none of its division."""
    if part is not None and not 1 <= part[0] <= part[1]:
        raise HandscopeError(f"Expected a part such as (1, 8), the first of eight, found {part}: count from 1.")
