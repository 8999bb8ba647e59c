"""What an annotator may be called."""

from ..errors import HandscopeError
from .database.annotation import AUTOMATIC

LONGEST = 40


def annotator_name(name: str) -> str:
    """The name, if it is one; HandscopeError where it is none.

    Expected are 1 to 40 printable characters without a space at either end, and not the name of automatic labels.
    """
    if not 1 <= len(name) <= LONGEST or not name.isprintable() or name != name.strip():
        raise HandscopeError(
            f"Expected an annotator's name of 1 to {LONGEST} printable characters without a space at either end, "
            f"found {name!r}."
        )
    if name == AUTOMATIC:
        raise HandscopeError(f"{AUTOMATIC} is the name of labels that were made without looking: choose another.")
    return name
