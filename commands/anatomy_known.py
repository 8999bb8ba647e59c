"""What is known of pictures beside their pixels: a person's labels, and how many raised digits a prompt asks for."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..anatomy.judge.labels import Labelled, labelled, read_labels
from ..errors import HandscopeError
from ..labeling.subject import default_subject

RAISED = "gesture"
"""The fact of the subject hand that says how many digits a prompt asks for, as in "three fingers raised"."""


def raised_in(prompt: str) -> int | None:
    """How many digits a prompt asks for; None where it does not say."""
    return default_subject().numbers(prompt).get(RAISED)


def raised_by_prompts(pictures: Sequence[Path]) -> dict[Path, int]:
    """How many digits pictures should show raised: from the prompts in a ``metadata.jsonl`` beside them."""
    asked = {path: raised_in(row.get("prompt", "")) for path, row in _beside(pictures).items()}
    return {picture: number for picture, number in asked.items() if number is not None}


def prompts_by_metadata(pictures: Sequence[Path]) -> dict[Path, str]:
    """The prompts of pictures: from a ``metadata.jsonl`` beside them."""
    return {path: row["prompt"] for path, row in _beside(pictures).items()}


def pixels_by_metadata(pictures: Sequence[Path]) -> dict[Path, str]:
    """The hash that the pixels of pictures should have: from a run's ``metadata.jsonl`` beside them."""
    return {path: row["image_sha256"] for path, row in _beside(pictures).items() if row.get("image_sha256")}


def _beside(pictures: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """The lines about pictures in a ``metadata.jsonl`` beside them."""
    known: dict[Path, dict[str, Any]] = {}
    for folder in {picture.parent for picture in pictures}:
        path = folder / "metadata.jsonl"
        if not path.exists():
            continue
        try:
            rows = [json.loads(line) for line in filter(None, path.read_text(encoding="utf-8").split("\n"))]
            known |= {folder / row["file_name"]: row | {"prompt": "" + row.get("prompt", "")} for row in rows}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HandscopeError(
                f"{path} does not name a file and a prompt in each line ({error}): mend it, or move the pictures away "
                "from it."
            ) from error
    return {picture: known[picture] for picture in pictures if picture in known}


def labels_of(source: Path) -> Labelled:
    """Those of a run folder, grouped by prompt, or of a CSV."""
    return _of_run(source) if source.is_dir() else read_labels(source)


def _of_run(folder: Path) -> Labelled:
    """The newest verdict on each sample of a run, with the box of its hand where the label says which tokens it is."""
    from ..labeling.database.labels import Labels
    from ..labeling.table import check_noise, check_pictures
    from ..run.folder import Run

    run = Run(folder)
    current = Labels(run.labels_path).current()
    if not current:
        raise HandscopeError(f"{folder} has no labels yet: label it with handscope label {folder}.")
    samples = run.samples().set_index("sample")
    check_noise(samples, folder)  # the folds that are held out keep prompts together, and nothing else
    seen = run.prompts_as_seen()
    rows = []
    for sample, annotation in current.items():
        if sample not in samples.index:
            continue
        entry = samples.loc[sample]
        if annotation.image_sha256 != entry["image_sha256"]:
            raise HandscopeError(
                f"The label of {sample} was made on another image than {run.image_path(sample)} now holds: label it "
                "again."
            )
        row = {
            "path": run.image_path(sample).resolve().relative_to(folder.resolve()).as_posix(),
            "label": annotation.verdict,
            "group": seen[str(entry["prompt"])],
        }
        asked = raised_in(str(entry["prompt"]))
        row["raised"] = "" if asked is None else str(asked)
        numbers = np.unique(annotation.instances[annotation.instances > 0])
        if len(numbers) == 1:  # of several hands the verdict says only that one is bad
            y, x = np.nonzero(annotation.instances)
            tall, wide = (int(entry[side]) / n for side, n in zip(("height", "width"), annotation.instances.shape))
            ends = (x.min() * wide, y.min() * tall, (x.max() + 1) * wide, (y.max() + 1) * tall)
            row |= dict(zip(("x0", "y0", "x1", "y1"), map(str, ends), strict=True))
        if len(numbers) <= 1 or annotation.verdict.startswith("good"):
            rows.append(row)
    decided = [sample for sample, said in current.items() if sample in samples.index and said.verdict != "unsure"]
    check_pictures(samples.loc[decided].reset_index(), folder)
    return labelled(pd.DataFrame(rows).fillna(""), folder / "labels.sqlite")
