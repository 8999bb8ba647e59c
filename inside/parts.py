"""Parts of a stage's work that are kept, so that one that was killed does only what is missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..files import atomic, refuse_unusable

Arrays = dict[str, NDArray[Any]]


def key_of(now: Mapping[str, Any], settings: Sequence[str], more: Any = None) -> str:
    """What a part is made from: what its stage is (`made_from`), but for settings that change other things alone."""
    said = {**now, "settings": {name: now["settings"][name] for name in settings}, "more": more}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def kept(path: Path, key: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays of a part: those in its file, where that was made from the same, else made and written there."""
    found = _read(path, key) if path.exists() else None
    if found is None:
        found = {name: np.ascontiguousarray(array) for name, array in make().items()}
        with atomic(path) as temporary:
            save_file(found, temporary, {"made_from": key})
    return found


def _read(path: Path, key: str) -> Arrays | None:
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("made_from") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, SafetensorError) as error:
        refuse_unusable(error, path)
        return None
