"""What was read of every picture of a folder, one JSON line a picture: work that is killed goes on where it was.

Several processes may write into one: each line is added by one write at the end of the file, and a half line, as a
process leaves that is killed while it writes, costs its own picture only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import HandscopeError
from ...files import append

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
    _seen: int = 0  # bytes of the file that are in `entries`

    @classmethod
    def open(cls, folder: Path, settings: Mapping[str, Any]) -> Journal:
        """Begin one in a folder, or go on with the one that is there.

        Raises
        ------
        HandscopeError
            What is there was made with other settings, or is no journal.
        """
        folder.mkdir(parents=True, exist_ok=True)
        journal = cls(folder / NAME, dict(settings))
        journal.refresh()
        if not journal._seen:  # no file, or not even its first line; two that begin it at once leave that line twice
            journal.path.write_bytes(b"")
            journal._append([dict(settings)])
        return journal

    def refresh(self) -> None:
        """Take in what was added to the file, by whichever process."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._seen)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.split(b"\n")[:-1]):
            first = self._seen == number == 0
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError("a line is no JSON object")
            except ValueError as error:
                if first:
                    raise HandscopeError(
                        f"{self.path} is damaged ({error}): remove it, and the pictures are looked at again."
                    ) from error
                continue  # a half line: its picture is looked at again
            if first or "path" not in entry:
                self._check(entry)
            else:
                self.entries[entry["path"]] = entry
        self._seen += len(whole)

    def _check(self, made: Mapping[str, Any]) -> None:
        if made == self.settings:
            return
        differing = [f"{key} {made.get(key)!r}" for key, value in self.settings.items() if made.get(key) != value]
        raise HandscopeError(
            f"{self.path.parent} holds what was read with {', '.join(differing) or 'other settings'}, which does not "
            "mix with what is asked for now: name another folder with --out, or remove this one."
        )

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Append entries, on disk when it returns; all but the last are whole if it is killed on the way."""
        self._append(entries)
        self.entries.update({entry["path"]: entry for entry in entries})

    def _append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        append(self.path, (self._torn() + text).encode())

    def _torn(self) -> str:
        """What ends the half line of a process that was killed while it wrote, where the file ends in one."""
        with open(self.path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            return "\n" if size and file.read() != b"\n" else ""
