"""The record of a run folder: what every stage was made from, and the state of what it wrote.

``RUN/record.json`` has one entry a stage. A stage is fresh when its entry says that it ended with the same version and
settings, read files that are as they were, and wrote files that are as it left them. Tables and settings count by what
is in them, labels by what they say, masks included; other files by name, size and time, which is quick for many
gigabytes.

A run of handscope 0.3 has no such record. Its results are shown as they are. A stage that is asked for is done again,
with the same numbers, since 0.3 did not note which masks they were made from.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..files import atomic, refuse_unusable, sha256, sweep
from ..stages import LABELS, SUBJECT

if TYPE_CHECKING:
    from ..stages import Stage

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RECORD = "record.json"
READ_WHOLE = (".csv", ".json", ".jsonl", ".yaml")
"""Files that are small enough to be hashed: a copy of a run without the times of its files keeps its tables fresh."""
PACKAGE = Path(__file__).parents[1]
DEFAULT_SUBJECT = PACKAGE / "labeling" / "subjects" / "hand.yaml"


def made_from(folder: Path, stage: Stage, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage would now be made from: the entry of the record that it gets when it has ended.

    It is to be asked before the stage begins: what changes while it works is not what it was made from.
    """
    return {
        "version": stage.version,
        "settings": json.loads(json.dumps(settings)),
        "reads": _state(folder, stage.reads),
        "sources": _contents(stage.sources),
    }


def fresh(folder: Path, stage: Stage, now: Mapping[str, Any]) -> dict[str, Any] | None:
    """The entry of a stage that ended with what `made_from` says `now`, and whose files are as it left them."""
    entry = entry_of(folder, stage)
    if not now.items() <= entry.items() or entry.get("writes") != _state(folder, stage.writes):
        return None
    return entry


def set_fresh(folder: Path, stage: Stage, now: Mapping[str, Any], summary: str | None = None) -> None:
    """Enter a stage that has just ended.

    Parameters
    ----------
    now : as of `made_from`, before the stage began
    summary : a sentence on what the run folder holds
    """
    for place in {os.path.dirname(pattern) for pattern in stage.writes if "**" not in pattern}:
        sweep(folder / place)
    entry = {**now, "writes": _state(folder, stage.writes), **({"summary": summary} if summary is not None else {})}
    labels = _label_fingerprint(folder)
    with _locked(folder):
        record = _read(folder)
        if record["stages"].get(stage.name) == entry and record["labels"] == labels:
            return
        record = {"labels": labels, "stages": record["stages"] | {stage.name: entry}}
        with atomic(folder / RECORD) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def entry_of(folder: Path, stage: Stage) -> dict[str, Any]:
    """What the record says of a stage; empty where it has not ended, or was made by handscope 0.3."""
    entry = _read(folder)["stages"].get(stage.name)
    return entry if isinstance(entry, dict) else {}


def _read(folder: Path) -> dict[str, Any]:
    empty: dict[str, Any] = {"labels": None, "stages": {}}
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # damaged, every stage looks for itself
        refuse_unusable(error, folder / RECORD)
        return empty
    if not isinstance(record, dict) or not isinstance(record.get("stages"), dict):
        return empty
    return empty | record


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process changes the record. Disks that know no locks, and Windows, are left without one."""
    with open(folder / f".{RECORD}.lock", "w") as lock:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _state(folder: Path, patterns: Sequence[str]) -> str:
    """A hash of the files that fit the patterns: of their names, and of what is in them or their sizes and times."""
    states: list[Any] = []
    for pattern in patterns:
        if pattern == LABELS:
            labels = _label_fingerprint(folder)
            states.append([LABELS, labels and labels["fingerprint"]])
            continue
        if pattern == SUBJECT:
            states.append([SUBJECT, _subject(folder)])
            continue
        states += sorted(_file_states(folder, pattern))
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def _subject(folder: Path) -> Any:
    """What ``run.yaml`` says of the subject, else the hash of the default."""
    said = None
    if (folder / "run.yaml").exists():
        with suppress(yaml.YAMLError, ValueError, RecursionError):  # who needs them says what is wrong
            settings = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
            said = settings.get("subject") if isinstance(settings, dict) else None
    return said or sha256(DEFAULT_SUBJECT)


def _file_states(folder: Path, pattern: str) -> Iterator[list[Any]]:
    """The name and the state of each file that fits a glob, whose stars are in the name, or ``**`` for all folders.

    Tens of thousands of files are looked at for each stage, so that `Path.glob` would take seconds.
    """
    place, _, name = pattern.rpartition("/")
    top, below, _ = place.partition("/**")
    for parent, folders, files in os.walk(folder / top):
        if not below:
            folders.clear()
        for file in fnmatch.filter(files, name):
            path = os.path.join(parent, file)
            if file.startswith("."):
                continue
            if file.endswith(READ_WHOLE):
                state: list[Any] = [sha256(path)]
            else:
                status = os.stat(path)
                state = [status.st_size, status.st_mtime_ns]
            yield [path[len(str(folder)) + 1 :], *state]


def _contents(patterns: Sequence[str]) -> str:
    """A hash of what is in files of the package."""
    said = hashlib.sha256()
    for pattern in patterns:
        for path in sorted(PACKAGE.glob(pattern)):
            if path.is_file() and path.suffix != ".pyc":
                said.update(f"{path.relative_to(PACKAGE).as_posix()}\n".encode() + path.read_bytes())
    return said.hexdigest()


def _label_fingerprint(folder: Path) -> dict[str, Any] | None:
    """What the labels say, with the state of their files; None where there are none.

    The hash is taken from the record while the files are as they were then: reading labels takes a second that a study
    with nothing to do can spare. Readers touch a database's files, so other times need not mean other labels.
    """
    path = folder / LABELS
    if not path.exists():
        return None
    noted = _read(folder)["labels"]
    if isinstance(noted, dict) and noted.get("fingerprint") and noted.get("files") == _label_files(path):
        return noted
    from ..labeling.database.labels import Labels

    labels = Labels(path)
    for _ in range(3):
        before = _label_files(path)
        noted = {"files": before, "fingerprint": labels.fingerprint()}
        if _label_files(path) == before:
            return noted
    return noted | {"files": None}  # somebody labels at this very moment, so these files are of another hash


def _label_files(path: Path) -> list[list[int]]:
    states = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        try:
            status = file.stat()
            states.append([status.st_size, status.st_mtime_ns])
        except FileNotFoundError:
            states.append([0, 0])
    return states
