"""Labels without looking: hand tokens from the silhouette, the verdict from shipped labels, else from the judge."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from ...errors import HandscopeError
from ...labeling.database.labels import Annotation, Labels
from ...labeling.subject import subject_of
from ...models.embedded import NAME, organism_of
from ...progress import Progress, quiet
from ...run.folder import Run
from ..captions import Caption
from ..judge import Judge
from ..silhouette import hand_tokens, silhouette
from .shipped import SAME_DB, ShippedLabels

SETTINGS = {"height": 96, "width": 96, "steps": 20, "guidance": 3.5}
"""Of the pictures of every organism that were looked at."""
TOKEN = 8  # pixels a side of one of the organism's tokens


def _check(row: Any) -> None:
    """Refuse a sample whose prompt or settings are not those that the labels and the judge were made for."""
    try:
        Caption.parse(row.prompt)
    except ValueError as error:
        raise HandscopeError(
            f"Automatic labels know the organism's captions only, and {row.sample} has another prompt: {error} "
            "Label this run by hand."
        ) from error
    for name, expected in SETTINGS.items():
        if getattr(row, name) != expected:
            raise HandscopeError(
                f"Automatic labels were made and tested for the organism's pictures with {name} {expected}, and sample "
                f"{row.sample} has {name} {getattr(row, name)}: generate with {expected}, or label this run by hand."
            )


def _labelled(row: Any, image: np.ndarray, shipped: pd.Series | None, judge: Judge) -> Annotation:
    """The label of a sample: the verdict of the shipped picture that it is, or the judge's; tokens by the silhouette.

    Hand tokens of an unsure hand keep the label 0.
    """
    kinds: tuple[str, ...] = ()
    if shipped is not None:
        verdict, score, source = shipped["verdict"], None, "hand labels"
        kinds = tuple(shipped["kinds"].split())
    else:
        verdict, score = judge.verdict(image, row.prompt)
        source = "judge"
    hands = hand_tokens(silhouette(image), image.shape[0] // TOKEN, image.shape[1] // TOKEN)
    label = {"good": 2, "good?": 2, "bad": 3, "bad?": 3, "unsure": 0}[verdict]
    return Annotation(
        sample=row.sample,
        image_sha256=row.image_sha256,
        labels=np.where(hands, label, 1).astype(np.uint8),
        instances=hands.astype(np.uint8),
        verdict=verdict,
        kinds=kinds,
        author="handscope",
        source=source,
        score=score,
    )


def label_auto(run: Run, progress: Progress = quiet) -> Counter[str]:
    """Label every sample of an organism's run that has no label for its picture yet.

    A sample of the shipped set inherits its hand label, if it is the same picture (see `shipped`). Any other
    is judged, where the judge has earned it (see `organism.judge`); where it abstains, or has not, the verdict is
    "unsure". How many came from where is added to ``run.yaml`` as ``labels``.

    Returns
    -------
    Counter
        How many samples got their label from where, over the whole run.

    Raises
    ------
    HandscopeError
        The subject of the run names no judge, the run has no samples, its prompts or settings are not those that the
        labels and the judge were made for, or a picture is not the one that was generated.
    """
    subject = subject_of(run)
    if subject.judge != "organism":
        raise HandscopeError(
            f"The subject {subject.name} of {run.path} names no judge, so that nothing gives verdicts without looking: "
            "label the run on the page, or import labels."
        )
    samples = run.samples()
    if samples.empty:
        raise HandscopeError(f"Expected samples to label in {run.samples_dir}, found none: run generate first.")
    organism = organism_of(run.settings)
    name = organism.name if organism else NAME
    labels, shipped, judge = Labels(run.labels_path), ShippedLabels.of(name), Judge.of(name)
    current = labels.current()
    made: list[Annotation] = []
    likenesses: list[float] = []
    for done, row in enumerate(samples.itertuples(index=False)):
        progress("label", done, len(samples))
        _check(row)
        image = run.image(row.sample)
        likeness = shipped.likeness(row.sample, image) if shipped else None
        likenesses.append(np.nan if likeness is None else likeness)
        annotation = current.get(row.sample)
        if annotation is None or annotation.image_sha256 != row.image_sha256:
            shown = shipped.table.loc[row.sample] if shipped and likenesses[-1] >= SAME_DB else None
            made.append(_labelled(row, image, shown, judge))
    labels.add(made)
    progress("label", len(samples), len(samples))
    current |= {annotation.sample: annotation for annotation in made}
    sources = Counter(current[sample].source for sample in samples["sample"])
    run.write_settings(
        {
            "labels": {
                "sources": dict(sources),
                "shipped_identical": int(np.isposinf(likenesses).sum()),
                "shipped_alike": int((np.isfinite(likenesses) & (np.array(likenesses) >= SAME_DB)).sum()),
                "same_picture_db": SAME_DB,
                "judge": judge.summary,
            }
        }
    )
    return sources
