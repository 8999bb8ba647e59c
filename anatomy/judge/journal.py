"""What was read of every picture of a folder, one JSON line a picture: work that is killed goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import HandscopeError

NAME = "journal.jsonl"


@dataclass
class Journal:
    """Lines of pictures, by their path; the newest of a path counts.

    Attributes
    ----------
    path : the file.
    settings : what the readings depend on; they stand in the first line, and other settings are refused.
    entries : for each path a JSON object with sha256 of the file, height, width, scale, notes and hands.
    """

    path: Path
    settings: Mapping[str, Any]
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any]) -> Journal:
        """Begin one in a folder, or go on with the one that is there.

        Raises
        ------
        HandscopeError
            What is there was made with other settings, or is no journal.
        """
        path = folder / NAME
        journal = cls(path, dict(settings))
        if not path.exists() or path.stat().st_size == 0:
            folder.mkdir(parents=True, exist_ok=True)
            journal._append([dict(settings)])
            return journal
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        try:
            lines = [json.loads(line) for line in whole.split(b"\n")[:-1]]
            made = lines[0] if lines else None
            entries = {line["path"]: line for line in lines[1:]}
        except (ValueError, KeyError, TypeError) as error:
            raise HandscopeError(
                f"{path} is damaged ({error}): remove it, and the pictures are looked at again."
            ) from error
        if made is not None and made != journal.settings:
            differing = [f"{key} {made.get(key)!r}" for key, value in settings.items() if made.get(key) != value]
            raise HandscopeError(
                f"{folder} holds what was read with {', '.join(differing) or 'other settings'}, which does not mix "
                "with what is asked for now: name another folder with --out, or remove this one."
            )
        if len(whole) < len(data):  # killed while it wrote: the half line goes, and its picture is looked at again
            os.truncate(path, len(whole))
        if made is None:
            journal._append([dict(settings)])
        journal.entries.update(entries)
        return journal

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Append entries, on disk when it returns; all but the last are whole if it is killed on the way."""
        self._append(entries)
        self.entries.update({entry["path"]: entry for entry in entries})

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        with open(self.path, "ab") as file:
            file.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
