"""Cells that are added to a shard: what it holds already, and what was read now, in the order of the plan of both."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..address import Plan
from .checksum import Checksum
from .shard import HEAD_COLUMNS, DamagedError, activations, as_now, head, places_of, reading


def with_added(
    path: Path, whole: Plan, added: Plan, bits: np.ndarray, attrs: Mapping[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """The activations and attributes of a shard with the cells of another plan.

    The bits that the shard holds are compared with their checksum, and taken as they are. Its attribute ``added`` is a
    list with an entry for each plan that added cells: the plan, and how these were made.

    Parameters
    ----------
    path : the shard as it is
    whole : the plan of the cells of both
    bits : uint16 array of shape (cells of `added`, tokens, width)
    attrs : how these were made

    Returns
    -------
    bits : uint16 array of shape (cells of `whole`, tokens, width)
    attrs : dict

    Raises
    ------
    DamagedError
        The shard is not what was written.
    """
    with reading(path) as file:
        before, stored = dict(file.attrs), activations(file)[:]
    noted = head(before)["checksum"]
    if noted not in ("", str(Checksum(noted).update(stored))):
        raise DamagedError(
            f"{path} is damaged: its activations are not those that were written (their checksum differs). Remove it "
            "and run extract again, which makes it anew."
        )
    there, new = places_of(str(before["plan"])), places_of(added.to_json())
    joined = np.empty((len(whole.cells), *bits.shape[1:]), np.uint16)
    for place, cell in enumerate(whole.cells):
        joined[place] = bits[new[cell]] if cell in new else stored[there[cell]]
    kept = {name: value for name, value in as_now(before).items() if name not in HEAD_COLUMNS}
    entry = {"plan": json.loads(added.to_json()), **{name: _plain(value) for name, value in attrs.items()}}
    return joined, {**kept, "added": json.dumps([*json.loads(str(before.get("added") or "[]")), entry])}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
