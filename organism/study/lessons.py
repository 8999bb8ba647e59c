"""What labelled samples teach the arms: directions, probes, selectors, each fitted without the prompt it is used on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...analysis.statistics.auc import auc
from ...analysis.statistics.nulls import permuted_labels
from ...evaluation.early_looks import FittedLook, Folded, features_of, fit_selector
from ...guidance.triage import Selector, threshold_for
from ...labeling.database.labels import Labels
from ...labeling.table import labelled, sample_table
from ...probes.ridge import RidgeProbe
from ...progress import Progress, quiet

if TYPE_CHECKING:
    from ...models.model import Model
    from ...run.folder import Run

SHUFFLES = 5


@dataclass(frozen=True, eq=False)
class TriageLook:
    """How triage looks: by what, when, and how long it tries.

    Attributes
    ----------
    selector : Selector
    step, attempts : int
    cost : float, what the thresholds were chosen for, in plain generations
    threshold : dict of float by prompt, or None for the best of all attempts
    """

    selector: Selector
    step: int
    attempts: int
    cost: float
    threshold: dict[str, float] | None


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one set of labels taught of all prompts but those of one fold.

    Attributes
    ----------
    directions : for each block, an array of shape (width,)
        From bad to good: the difference of mean hand tokens, each prompt's own mean taken off.
    by_token : array of shape (tokens, width), the same in the first block with every token in its place
    centres : for each block, an array of shape (width,), mean hand tokens of good hands
    gate : probe of the mean hand token in the first block, 0 for the average hand
    probes : for each block, a probe of all its tokens
    picture : probe of the predicted clean latents of all tokens
    """

    directions: dict[str, NDArray[np.float32]]
    by_token: NDArray[np.float32]
    centres: dict[str, NDArray[np.float32]]
    gate: RidgeProbe
    probes: dict[str, RidgeProbe]
    picture: RidgeProbe


@dataclass(frozen=True, eq=False)
class Lessons:
    """FittedLook to the surely labelled samples of a run, in folds of prompts; see the functions for what it gives.

    Attributes
    ----------
    fold : dict of int by prompt
    blocks : tuple of str
        The blocks that interventions work on; arms of one block have the first.
    looks : dict of TriageLook by name
    """

    fold: dict[str, int]
    blocks: tuple[str, ...]
    looks: dict[str, TriageLook]
    _lessons: dict[tuple[int, int | None], Lesson] = field(repr=False)

    def fold_of(self, prompt: str) -> int:
        """Which fold a prompt is in; one that was never labelled may use any, and is in the first."""
        return self.fold.get(prompt, 0)

    def lesson(self, prompt: str, k: int | None = None) -> Lesson:
        """What was fitted without the prompt; with `k`, below `SHUFFLES`, of labels permuted within prompts."""
        return self._lessons[self.fold_of(prompt), k]


