"""The folder of one study: what is where, and what must not be mixed in it."""

import hashlib
import json
import os
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import yaml
from PIL import Image, UnidentifiedImageError

from ..errors import HandscopeError
from ..files import STALE, append, atomic, refuse_unusable

if TYPE_CHECKING:
    import pandas as pd

    from .noised import Noised
    from .trajectory import Trajectory

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

COLUMNS = {
    "sample": str,
    "prompt": str,
    "seed": int,
    "file_name": str,
    "image_sha256": str,
    "noise_sha256": str,
    "height": int,
    "width": int,
    "steps": int,
    "guidance": float,
    "batch_size": int,
}
FIXED = ("model", "generation")
NOT_IN_0_3 = ("state",)
"""A setting of `model` that a run of 0.3 lacks, and goes on to lack: nobody noted what acted when it was begun."""
CHANGEABLE = ("trajectories",)
"""A setting of `generation` that may differ from call to call: trajectories can be added later, or left out."""

ENDED = "-ended.jsonl"
"""How the name of a part of the lines ends when its writer has."""
_State = tuple[int, int, int] | None
_Version = tuple[tuple[Path, _State], ...]


def sample_id(prompt: str, seed: int) -> str:
    """The name of a sample: samples of one prompt share the part before the dash.

    >>> sample_id("an open hand", 7)
    '1379ff25-00007'
    """
    return f"{hashlib.sha256(prompt.encode()).hexdigest()[:8]}-{seed:05d}"


def check_name(sample: str, prompt: str, named: str) -> None:
    """Refuse a prompt whose sample has the name of another prompt's: names keep 8 digits of a prompt's hash."""
    if prompt != named:
        raise HandscopeError(
            f"The prompts {named!r} and {prompt!r} share the sample name {sample}, whose digits are of a hash: change "
            "a letter of one of them, or draw it in another run folder."
        )


SHOWN = 6
"""Pictures of a run that a notebook shows."""


