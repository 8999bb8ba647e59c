"""Labels that others made of a run's pictures: matched with its samples, laid on the token grid, and filled in."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import HandscopeError
from ...run.folder import Run, is_given
from ...run.prompts import own_seed
from ..database.annotation import Annotation
from ..database.labels import Labels
from ..grid import grid
from ..subject import subject_of
from .fit import fitted
from .on_grid import on_grid, verdicts
from .other_tools import read_other
from .record import IMPORTED
from .sources import Source
from .tables import SAMPLE

AUTHOR = "imported"
"""The author of labels whose file does not say who judged."""
NAMED = 3


@dataclass(frozen=True)
class Matched:
    """What a file calls a picture, and what it says of it as an annotation of the sample."""

    name: str
    annotation: Annotation

    def __str__(self) -> str:
        one = self.annotation
        tokens = ", ".join(
            f"{(one.labels == value).sum()} {word}"
            for value, word in ((2, "good"), (3, "bad"), (1, "outside"))
            if (one.labels == value).any()
        )
        return f"{self.name} → {one.sample}: {one.verdict or 'no verdict'}, tokens: {tokens or 'none judged'}"


def match_labels(
    run: Run,
    labels: Any,
    good: Sequence[str] = (),
    bad: Sequence[str] = (),
    author: str = AUTHOR,
    skip_unknown: bool = False,
) -> list[Matched]:
    """Annotations of a run's samples from what others say of them; nothing is written.

    A picture is a sample's by the sample's name, by its file's name (of a given picture also the name that it was given
    with), by prompt and seed, or by its pixels.

    Parameters
    ----------
    labels : path, or a ``datasets.Dataset``
        See `read_other`.
    good, bad : what the labels call good and bad, where they do not speak as handscope or the subject does
    author : whose labels these are
    skip_unknown : pass over pictures that are of no sample; else one of them is enough for a refusal

    Notes
    -----
    What is not said is taken from the labels that count for the sample now. A verdict without a place is of the
    instances that are marked already, else of the whole picture; a place without a verdict has the verdict that is
    there, else ``unsure``.

    Raises
    ------
    HandscopeError
        Nothing can be matched, a picture is of no sample, a word is no verdict, or a place does not fit its picture.
    """
    found, told = read_other(run, labels)
    samples = _Samples(run)
    of = {source.name: samples.of(source) for source in found}
    unknown = [name for name, sample in of.items() if sample is None]
    if len(unknown) == len(of) or (unknown and not skip_unknown):
        named = ", ".join(map(repr, unknown[:NAMED])) + (", …" if len(unknown) > NAMED else "")
        raise HandscopeError(
            f"{len(unknown)} of {len(of)} pictures of {told} are no samples of {run.path} ({named}): expected names "
            f"such as {samples.example}, or columns prompt and seed. "
            + ("Mend the names." if len(unknown) == len(of) else "Mend the names, or pass over with --skip-unknown.")
        )
    known = [source for source in found if of[source.name] is not None]
    twice = [sample for sample, count in Counter(of.values()).items() if sample and count > 1]
    if twice:
        raise HandscopeError(f"{told} speaks of {min(twice)} under two names: leave one of them.")
    verdict = verdicts(subject_of(run), known, good, bad, told)
    now = Labels(run.labels_path).current() if run.labels_path.exists() else {}
    origin = f"labels{IMPORTED}{getattr(told, 'name', told)}"
    rows, matched, silent = run.metadata(), [], []
    for source in known:
        sample = str(of[source.name])
        try:
            made = _annotation(run, sample, rows[sample], source, verdict, now.get(sample), author, origin)
        except HandscopeError as error:
            raise HandscopeError(f"{source.name} of {told}: {error}") from error
        if made is None:
            silent.append(source.name)
        else:
            matched.append(Matched(source.name, made))
    if not matched:
        raise HandscopeError(
            f"{told} says nothing of its pictures ({silent[0]} among them): expected a column label or verdict, a mask "
            "or a box."
        )
    return matched


def _annotation(
    run: Run,
    sample: str,
    row: Mapping[str, Any],
    source: Source,
    verdict: Any,
    before: Annotation | None,
    author: str,
    origin: str,
) -> Annotation | None:
    size, shape = (row["height"], row["width"]), grid(run, sample)
    if source.size not in (None, size):
        raise HandscopeError(f"its labels are for {source.size} pixels, and the sample has {size}")
    fit = fitted(size, size, None)
    if not source.said and before is not None and not any(verdict(region.said) for region in source.regions):
        source = replace(source, said=before.verdict, kinds=source.kinds or before.kinds)
    labels, instances, judged = on_grid(source, fit, size, shape, verdict)
    if not source.regions and judged and before is not None and before.instances.any():
        instances = before.instances
        value = {"good": 2, "bad": 3}.get(judged.rstrip("?"), 0)
        labels = np.where(instances > 0, value, before.labels).astype(np.uint8)
    if not judged and not labels.any():
        return None
    kinds = source.kinds if judged.startswith("bad") else ()
    who = str(source.columns.get("author") or source.columns.get("annotator") or author)
    return Annotation(sample, row["image_sha256"], labels, instances, judged or "unsure", kinds, who, origin)


def samples_of(
    run: Run, rows: Sequence[Mapping[str, Any]], told: Path, skip_unknown: bool = False
) -> list[tuple[str, Mapping[str, Any]]]:
    """The rows of a table, each with the sample whose picture it names, as `match_labels` finds it.

    Raises
    ------
    HandscopeError
        A picture is of no sample, unless these are passed over; or a sample is there twice.
    """
    samples, found, unknown = _Samples(run), [], []
    for row in rows:
        name = next((str(row[key]) for key in SAMPLE if row.get(key)), "")
        sample = samples.of(Source(Path(name), name, columns=row))
        if sample is None:
            unknown.append(name)
        else:
            found.append((sample, row))
    if unknown and not (skip_unknown and found):
        raise HandscopeError(
            f"{len(unknown)} of {len(rows)} pictures of {told} are no samples of {run.path} ({unknown[0]!r} among "
            f"them): expected names such as {samples.example}, or columns prompt and seed."
        )
    twice = [sample for sample, count in Counter(sample for sample, _ in found).items() if count > 1]
    if twice:
        raise HandscopeError(f"{told} has two rows of {twice[0]}: leave one of them.")
    return found


class _Samples:
    """The samples of a run by what others may call them."""

    def __init__(self, run: Run) -> None:
        rows = run.metadata()
        if not rows:
            raise HandscopeError(f"There are no samples in {run.path}: generate or import pictures first.")
        self.example = next(iter(rows))
        self._named = {name: sample for sample, row in rows.items() for name in (sample, row["file_name"])}
        self._named = _names_given(rows) | self._named
        self._drawn = {(row["prompt"], int(row["seed"])): sample for sample, row in rows.items()}
        self._seen = {row["image_sha256"]: sample for sample, row in rows.items()}

    def of(self, source: Source) -> str | None:
        """The sample that a picture is; None where it is none."""
        name = Path(source.name.replace("\\", "/")).name
        for each in (source.name, name, Path(name).stem):
            if each in self._named:
                return self._named[each]
        # A name that another tool has put something before, as uploads have.
        upload = re.fullmatch(r"[0-9a-zA-Z]+-(.+)", Path(name).stem)
        if upload and upload[1] in self._named:
            return self._named[upload[1]]
        prompt, seed = source.columns.get("prompt"), str(source.columns.get("seed", ""))
        if prompt and re.fullmatch(r"[0-9]+(\.0)?", seed):
            number = int(float(seed))
            # A seed of a prompt's own noise, or the one that was asked for.
            seeds = (number, own_seed(str(prompt), number))
            return next((self._drawn[prompt, one] for one in seeds if (prompt, one) in self._drawn), None)
        return self._seen.get(str(source.columns.get("image_sha256", "")))


def _names_given(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Samples by the names that given pictures had: in their folder, and alone where no other picture has it too."""
    found: dict[str, set[str]] = {}
    for sample, row in rows.items():
        if is_given(row):
            name = Path(row["given"]["name"])
            for each in (str(name), name.name, name.stem):
                found.setdefault(each, set()).add(sample)
    return {name: samples.pop() for name, samples in found.items() if len(samples) == 1}
