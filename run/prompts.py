"""Prompts and seeds as a user gives them: read and checked before anything heavy is loaded."""

import hashlib
import os
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path

from ..errors import HandscopeError

LAST_SEED = 2**32 - 1


def read_prompts(path: str | os.PathLike[str]) -> list[str]:
    """Prompts from a text file in UTF-8, one a line; empty lines and lines that begin with # are left out.

    Raises
    ------
    HandscopeError
        The file is missing, is not UTF-8, or holds no prompt.
    """
    path = Path(path)
    try:
        # Not splitlines, which parts a prompt at letters such as U+2028 and the form feed too.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise HandscopeError(
            f"Expected prompts in UTF-8, found byte 0x{error.object[error.start]:02x} at position {error.start} "
            f"of {path}: save the file as UTF-8."
        ) from error
    except OSError as error:
        raise HandscopeError(
            f"The prompt file {path} could not be read ({error.strerror}): give a text file with one prompt a line."
        ) from error
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise HandscopeError(
            f"Expected at least one prompt in {path}, found none: "
            "write one prompt a line (lines that begin with # are comments)."
        )
    return prompts


def check_prompts(prompts: Iterable[str]) -> None:
    """Raise HandscopeError unless every prompt is a text with a word in it that can be written in UTF-8."""
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise HandscopeError(f"Expected every prompt to be a text with a word in it, found {prompt!r}.")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            # A byte on the command line that is not UTF-8 arrives as half of a surrogate pair.
            raise HandscopeError(
                f"Expected every prompt in UTF-8, found {prompt!r}, whose letter {error.start + 1} is none: write it "
                "anew."
            ) from error


def check_seeds(seeds: Iterable[int]) -> None:
    """Raise HandscopeError unless every seed is a whole number from 0 to 2**32 - 1."""
    for seed in seeds:
        if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed <= LAST_SEED:
            raise HandscopeError(
                f"Expected every seed to be a whole number from 0 to {LAST_SEED}, found {seed!r}: give another."
            )


def own_seed(prompt: str, seed: int) -> int:
    """The seed of a prompt's own noise: `seed` counted from a place that the prompt's hash decides.

    Were all prompts drawn from the same noises, a probe that is tested on other prompts would have learnt from the very
    noises that it is tested on, and what comes out is decided by its noise more than by its prompt.

    >>> own_seed("an open hand", 7) - own_seed("an open hand", 0)
    7
    """
    return (int(hashlib.sha256(prompt.encode()).hexdigest()[:8], 16) + int(seed)) % (LAST_SEED + 1)
