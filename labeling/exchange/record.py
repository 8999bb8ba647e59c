"""What a file of labels says of one annotation, in whichever format, and how it becomes an annotation again."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError
from ..database.annotation import Annotation

FACTS = (
    "sample",
    "image_sha256",
    "rows",
    "columns",
    "verdict",
    "kinds",
    "faults",
    "author",
    "source",
    "score",
    "seconds",
    "made",
)
"""All but the two grids. `kinds` is a list, `faults` lists by instance number; `score` and `seconds` may be None."""
IMPORTED = ", imported from "
"""What an import puts behind the source of an annotation, before the file's name; an export leaves it out again."""


def facts(annotation: Annotation) -> dict[str, Any]:
    """The `FACTS` of an annotation, as JSON holds them."""
    rows, columns = annotation.labels.shape
    return {
        "sample": annotation.sample,
        "image_sha256": annotation.image_sha256,
        "rows": int(rows),
        "columns": int(columns),
        "verdict": annotation.verdict,
        "kinds": list(annotation.kinds),
        "faults": {str(instance): list(kinds) for instance, kinds in sorted(annotation.faults.items())},
        "author": annotation.author,
        "source": annotation.source.partition(IMPORTED)[0],
        "score": annotation.score,
        "seconds": annotation.seconds,
        "made": annotation.made,
    }


def flat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as plain columns: lists as JSON, numbers that are not known as NaN, times as text."""
    return {
        **said,
        **{name: json.dumps(said[name]) for name in ("kinds", "faults")},
        **{name: math.nan if said[name] is None else float(said[name]) for name in ("score", "seconds")},
        "made": said["made"] or "",
    }


def unflat(said: Mapping[str, Any]) -> dict[str, Any]:
    """Facts from plain columns."""
    return {
        **said,
        **{name: json.loads(said[name]) for name in ("kinds", "faults")},
        **{name: None if math.isnan(float(said[name])) else float(said[name]) for name in ("score", "seconds")},
        **{name: int(said[name]) for name in ("rows", "columns")},
        "made": said["made"] or None,
    }


def annotation(
    said: Mapping[str, Any], labels: NDArray[np.uint8], instances: NDArray[np.uint8], origin: str
) -> Annotation:
    """An annotation from facts and grids, whose source names the file that it came from.

    Raises
    ------
    HandscopeError
        Facts and grids contradict each other or themselves.
    KeyError, TypeError, ValueError
        The facts are not of this form.
    """
    author, source = str(said["author"]), str(said["source"])
    if not 1 <= len(author) <= 40 or not author.isprintable():
        raise HandscopeError(f"Expected the author's name as 1 to 40 printable characters, found {author!r}.")
    number = {name: None if said[name] is None else float(said[name]) for name in ("score", "seconds")}
    return Annotation(
        str(said["sample"]),
        str(said["image_sha256"]),
        labels,
        instances,
        str(said["verdict"]),
        tuple(map(str, said["kinds"])),
        author,
        f"{source}{IMPORTED}{origin}",
        number["score"],
        faults={int(instance): tuple(map(str, kinds)) for instance, kinds in said["faults"].items()},
        seconds=number["seconds"],
        made=None if said["made"] is None else _time(str(said["made"])),
    )


def _time(made: str) -> str:
    """A time as SQLite writes it, in UTC: what is compared with the times of a run's own labels is of one form."""
    time = datetime.fromisoformat(made)
    return str((time.astimezone(UTC) if time.tzinfo else time).replace(tzinfo=None))
