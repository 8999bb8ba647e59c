"""All pictures at a glance: what an annotator said of each, and in a review what everybody did."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..database.annotation import AUTOMATIC
from ..database.labels import Labels, Said


def overview(
    labels: Labels, samples: Sequence[str], rows: Mapping[str, Any], annotator: str, disputed: Sequence[str] | None
) -> list[dict[str, Any]]:
    """What is shown of each sample, in the order given.

    Parameters
    ----------
    rows : mapping
        The run's metadata by sample.
    disputed : sequence of str or None
        In a review, samples on which annotators disagree. Else None: what others said is not told, nor that labels were
        made automatically, since whoever paints is to judge without it.
    """
    said: dict[str, list[Said]] = {}
    for one in labels.said(annotator if disputed is None else None):
        if one.sample in rows and one.image_sha256 == rows[one.sample]["image_sha256"]:
            said.setdefault(one.sample, []).append(one)
    return [
        {
            "sample": sample,
            "image_sha256": rows[sample]["image_sha256"],
            "prompt": rows[sample]["prompt"],
            "state": _state(said.get(sample, [])),
            "said": [
                {"author": one.author, "verdict": one.verdict or None, "kinds": list(one.kinds), "done": one.done}
                for one in said.get(sample, [])
            ],
            "automatic": any(one.author == AUTOMATIC for one in said.get(sample, [])),
            "disputed": disputed is not None and sample in disputed,
        }
        for sample in samples
    ]


def _state(said: Sequence[Said]) -> str:
    """open, draft or done: the furthest that anybody is."""
    return "done" if any(one.done for one in said) else "draft" if said else "open"
