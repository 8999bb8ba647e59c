"""Whether the outputs of a stage still belong to its inputs: a fingerprint in a JSON file beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import atomic

if TYPE_CHECKING:
    from .folder import Run


def fingerprint(run: Run, **settings: Any) -> str:
    """SHA-256 of what a stage reads: labels, samples, the activation store's files, and the stage's own settings."""
    from ..extract.store.shard import shards
    from ..labeling.database.labels import Labels

    samples = run.samples()[["sample", "prompt", "image_sha256"]].to_numpy().tolist()
    whole = run.activations_dir / "store.h5"
    files = [whole] if whole.exists() else shards(run.activations_dir)
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    text = json.dumps([settings, state, samples, Labels(run.labels_path).fingerprint()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_fresh(sidecar: Path, mark: str, outputs: Iterable[Path]) -> bool:
    """Whether `sidecar` holds the fingerprint `mark` and all outputs are there."""
    try:
        known = json.loads(sidecar.read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return known == mark and all(path.exists() for path in outputs)


def set_fresh(sidecar: Path, mark: str, **record: Any) -> None:
    """Write the fingerprint, with what else is worth a record, once all outputs are written."""
    with atomic(sidecar) as temporary:
        temporary.write_text(json.dumps({"fingerprint": mark, **record}, indent=2) + "\n", encoding="utf-8")
