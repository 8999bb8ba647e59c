"""What scorers say of the pictures of arms: a row an instance, and one for each picture in which none was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import HandscopeError
from ..labeling.subject import Subject
from ..models.embedded import NAME, organism_of
from ..parallel import cores, each, finished
from ..progress import Progress, quiet
from ..run.folder import Run
from .blind import verdicts_of
from .opening import imported, noise_of

OUTCOMES = ("plausible", "implausible", "cannot tell", "undetected")
COLUMNS = ("arm", "sample", "instance", "outcome", "faults", "score")
SCORERS = ("anatomy", "organism", "labels")
VERDICTS = {"good": "plausible", "good?": "plausible", "bad?": "implausible", "bad": "implausible",
            "unsure": "cannot tell", "none": "undetected", **{name: name for name in OUTCOMES}}  # fmt: skip

Runs = Mapping[str, Run]


@dataclass(frozen=True, eq=False)
class Scored:
    """The pictures of all arms with what a scorer said of them.

    Attributes
    ----------
    instances : DataFrame with `COLUMNS`: instance from 1, 0 where none was found; outcome, one of `OUTCOMES`; faults,
        names of kinds with ``;`` between; score, higher for more plausible
    pictures : DataFrame with arm, sample, prompt, noise, asked (whether the prompt asks for an instance), path, seconds
        and calls, a row a picture in the order in which arms and samples come
    scorer : str, as readers know it
    errors : array of shape (groups, 4), optional
        Verdicts against labels in groups, as of `handscope.analysis.statistics.verdicts.Counts`: how the scorer errs.
    """

    instances: pd.DataFrame
    pictures: pd.DataFrame
    scorer: str
    errors: np.ndarray | None = None


def pictures_of(runs: Runs, samples: Mapping[str, Sequence[str]], subject: Subject) -> pd.DataFrame:
    """The pictures of arms, in the form of `Scored.pictures`; prompts that a model sees alike are one.

    Parameters
    ----------
    samples : of each arm, those that count
    """
    parts = []
    for arm, run in runs.items():
        rows, seen = run.metadata(), run.prompts_as_seen()
        family = run.settings.get("provenance", {}).get("family", "")
        some = [rows[name] for name in samples[arm]]
        parts.append(
            pd.DataFrame(
                {
                    "arm": arm,
                    "sample": [row["sample"] for row in some],
                    "prompt": [seen[row["prompt"]] for row in some],
                    "noise": [noise_of(row, family) for row in some],
                    "asked": [subject.asks(row["prompt"]) for row in some],
                    "path": [str(run.image_path(row["sample"])) for row in some],
                    "calls": [row.get("calls", np.nan) for row in some],
                    "seconds": [row.get("seconds", np.nan) for row in some],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def of_verdicts(arm: str, samples: Sequence[str], bad: np.ndarray) -> pd.DataFrame:
    """Verdicts on whole pictures, 1 bad, 0 good, NaN (n,), as instances of one a picture; and ``bad`` as it was."""
    outcome = np.where(np.isnan(bad), "cannot tell", np.where(bad > 0.5, "implausible", "plausible"))
    said = {"arm": arm, "sample": samples, "instance": 1, "outcome": outcome, "faults": "", "score": 1 - bad}
    return pd.DataFrame({**said, "bad": bad})


def score_arms(
    scorer: str,
    runs: Runs,
    samples: Mapping[str, Sequence[str]],
    subject: Subject,
    folder: Path,
    calibration: str | None = None,
    progress: Progress = quiet,
) -> Scored:
    """Score every picture of every arm, by one scorer for all.

    Parameters
    ----------
    scorer : one of `SCORERS`, a CSV of verdicts, or ``module:function`` from pictures and prompts to 1 bad, 0 good, NaN
    runs, samples : of each arm its run folder and the samples that count
    folder : of the evaluation
    calibration : for ``anatomy``; by default the organism's where it drew every picture that a model drew

    Raises
    ------
    HandscopeError
        There is no such scorer, or it says nothing of the pictures.
    """
    pictures = pictures_of(runs, samples, subject)
    if scorer == "anatomy":
        instances, errors = _by_anatomy(runs, samples, calibration, progress)
    elif scorer == "labels":
        instances, errors = _by_labels(folder), None
        pictures = pictures[pd.MultiIndex.from_frame(pictures[["arm", "sample"]]).isin(
            pd.MultiIndex.from_frame(instances[["arm", "sample"]]))].reset_index(drop=True)  # fmt: skip
    elif scorer == "organism":
        from ..organism.judge import Judge

        judge = Judge.load()
        instances = _by_picture(partial(_judged, judge), runs, pictures, progress)
        errors = np.array(judge.counts, float) if judge.counts and _all_of(NAME, runs) else None
    elif scorer.endswith(".csv"):
        instances, errors = _by_table(Path(scorer), pictures), None
    else:
        instances, errors = _by_picture(partial(_asked, imported(scorer)), runs, pictures, progress), None
    return Scored(instances[list(COLUMNS)], pictures, scorer, errors)


def _by_anatomy(
    runs: Runs, samples: Mapping[str, Sequence[str]], calibration: str | None, progress: Progress
) -> tuple[pd.DataFrame, np.ndarray | None]:
    from ..anatomy.judge.calibration import Calibration
    from ..anatomy.judge.instances import instance_table
    from ..anatomy.judge.scoring import judge
    from ..anatomy.judge.stage import examine_files, of_run

    card = Calibration.load(calibration or _usual(runs))
    parts, done, total = [], 0, sum(map(len, samples.values()))
    for arm, run in runs.items():
        known, out = of_run(run, samples[arm]), run.path / "anatomy"
        step = -(-len(known["paths"]) // max(cores() * 4, 1))
        shares = [known["paths"][first : first + step] for first in range(0, len(known["paths"]), max(step, 1))]
        # Processes write one journal together; what all have done is then read from it.
        for place, _ in finished(partial(_examine, known, out), shares, "score", progress=progress, near=True):
            done += len(shares[place])
            progress("score", done, total)
        read = examine_files(**known, out=out)
        if read.skipped:
            first = read.skipped[0]
            raise HandscopeError(f"{first.path} of the arm {arm!r} cannot be scored: {first.reason}.")
        table = instance_table(judge(read.examined, "calibrated", card))
        names = np.array([path.stem for path in read.paths])
        parts.append(table.assign(arm=arm, sample=names[table["image"]]))
    counts = card.trust.get("calibrated", {}).get("counts")
    return pd.concat(parts, ignore_index=True), None if counts is None else np.array(counts, float)


def _examine(known: Mapping[str, Any], out: Path, paths: Sequence[Path]) -> None:
    from ..anatomy.judge.stage import examine_files

    examine_files(**{**known, "paths": paths}, out=out)


def _usual(runs: Runs) -> str:
    """The calibration for pictures of these arms: one for all, or their rates would not compare."""
    drawn = [run.settings for run in runs.values() if run.settings.get("provenance")]
    return "organism" if drawn and all(organism_of(settings) for settings in drawn) else "general"


def _all_of(organism: str, runs: Runs) -> bool:
    """Whether one organism drew all pictures, so that what is known of a judge of its pictures holds."""
    return all((one := organism_of(run.settings)) is not None and one.name == organism for run in runs.values())


def _by_picture(
    judged: Callable[[Sequence[np.ndarray], Sequence[str]], np.ndarray],
    runs: Runs,
    pictures: pd.DataFrame,
    progress: Progress,
) -> pd.DataFrame:
    """A verdict on each whole picture, which then counts as one instance."""
    rows = list(pictures[["arm", "sample", "prompt"]].itertuples(index=False))
    some = [rows[first : first + 32] for first in range(0, len(rows), 32)]

    def one(batch: list[Any]) -> np.ndarray:
        return np.asarray(judged([runs[row.arm].image(row.sample) for row in batch], [row.prompt for row in batch]))

    bad = np.concatenate(each(one, some, progress, "score", near=True)).astype(float)
    return of_verdicts("", pictures["sample"].tolist(), bad).assign(arm=pictures["arm"].to_numpy())


def _judged(judge: Any, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
    return np.array([judge.verdict(image, prompt)[1] for image, prompt in zip(images, prompts)])


def _asked(function: Callable[..., Any], images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
    from PIL import Image

    said = np.asarray(function([Image.fromarray(image) for image in images], list(prompts)), float)
    if said.shape != (len(images),):
        raise HandscopeError(f"The scorer gave shape {said.shape} for {len(images)} pictures: expected a number each.")
    return said


def _by_labels(folder: Path) -> pd.DataFrame:
    """The labels of the evaluation's blind look, of the pictures that have one."""
    said = verdicts_of(folder).dropna(subset=["verdict"])
    if said.empty:
        raise HandscopeError(
            f"Nothing of the blind look in {folder / 'blind'} is labelled yet: handscope label {folder / 'blind'}."
        )
    return said.assign(
        instance=1, outcome=said["verdict"].map(VERDICTS), faults=said["kinds"].map(";".join), score=np.nan
    )