def learn(
    model: Model,
    run: Run,
    blocks: Sequence[str],
    step: int,
    looks: Sequence[int],
    cost: float = 2.0,
    attempts: int = 8,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = quiet,
) -> Lessons:
    """Fit everything that the arms use.

    Parameters
    ----------
    run : Run
        With trajectories and labels.
    blocks, step : sequence of str, int
        Where steering and guidance get their directions and probes from; triage looks into the first block.
    looks : sequence of int
        Steps at which triage may look; for each feature the one with the best held-out AUC within prompts is taken.
    cost, attempts : as of `handscope.evaluation.early_looks`
    """
    table = labelled(sample_table(run), "sure", folds, run.path)
    samples = Folded.of(table, folds, seed)
    prompts, bad, fold = samples.prompts, samples.bad, samples.fold
    of = int(table["steps"].iloc[0])
    x = features_of(model, run, table, sorted({*looks, step}), blocks[:1], progress)
    if blocks[1:]:
        others = features_of(model, run, table, [step], blocks[1:], progress)
        x |= {(block, step): others[block, step] for block in blocks[1:]}
    fitted = {}
    for done, key in enumerate(x):
        progress("learn", done, len(x))
        fitted[key] = fit_selector(model, run, *key, x[key], samples)
    taken = {block: x[block, step].reshape(len(bad), -1, model.stream_width) for block in blocks}
    hands = {block: _hand_means(run, table["sample"].tolist(), tokens) for block, tokens in taken.items()}
    within = {block: _within(means, prompts) for block, means in hands.items()}
    in_place = _within(taken[blocks[0]], prompts)
    lessons = {}
    for k, y in [(None, bad), *enumerate(permuted_labels(bad, prompts, SHUFFLES, seed, within=True))]:
        for number in np.unique(fold).tolist():
            kept = fold != number
            good, ill = kept & (y == 0), kept & (y == 1)
            l2 = {key: fitted[key].l2[number] for key in fitted}
            lessons[number, k] = Lesson(
                directions={block: means[good].mean(0) - means[ill].mean(0) for block, means in within.items()},
                by_token=in_place[good].mean(0) - in_place[ill].mean(0),
                centres={block: means[good].mean(0) for block, means in hands.items()},
                gate=_gate(RidgeProbe(l2[blocks[0], step]), hands[blocks[0]][kept], y[kept]),
                probes={block: RidgeProbe(l2[block, step]).fit(x[block, step][kept], y[kept]) for block in blocks},
                picture=RidgeProbe(l2["x0_flat", step]).fit(x["x0_flat", step][kept], y[kept]),
            )
    progress("learn", len(x), len(x))
    looked = [one for one in fitted.values() if one.feature not in blocks[1:] and one.step in looks]
    return Lessons(
        fold={prompt: int(fold[prompts == prompt][0]) for prompt in np.unique(prompts).tolist()},
        blocks=tuple(blocks),
        looks=_looks(looked, samples, of, cost, attempts),
        _lessons=lessons,
    )


def _gate(probe: RidgeProbe, x: NDArray[np.float32], y: NDArray[np.float64]) -> RidgeProbe:
    """FittedLook, and then set to be 0 on average: most hands are good, and a gate for the bad would never open."""
    probe.fit(x, y)
    probe.intercept_ -= float((x @ probe.coef_ + probe.intercept_).mean())
    return probe


def _looks(
    fitted: Sequence[FittedLook], samples: Folded, of: int, cost: float, attempts: int
) -> dict[str, TriageLook]:
    """For each feature the look with the best held-out AUC within prompts, with a threshold for each prompt."""
    prompts = samples.prompts
    best_looks = {}
    for feature in {one.feature for one in fitted}:
        looks = [one for one in fitted if one.feature == feature]
        best = max(looks, key=lambda one: float(auc(one.scores, samples.bad, prompts)))
        limit = {
            prompt: threshold_for(
                best.scores[best.fold != best.fold[prompts == prompt][0]], cost, attempts, best.step, of
            )
            for prompt in np.unique(prompts).tolist()
        }
        best_looks[f"{feature} at {best.step}"] = TriageLook(best.by_prompt, best.step, attempts, cost, limit)
    return dict(sorted(best_looks.items()))


def _within(x: NDArray[np.float32], prompts: NDArray[Any]) -> NDArray[np.float32]:
    """What is left of (n, ...) once each prompt's own mean is taken off: no caption can be a direction."""
    left = x.copy()
    for prompt in np.unique(prompts):
        left[prompts == prompt] -= x[prompts == prompt].mean(0)
    return left


def _hand_means(run: Run, samples: list[str], tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over each sample's hand tokens, (n, width)."""
    current = Labels(run.labels_path).current()
    means = np.empty((len(samples), tokens.shape[2]), np.float32)
    for i, sample in enumerate(samples):
        mask = current[sample].instances.ravel() > 0
        means[i] = tokens[i][mask].mean(0) if mask.any() else tokens[i].mean(0)
    return means
