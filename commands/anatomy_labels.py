"""Labels of a run, or of a CSV, as `anatomy calibrate` takes them."""

from pathlib import Path

import numpy as np
import pandas as pd

from ..anatomy.labels import Labelled, labelled, read_labels
from ..errors import HandscopeError


def labels_of(source: Path) -> Labelled:
    """Those of a run folder, grouped by prompt, or of a CSV."""
    return _of_run(source) if source.is_dir() else read_labels(source)


def _of_run(folder: Path) -> Labelled:
    """The newest verdict on each sample of a run, with the box of its hand where the label says which tokens it is."""
    from ..extract.labels import Labels
    from ..extract.run import Run
    from ..organism.captions import GESTURES, Caption

    run = Run(folder)
    current = Labels(run.labels_path).current()
    if not current:
        raise HandscopeError(f"{folder} has no labels yet: label it with handscope label {folder}.")
    samples = run.samples().set_index("sample")
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
            "group": str(entry["prompt"]),
        }
        try:
            row["raised"] = str(sum(GESTURES[Caption.parse(entry["prompt"]).gesture]))
        except ValueError:
            row["raised"] = ""
        numbers = np.unique(annotation.hands[annotation.hands > 0])
        if len(numbers) == 1:  # of several hands the verdict says only that one is bad
            y, x = np.nonzero(annotation.hands)
            tall, wide = (int(entry[side]) / n for side, n in zip(("height", "width"), annotation.hands.shape))
            ends = (x.min() * wide, y.min() * tall, (x.max() + 1) * wide, (y.max() + 1) * tall)
            row |= dict(zip(("x0", "y0", "x1", "y1"), map(str, ends), strict=True))
        if len(numbers) <= 1 or annotation.verdict.startswith("good"):
            rows.append(row)
    return labelled(pd.DataFrame(rows).fillna(""), folder / "labels.sqlite")