def _by_table(path: Path, pictures: pd.DataFrame) -> pd.DataFrame:
    """Verdicts of a CSV: arm, sample (or file_name) and verdict, and perhaps faults; a row an instance."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise HandscopeError(f"The verdicts {path} could not be read ({error}).") from error
    if "sample" not in table and "file_name" in table:
        table["sample"] = table["file_name"].map(lambda name: Path(name).stem)
    lacking = {"arm", "sample", "verdict"} - {*table}
    if lacking:
        raise HandscopeError(
            f"{path} lacks the column {min(lacking)}: expected arm, sample, verdict and, where known, faults."
        )
    unknown = sorted({*table["verdict"]} - {*VERDICTS})
    if unknown:
        raise HandscopeError(f"{path} has a verdict {unknown[0]!r}: expected one of {', '.join(VERDICTS)}.")
    known = pictures[["arm", "sample"]].merge(table, on=["arm", "sample"], how="left")
    left = int(known["verdict"].isna().sum())
    if left:
        first = known[known["verdict"].isna()].iloc[0]
        raise HandscopeError(
            f"{path} says nothing of {left} pictures, {first['sample']} of the arm {first['arm']!r} among them: give "
            "each a verdict, unsure where it cannot be told."
        )
    outcome = known["verdict"].map(VERDICTS)
    number = known.groupby(["arm", "sample"]).cumcount() + 1
    faults = known["faults"].fillna("") if "faults" in known else ""
    return known.assign(outcome=outcome, instance=number.where(outcome != "undetected", 0), faults=faults, score=np.nan)
