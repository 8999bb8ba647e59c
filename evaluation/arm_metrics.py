"""Picture metrics of arms: distances of each arm's pictures to a reference, and mean scores, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..anatomy.read.pictures import find_pictures
from ..errors import HandscopeError
from ..progress import Progress, quiet
from .metrics import Metric, named
from .metrics.measure import COLUMNS, distance, mean, of_files, row


@dataclass(frozen=True)
class Measures:
    """What is measured of each arm's pictures.

    Attributes
    ----------
    names : tuple of str, as in `handscope metrics`: kid, clip-score=FOLDER, module:function …
    features : str, what distances are of
    reference : str, optional, the folder or run folder that distances are to
    """

    names: tuple[str, ...] = ()
    features: str = "landmark"
    reference: str | None = None

    def found(self) -> tuple[list[Metric], Metric | None, list[Path]]:
        """The metrics, the features of distances, and the reference's pictures.

        Raises
        ------
        HandscopeError
            There is no such metric, it lacks its weights, or a distance has no reference.
        """
        measures = [_spelt(name) for name in self.names]
        if wrong := [one.name for one in measures if one.kind == "features"]:
            raise HandscopeError(f"{wrong[0]} is no metric: name it as features, and a distance as a metric.")
        distances = [one for one in measures if one.kind == "distance"]
        if not distances:
            return measures, None, []
        if self.reference is None:
            raise HandscopeError(f"{distances[0].name} is a distance: say to which pictures, reference: FOLDER.")
        samples = Path(self.reference) / "samples"
        there = samples if samples.is_dir() else Path(self.reference)
        return measures, _spelt(self.features), find_pictures([there]).pictures


def arm_metrics(pictures: pd.DataFrame, measures: Measures, progress: Progress = quiet) -> pd.DataFrame:
    """A row for each arm and metric: the columns of `handscope.evaluation.metrics.measure.table` behind the arm's name.

    Parameters
    ----------
    pictures : as of `handscope.evaluation.scored.Scored`
    """
    metrics, features, reference = measures.found()
    against = None if features is None else of_files(features, reference, progress=progress)
    rows: list[dict[str, Any]] = []
    for arm, own in pictures.groupby("arm", sort=False) if metrics else ():
        paths, prompts = [Path(path) for path in own["path"]], own["prompt"].to_numpy()
        seen = None if features is None else of_files(features, paths, progress=progress)
        for metric in metrics:
            if metric.kind == "distance":
                assert seen is not None and against is not None
                made = row(metric.name, distance(metric, seen, against, prompts), measures.features)
            else:
                made = row(metric.name, mean(of_files(metric, paths, prompts.tolist(), progress), prompts))
            rows.append({"arm": arm} | made)
    return pd.DataFrame(rows, columns=["arm", *COLUMNS])


def _spelt(text: str) -> Metric:
    name, _, path = text.partition("=")
    return named(name, **({"path": path} if path else {}))