class Run:
    """A run folder, made if it is missing.

    >>> run = Run("runs/demo")                    # doctest: +SKIP
    >>> run.samples().prompt.nunique()            # doctest: +SKIP

    Attributes
    ----------
    path : pathlib.Path
        The folder; the others lie in it.
    samples_dir, metadata_path : pathlib.Path
        Pictures, and the file with a line for each.
    trajectories_dir, noised_dir : pathlib.Path
        Latents before each step; and those that `extract` made of given pictures.
    labels_path : pathlib.Path
        The annotations, for `Labels`.
    values_path : pathlib.Path
        Labels of several values, a row a sample.
    classes_path : pathlib.Path
        Classes of single tokens, a row a token.
    activations_dir : pathlib.Path
        For `ActivationStore`.
    analysis_dir, figures_dir, probes_dir : pathlib.Path
        Tables, figures, and probes that were fitted.
    report_path, settings_path : pathlib.Path
        ``report.html``, and ``run.yaml``, which `settings` reads.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not os.fspath(path):
            raise HandscopeError("Expected the path of a run folder, found an empty text: name one, such as runs/demo.")
        self.path = Path(path)
        # Where it lies is settled now: the current directory may be another one when the run is next used.
        self.path = self.path.absolute() if not self.path.is_absolute() else self.path
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise HandscopeError(
                f"Expected a folder for the run, found a file in its place: {error.filename}. Give another path."
            ) from error
        self.samples_dir = self.path / "samples"
        self.trajectories_dir = self.path / "trajectories"
        self.noised_dir = self.path / "noised"
        self.labels_path = self.path / "labels.sqlite"
        self.values_path = self.path / "values.csv"
        self.classes_path = self.path / "classes.csv"
        self.activations_dir = self.path / "activations"
        self.analysis_dir = self.path / "analysis"
        self.figures_dir = self.path / "figures"
        self.probes_dir = self.path / "probes"
        self.report_path = self.path / "report.html"
        self.settings_path = self.path / "run.yaml"
        self.metadata_path = self.samples_dir / "metadata.jsonl"
        self.parts_dir = self.samples_dir / ".parts"
        self._appended_to = self.metadata_path
        self._compared: dict[str, tuple[int, int, str]] = {}
        self._read: tuple[_Version, dict[str, dict[str, Any]]] = ((), {})
        self._expected: tuple[int, dict[str, str]] = (0, {})

    def __repr__(self) -> str:
        return f"<Run {str(self.path)!r}: {len(self.metadata()):,} samples>"

    def _repr_html_(self) -> str:
        """The line of `repr`, and the first pictures."""
        shown = "".join(
            f'<img src="data:image/png;base64,{b64encode(self.image_path(sample).read_bytes()).decode()}" '
            f'alt="{escape(sample)}" title="{escape(row["prompt"])}" width="96">'
            for sample, row in list(self.metadata().items())[:SHOWN]
            if self.image_path(sample).exists()
        )
        return f"<code>{escape(repr(self))}</code><br>{shown}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process is sent where it lies, and reads what is there for itself."""
        return Run, (self.path,)

    @property
    def settings(self) -> dict[str, Any]:
        """What `run.yaml` says; empty when there is none yet."""
        if not self.settings_path.exists():
            return {}
        try:
            settings = yaml.safe_load(self.settings_path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise HandscopeError(
                f"{self.settings_path} is damaged: restore it, or start the study in another run folder."
            ) from error
        if not isinstance(settings, dict):
            raise HandscopeError(
                f"{self.settings_path} is damaged: expected named settings, found {type(settings).__name__}. "
                "Restore it, or start the study in another run folder."
            )
        for section in ("model", "generation", "provenance"):
            if not isinstance(settings.get(section, {}), dict):
                raise HandscopeError(
                    f"{self.settings_path} is damaged: expected named settings as {section!r}, found "
                    f"{settings[section]!r}. Restore it, or start the study in another run folder."
                )
        return settings

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Add sections to `run.yaml`.

        A section that is there is replaced, except `model` and `generation`, whose settings stay: one run does not mix
        two of them. A `provenance` that is replaced is kept in the list `provenance_before`.

        Raises
        ------
        HandscopeError
            A setting of `model` or `generation` differs from the one that the run was begun with.
        """
        settled = self.settings
        for section in FIXED:
            for key, value in settings.get(section, {}).items():
                before = settled.get(section, {}).get(key, value)
                if before != value and key not in CHANGEABLE:
                    raise HandscopeError(
                        f"{self.settings_path} says {section}.{key} = {before}, and now it is {value}: "
                        "one run holds one model and one way to generate. Use another run folder."
                    )
        merged = settled | settings
        if merged.get("provenance") != settled.get("provenance", merged.get("provenance")):
            # What made the earlier samples stays on record beside what makes the next ones.
            before = settled.get("provenance_before", [])
            merged["provenance_before"] = before + [settled["provenance"]] * (settled["provenance"] not in before)
        for section in set(FIXED) & set(settings):
            known, new = settled.get(section, {}), settings[section]
            merged[section] = known | {
                key: value for key, value in new.items() if key in known or not known or key not in NOT_IN_0_3
            }
        if merged != settled:
            with atomic(self.settings_path) as temporary:
                temporary.write_text(yaml.safe_dump(merged, sort_keys=False, allow_unicode=True), encoding="utf-8")

    def samples(self) -> "pd.DataFrame":
        """One row a sample, in the order of generation.

        Columns: sample, prompt (of given pictures the group that folds hold together), seed, file_name, image_sha256
        (of the uint8 pixels), noise_sha256 (of the packed float32 noise), height, width, steps, guidance, batch_size
        (of the call that made it).
        """
        import pandas as pd

        rows = [[row[column] for column in COLUMNS] for row in map(_grouped, self.metadata().values())]
        return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
            {column: kind for column, kind in COLUMNS.items() if kind is not str}
        )

    def prompts_as_seen(self) -> dict[str, str]:
        """Of each prompt, the first of the run that its model sees alike; a prompt of a run of 0.3 is seen as itself.

        Prompts that differ behind the text length, or in blanks, have one embedding. They are one prompt, since
        held-out ones must be new to a probe. Of given pictures the groups stand for prompts, as in `samples`.
        """
        first: dict[str, str] = {}
        rows = [_grouped(row) for row in self.metadata().values()]
        return {row["prompt"]: first.setdefault(row.get("embedding") or row["prompt"], row["prompt"]) for row in rows}

    def metadata(self) -> dict[str, dict[str, Any]]:
        """The lines of `samples/metadata.jsonl` by sample, of each the last; empty when there are none yet.

        Those of writers that were not alone are among them, which lie in `samples/.parts` until all are put together.
        """
        # First the parts: lines that leave one while this looks are in the file that is read after it.
        version = tuple((path, _state(path)) for path in (*self._parts(), self.metadata_path))
        if version != self._read[0]:
            *parts, rows = (_parse_lines(path) for path, _ in version)
            for part in parts:
                rows.update(part)
            self._read = (version, rows)
        return dict(self._read[1])

    def _parts(self) -> list[Path]:
        """Files of lines that lie beside `samples/metadata.jsonl`, in the order of their names."""
        try:
            return [self.parts_dir / name for name in sorted(os.listdir(self.parts_dir)) if name.endswith(".jsonl")]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def write_metadata(self, rows: dict[str, dict[str, Any]]) -> None:
        """Replace `samples/metadata.jsonl`, whole or not at all."""
        with atomic(self.metadata_path) as temporary:
            temporary.write_bytes(_lines(rows.values()))

    def append_metadata(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add lines to `samples/metadata.jsonl`, on the disk when this returns; inside `writing_samples`.

        A sample that has a line already has two then, of which the later counts, until `writing_samples` ends. A writer
        that is killed leaves whole lines, and at most the beginning of one, which is not read.
        """
        append(self._appended_to, _lines(rows))

    def put_together(self, samples: Iterable[str] = ()) -> None:
        """Write `samples/metadata.jsonl` anew where it is not yet all there is to say: one whole line of each sample.

        Several processes may do so at once, since a line is in the file before it leaves the part that it came in, and
        only parts leave that nobody writes to any more.

        Parameters
        ----------
        samples : these stand in this order, wherever some of them stand now
        """
        parts = self._parts()
        rows = self.metadata()
        ordered = [sample for sample in dict.fromkeys(samples) if sample in rows]
        places, moved = set(ordered), iter(ordered)
        order = [next(moved) if sample in places else sample for sample in rows]
        text = self.metadata_path.read_bytes() if self.metadata_path.exists() else b""
        whole = text.count(b"\n") == len(rows) and text.endswith(b"\n")
        if rows and (parts or not whole or order != list(rows)):
            self.write_metadata({sample: rows[sample] for sample in order})
        for part in parts:
            state = _state(part)
            if state and (part.name.endswith(ENDED) or time.time() - state[0] / 1e9 > STALE):
                part.unlink(missing_ok=True)

    def image(self, sample: str) -> np.ndarray:
        """The image of a sample, uint8 of shape (height, width, 3).

        Raises
        ------
        HandscopeError
            There is no such sample, or its file is missing, damaged, or another picture than the one
            that was generated.
        """
        path, row = self.image_path(sample), self._row(sample)
        expected, made, again = row["image_sha256"], "generated", "run generate again, which makes it anew"
        if is_given(row):
            made, again = "given", "import it again"
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            state = path.stat()
        except (OSError, SyntaxError, UnidentifiedImageError) as error:
            refuse_unusable(error, path)
            flaw = "is damaged: remove it and" if path.exists() else "is missing:"
            raise HandscopeError(f"The image {path} {flaw} {again}.") from error
        file = (state.st_mtime_ns, state.st_size, expected)
        if self._compared.get(sample) != file:  # once for each file: it costs a fortieth of reading it
            if hashlib.sha256(pixels.data).hexdigest() != expected:
                raise HandscopeError(
                    f"The picture {path} is not the one that was {made} (its pixels have another hash): remove it and "
                    f"{again}."
                )
            self._compared[sample] = file
        return pixels

    def trajectory(self, sample: str) -> "Trajectory":
        """The trajectory of a sample.

        Raises
        ------
        HandscopeError
            There is no such sample, or its file is missing or damaged, or of another sample, noise, size, model or
            scheduler; or the sample is a given picture.
        """
        from .trajectory import Trajectory

        row = self._row(sample)
        if is_given(row):
            raise self._given_error("a trajectory")
        return Trajectory.load(self.trajectory_path(sample), self.trajectory_metadata(row))

    def trajectory_metadata(self, row: Mapping[str, Any]) -> dict[str, str]:
        """What the trajectory of a sample, a row of `metadata`, says of itself."""
        of_sample = {name: str(row[name]) for name in ("sample", "noise_sha256", "height", "width")}
        return of_sample | self._of_every_trajectory()

    def latents(self, sample: str) -> "Trajectory | Noised":
        """The latents that a sample's activations were read from: its trajectory, or what `extract` made of a given
        picture. Both have `noise`, ``noisy(i)`` and ``x0(i)``.

        Raises
        ------
        HandscopeError
            As in `trajectory`.
        """
        if not is_given(self._row(sample)):
            return self.trajectory(sample)
        return self.noised(sample)

    def noised(self, sample: str) -> "Noised":
        """What `extract` made of a given picture.

        Raises
        ------
        HandscopeError
            It is missing, damaged, or of another picture or model.
        """
        from .noised import Noised

        return Noised.load(self.latents_path(sample), self.noised_metadata(self._row(sample)))

    def noised_metadata(self, row: Mapping[str, Any]) -> dict[str, str]:
        """What the file of `Noised` latents of a given picture, a row of `metadata`, says of itself."""
        of_sample = {name: str(row[name]) for name in ("sample", "image_sha256", "noise_sha256")}
        return of_sample | self._of_every_trajectory()

    def latents_path(self, sample: str) -> Path:
        """Where `latents` lie, or will."""
        given = is_given(self._row(sample))
        return self.noised_dir / f"{sample}.safetensors" if given else self.trajectory_path(sample)

    def check_drawn(self, what: str) -> None:
        """Refuse a run of given pictures for what needs the path of a generation.

        Raises
        ------
        HandscopeError
            The run holds given pictures; `what` names what cannot be done with them.
        """
        if self.settings.get("generation", {}).get("pictures") == "given":
            raise self._given_error(what)

    def _given_error(self, what: str) -> HandscopeError:
        return HandscopeError(
            f"The pictures in {self.path} were given, and no generation drew them: {what} is of drawn samples. Use a "
            "run that was begun with generate."
        )

    def _of_every_trajectory(self) -> dict[str, str]:
        """What `run.yaml` says of every trajectory; read again only when the file has changed."""
        changed = self.settings_path.stat().st_mtime_ns if self.settings_path.exists() else 0
        if changed != self._expected[0]:
            settings = self.settings
            places = {"weight_hash": "model", "scheduler": "generation"}
            said = {name: settings.get(section, {}).get(name) for name, section in places.items()}
            self._expected = (changed, {name: value for name, value in said.items() if value is not None})
        return self._expected[1]

    @contextmanager
    def writing_samples(self, among_others: bool = False) -> Iterator[None]:
        """Be the only process that generates into this run, and clear away what a killed one left half-written.

        The lock is the system's and goes with the process, however it ends. Where there are no locks, as on Windows and
        on some disks that machines share, and among others, lines go to a file of this process alone in
        `samples/.parts`: no two ever write into one. When all parts are done, `put_together` makes one of them.

        Parameters
        ----------
        among_others : other processes may generate other samples at the same time

        Raises
        ------
        HandscopeError
            Another process is generating into it, and does not expect this one.
        """
        self.samples_dir.mkdir(exist_ok=True)
        with open(self.samples_dir / ".lock", "w") as lock:
            alone = _locked(lock, among_others) and not among_others
            if alone:
                for folder in (self.samples_dir, self.trajectories_dir):
                    for left in folder.glob(".*.tmp*"):
                        left.unlink(missing_ok=True)
                for part in self._parts():  # of processes that were killed
                    os.replace(part, _ended(part))
                self.put_together()
            else:
                self.parts_dir.mkdir(exist_ok=True)
                self._appended_to = self.parts_dir / f"{os.urandom(8).hex()}.jsonl"
            try:
                yield
            finally:
                own, self._appended_to = self._appended_to, self.metadata_path
                if own != self.metadata_path and own.exists():
                    os.replace(own, _ended(own))
            if alone or not among_others:
                self.put_together()

    def image_path(self, sample: str) -> Path:
        """Where the image of a sample lies, or will."""
        return self.samples_dir / f"{sample}.png"

    def trajectory_path(self, sample: str) -> Path:
        """Where the trajectory of a sample lies, or will."""
        return self.trajectories_dir / f"{sample}.safetensors"

    def _row(self, sample: str) -> dict[str, Any]:
        self.metadata()
        if sample not in self._read[1]:
            raise HandscopeError(
                f"There is no sample {sample!r} in {self.metadata_path}, which has {len(self._read[1])}."
            )
        return self._read[1][sample]


def is_given(row: Mapping[str, Any]) -> bool:
    """Whether a sample, a row of `Run.metadata`, is a given picture, which no generation drew."""
    return "given" in row


def _grouped(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `metadata` as one of `samples`: statistics take the prompt as what makes samples alike."""
    return row | {"prompt": row["given"]["group"]} if is_given(row) else row


def _state(path: Path) -> _State:
    """What tells a file from what it was before; None where there is none."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return (state.st_mtime_ns, state.st_size, state.st_ino)


def _ended(part: Path) -> Path:
    """The name of a part whose writer has ended."""
    return part if part.name.endswith(ENDED) else part.with_name(part.name.removesuffix(".jsonl") + ENDED)


def _parse_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a file of lines by sample, of each the last."""
    rows = {}
    try:
        *lines, last = path.read_text(encoding="utf-8").split("\n")
        if _is_json(last):  # else it is empty, or the beginning of a line whose writer was killed
            lines.append(last)
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            missing = [column for column in COLUMNS if column not in row]
            if missing:
                raise HandscopeError(
                    f"Line {number} of {path} lacks {', '.join(missing)}: remove the line and run generate again."
                )
            if row["sample"] != Path(str(row["sample"])).name:
                raise HandscopeError(
                    f"Line {number} of {path} names a sample {row['sample']!r}: expected the name of a file without a "
                    "folder. Remove the line."
                )
            rows[row["sample"]] = row
    except FileNotFoundError:  # of a part: its lines are in the whole by now
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, RecursionError) as error:
        raise HandscopeError(
            f"{path} is damaged ({error}): remove it and run generate again, which makes the same images."
        ) from error
    return rows


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return False
    return True


def _locked(file: IO[str], with_others: bool) -> bool:
    """Whether this process now holds the lock, or shares it; False where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if with_others else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise HandscopeError(
            f"Another process is generating into {Path(file.name).parents[1]}: wait until it has ended, or use another "
            "run folder."
        ) from error
    except OSError:
        return False
    return True
