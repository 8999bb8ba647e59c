"""How far annotators agree, with intervals over prompts, and which samples they should look at again.

The unit is the sample, and prompts are drawn for the intervals: tokens of one image stand or fall together. Only people
are compared: automatic labels are left out, and so are reviews, which were made with the others' labels in view.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.statistics.agreement import Array, cohen_kappa, coincidences, confusion, krippendorff_alpha, over_groups
from ..run.folder import Run
from .database.annotation import AUTOMATIC, Annotation
from .database.label_records import RATINGS
from .database.labels import Labels
from .subject import Subject, subject_of

SAME_PLACE = 0.7
"""Two annotators agree on where instances are if the intersection over union of these tokens is at least this."""
COLUMNS = ["measure", "of", "value", "low", "high", "samples", "prompts", "note"]
_PLACE = {"good": 0.0, "good?": 1.0, "unsure": 1.5, "bad?": 2.0, "bad": 3.0}
_SIDES = {"good": 0, "good?": 0, "bad?": 1, "bad": 1}


Shared = dict[str, list[Annotation]]
"""The judgements that are compared, by sample; see `shared_judgements`."""


def agreement(run: Run, shared: Shared | None = None) -> pd.DataFrame:
    """Agreement of every two annotators, and of all.

    Parameters
    ----------
    shared : dict, optional
        What `shared_judgements` found, for a caller that needs it twice.

    Returns
    -------
    DataFrame
        One row a measure and pair, or ``all``: measure, of, value, low and high (95% interval), samples, prompts, note
        (why there is no number). The measures:

        - ``verdict kappa``: Cohen's kappa, the good side against the bad side; samples that either calls unsure are
          left out. Of all: the mean over pairs, weighted by what each shares (Light 1971).
        - ``token kappa``: Cohen's kappa of the token labels 1, 2 and 3, where both labelled.
        - the subject's noun and ``IoU``: mean over samples of the intersection over union of the tokens of instances;
          where neither found one, the sample is left out.
        - ``verdict alpha``: Krippendorff's alpha, nominal, of the sides.
        - ``rating alpha``: Krippendorff's alpha, ordinal, of the ratings 0, 0.5 and 1.

        Empty where nobody shares a sample.
    """
    shared = shared_judgements(run) if shared is None else shared
    rows = _of_annotations(shared, subject_of(run)) + _of_ratings(run)
    return pd.DataFrame(rows, columns=COLUMNS)


def review_queue(run: Run, shared: Shared | None = None) -> pd.DataFrame:
    """Samples whose annotators disagree, those who do so most first; `shared` as in `agreement`.

    Returns
    -------
    DataFrame
        sample; disagreement, how far verdicts are apart (0 to 1) and how little the tokens of instances overlap (0 to
        1), summed for the pair that differs most; why, in words; reviewed (bool), whether a review has settled it.
    """
    images = _images(run)
    settled = {sample for sample, image in Labels(run.labels_path).reviewed() if images.get(sample) == image}
    rows, subject = [], subject_of(run)
    for sample, judgements in (shared_judgements(run) if shared is None else shared).items():
        pairs = [_difference(a, b, subject) for a, b in combinations(judgements, 2)]
        amount, why = max(pairs, key=lambda pair: (bool(pair[1]), pair[0]))
        if why:
            rows.append((sample, amount, why, sample in settled))
    table = pd.DataFrame(rows, columns=["sample", "disagreement", "why", "reviewed"])
    table = table.astype({"disagreement": float, "reviewed": bool})
    return table.sort_values("disagreement", ascending=False, kind="stable", ignore_index=True)


def shared_judgements(run: Run) -> Shared:
    """What two or more people said of the same image and grid of the run: no drafts, reviews or automatic labels."""
    labels, images = Labels(run.labels_path), _images(run)
    people = Counter(
        state.sample
        for state in labels.states()
        if state.author != AUTOMATIC and images.get(state.sample) == state.image_sha256
    )
    twice = sorted(sample for sample, count in people.items() if count > 1)
    shared = {}
    with labels.kept_open() if twice else nullcontext():
        for sample in twice:
            of_sample = [a for a in labels.by_author(sample).values() if a.author != AUTOMATIC]
            judgements = [a for a in of_sample if a.image_sha256 == images[sample]]
            if len(judgements) > 1 and len({a.labels.shape for a in judgements}) == 1:
                shared[sample] = judgements
    return shared


def iou(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Intersection over union of the tokens of any instance, from two grids of numbers; NaN where neither has one."""
    union = int(((a > 0) | (b > 0)).sum())
    return float(((a > 0) & (b > 0)).sum() / union) if union else float("nan")


