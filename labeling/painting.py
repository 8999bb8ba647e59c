"""A painted state as a page has it, and what it must not say."""

from typing import Any

import numpy as np

from ..errors import HandscopeError
from ..extract.annotation import Annotation

PAINTED = "hand"
"""The source of an annotation that somebody painted."""


def shown(state: Annotation | None, image_sha256: str, rows: int, columns: int) -> dict[str, Any]:
    """The part of a state that a page shows; nothing of one on another picture or grid."""
    if state is None or state.image_sha256 != image_sha256 or state.labels.shape != (rows, columns):
        empty = bytes(rows * columns)
        return {"labels": empty, "hands": empty, "faults": {}, "verdict": None, "done": False, "seconds": None}
    return {
        "labels": state.labels.tobytes(),
        "hands": state.hands.tobytes(),
        "faults": {str(hand): list(kinds) for hand, kinds in state.faults.items()},
        "verdict": state.verdict or None,
        "done": state.done,
        "seconds": state.seconds,
    }


def grid_of(sample: str, what: str, cells: bytes, rows: int, columns: int) -> np.ndarray:
    """The grid that a page sent as bytes, row after row; HandscopeError where it is of another size."""
    if len(cells) != rows * columns:
        raise HandscopeError(
            f"Expected {what} of {sample} on {rows} by {columns} tokens, {rows * columns} bytes, found {len(cells)}: "
            "load the picture again."
        )
    return np.frombuffer(cells, np.uint8).reshape(rows, columns)


def check_finished(annotation: Annotation) -> None:
    """Refuse a finished state whose verdict and cells say different things."""
    bad = annotation.verdict.startswith("bad")
    if annotation.verdict != "unsure" and np.any(annotation.labels >= 2) and np.any(annotation.labels == 3) != bad:
        raise HandscopeError(
            f"The verdict on {annotation.sample} is {annotation.verdict}, and its cells say otherwise: a picture is "
            "bad where any of its hands is."
        )
