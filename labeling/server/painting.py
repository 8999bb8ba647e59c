"""A painted state as a page has it, and what it must not say."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import HandscopeError
from ..database.annotation import Annotation
from ..subject import Subject

PAINTED = "hand"
"""The source of an annotation that somebody painted."""
_VERDICTS = {0: "unsure", 2: "good", 3: "bad"}
"""What a label of an instance's tokens says of it."""


def shown(state: Annotation | None, image_sha256: str, rows: int, columns: int) -> dict[str, Any]:
    """The part of a state that a page shows; nothing of one on another picture or grid."""
    if state is None or state.image_sha256 != image_sha256 or state.labels.shape != (rows, columns):
        empty = bytes(rows * columns)
        return {"labels": empty, "instances": empty, "faults": {}, "verdict": None, "done": False, "seconds": None}
    return {
        "labels": state.labels.tobytes(),
        "instances": state.instances.tobytes(),
        "faults": {str(instance): list(kinds) for instance, kinds in state.faults.items()},
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


def check_finished(annotation: Annotation, subject: Subject) -> None:
    """Refuse a finished state that contradicts itself, with a HandscopeError; a draft may."""
    if annotation.done and (found := problems(annotation, subject)):
        raise HandscopeError(f"{annotation.sample} cannot be done. {found[0]}")


def problems(annotation: Annotation, subject: Subject) -> list[str]:
    """What has to be settled before a picture is done, one sentence each: ``page/judgement.js`` says the same."""
    verdict, instances, words = annotation.verdict, _instances(annotation), subject.verdicts
    noun, title = subject.noun, subject.nouns[0]
    found = [
        f"{title} {instance} is {' and '.join(words[each] for each in said)} at once: choose one for all of it."
        for instance, said in instances.items()
        if len(said) > 1
    ]
    painted = {name for said in instances.values() for name in said}
    change = "change one of them."
    if not verdict and painted == {"unsure"}:
        found.append(f"Say whether the {noun} is {words['good']} or {words['bad']}, or choose a verdict.")
    elif not verdict:
        found.append(f"Choose a verdict, or paint the {noun}.")
    elif "bad" in painted and not verdict.startswith("bad"):
        found.append(f"The verdict is {words[verdict]}, and {subject.one} is painted {words['bad']}: {change}")
    elif "good" in painted and "bad" not in painted and verdict.startswith("bad"):
        found.append(f"The verdict is {words[verdict]}, and no {noun} is painted {words['bad']}: {change}")
    for instance in sorted(annotation.faults):
        said = instances.get(instance, [verdict])
        if len(said) == 1 and said[0].startswith("good"):
            found.append(f"{title} {instance} has faults and is {words[said[0]]}: {change}")
    return found


def _instances(annotation: Annotation) -> Mapping[int, list[str]]:
    """What the cells of each instance say, in the order in which they are first found."""
    labels, instances = annotation.labels.ravel(), annotation.instances.ravel()
    return {
        int(instance): [_VERDICTS[label] for label in dict.fromkeys(labels[instances == instance].tolist())]
        for instance in np.unique(instances[instances > 0])
    }