def _images(run: Run) -> dict[str, str]:
    return {sample: row["image_sha256"] for sample, row in run.metadata().items()}


@dataclass(frozen=True)
class _Measure:
    name: str
    statistic: Callable[[Array], Array]
    counts: Callable[[Annotation, Annotation], Array | None]
    shape: tuple[int, ...]
    undefined: str


def _verdict_counts(a: Annotation, b: Annotation) -> Array | None:
    if a.verdict not in _SIDES or b.verdict not in _SIDES:
        return None
    return confusion([_SIDES[a.verdict]], [_SIDES[b.verdict]], 2)[0]


def _token_counts(a: Annotation, b: Annotation) -> Array | None:
    both = (a.labels > 0) & (b.labels > 0)
    pairs = 3 * (a.labels[both].astype(np.intp) - 1) + b.labels[both] - 1
    return np.bincount(pairs, minlength=9).reshape(3, 3).astype(np.float64) if both.any() else None


def _overlap(a: Annotation, b: Annotation) -> Array | None:
    value = iou(a.instances, b.instances)
    return None if np.isnan(value) else np.array([value, 1.0])


def _mean(counts: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(counts[..., 0] / counts[..., 1])


def _measures(subject: Subject) -> tuple[_Measure, ...]:
    same = "both gave one and the same"
    return (
        _Measure("verdict kappa", cohen_kappa, _verdict_counts, (2, 2), f"{same} verdict throughout"),
        _Measure("token kappa", cohen_kappa, _token_counts, (3, 3), f"{same} label throughout"),
        _Measure(f"{subject.noun} IoU", _mean, _overlap, (2,), f"neither found {subject.one}"),
    )


def _of_annotations(shared: Shared, subject: Subject) -> list[tuple[object, ...]]:
    by_pair: dict[tuple[str, str], list[tuple[Annotation, Annotation]]] = {}
    for judgements in shared.values():
        for a, b in combinations(sorted(judgements, key=lambda judgement: judgement.author), 2):
            by_pair.setdefault((a.author, b.author), []).append((a, b))
    rows: list[tuple[object, ...]] = []
    for measure in _measures(subject):
        counted = {}
        for pair, both in sorted(by_pair.items()):
            found = [(a.sample, measure.counts(a, b)) for a, b in both]
            counted[pair] = {sample: counts for sample, counts in found if counts is not None}
            values = np.array(list(counted[pair].values())).reshape(-1, *measure.shape)
            rows.append(_row(measure.name, _named(pair), measure.statistic, values, counted[pair], measure.undefined))
        if len(counted) > 1:
            samples = sorted({sample for of_pair in counted.values() for sample in of_pair})
            nothing = np.zeros(measure.shape)
            stacked = [[of_pair.get(sample, nothing) for of_pair in counted.values()] for sample in samples]
            values = np.array(stacked).reshape(-1, len(counted), *measure.shape)
            if measure.statistic is _mean:
                values, statistic = values.sum(1), measure.statistic
            else:
                statistic = _mean_over_pairs
            rows.append(_row(measure.name, "all", statistic, values, samples, measure.undefined))
    if by_pair:
        sides = {s: [_SIDES[j.verdict] for j in judged if j.verdict in _SIDES] for s, judged in shared.items()}
        rows.append(_alpha("verdict alpha", "all", sides, 2, ordinal=False))
    return rows


def _mean_over_pairs(counts: Array) -> Array:
    """Kappa of each pair of annotators, (..., pairs, K, K) to (...), averaged with what they share as weights."""
    values = cohen_kappa(counts)
    weights = np.where(np.isnan(values), 0.0, counts.sum((-2, -1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.nan_to_num(values) * weights).sum(-1) / weights.sum(-1))


def _of_ratings(run: Run) -> list[tuple[object, ...]]:
    ratings = Labels(run.labels_path).ratings()
    ratings = ratings[ratings["image_sha256"] == ratings["sample"].map(_images(run))]
    raters = sorted(ratings["rater"].unique())
    sets = [*combinations(raters, 2), *([tuple(raters)] if len(raters) > 2 else [])]
    rows = []
    for chosen in sets:
        mine = ratings[ratings["rater"].isin(chosen)].groupby("sample")["value"]
        votes = {str(sample): [RATINGS.index(value) for value in values] for sample, values in mine}
        if any(len(values) > 1 for values in votes.values()):
            rows.append(
                _alpha("rating alpha", _named(chosen) if len(chosen) == 2 else "all", votes, len(RATINGS), ordinal=True)
            )
    return rows


def _alpha(name: str, of: str, votes: dict[str, list[int]], values: int, ordinal: bool) -> tuple[object, ...]:
    """A row on Krippendorff's alpha of what was said of each sample."""
    kept = {sample: given for sample, given in votes.items() if len(given) > 1}
    counts = np.array([np.bincount(given, minlength=values) for given in kept.values()]).reshape(-1, values)

    def statistic(table: Array) -> Array:
        return krippendorff_alpha(table, ordinal)

    return _row(name, of, statistic, coincidences(counts), kept, "all said the same of every sample")


def _row(
    measure: str,
    of: str,
    statistic: Callable[[Array], Array],
    counts: Array,
    samples: Iterable[str],
    undefined: str,
) -> tuple[object, ...]:
    prompts = [sample.rpartition("-")[0] or sample for sample in samples]
    number = len(set(prompts))
    value, low, high = over_groups(statistic, counts, prompts)
    note = ""
    if not prompts:
        note = "they share no sample of which this can be told"
    elif np.isnan(value):
        note = f"not defined: {undefined}"
    elif np.isnan(low):
        note = "no interval: all samples are of one prompt"
    return measure, of, value, low, high, len(prompts), number, note


def _named(pair: Sequence[str]) -> str:
    return " and ".join(pair)


def _difference(a: Annotation, b: Annotation, subject: Subject) -> tuple[float, str]:
    """How far two judgements of a sample are apart, and on what they disagree; no words where they agree."""
    gap = abs(_PLACE[a.verdict] - _PLACE[b.verdict]) / max(_PLACE.values())
    overlap = iou(a.instances, b.instances)
    apart = 0.0 if np.isnan(overlap) else 1 - overlap
    both = (a.labels >= 2) & (b.labels >= 2)
    mixed = float((a.labels[both] != b.labels[both]).mean()) if both.any() else 0.0
    why = []
    if _SIDES.get(a.verdict) != _SIDES.get(b.verdict):
        said = [subject.verdicts.get(judged.verdict, judged.verdict) for judged in (a, b)]
        why.append(f"{a.author} says {said[0]}, {b.author} {said[1]}")
    elif mixed:
        why.append(f"{a.author} and {b.author} disagree on {subject.one}")
        gap = max(gap, mixed)
    if 1 - apart < SAME_PLACE:
        why.append(f"{subject.noun} tokens of {a.author} and {b.author} overlap by {overlap:.2f}")
    return gap + apart, "; ".join(why)
