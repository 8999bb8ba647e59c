"""What labelled samples teach the arms: directions, probes, selectors, each fitted without the prompt it is used on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.inference import auc, permuted_labels
from ..analysis.table import labelled, sample_table
from ..extract.labels import Labels
from ..guidance.losses import LatentLoss, ProbeLoss
from ..guidance.triage import Selector, threshold_for
from ..probes.ridge import RidgeProbe
from ..progress import Progress, quiet
from .selection import Fitted, features_of, fit_selector

if TYPE_CHECKING:
    from ..extract.models import Model
    from ..extract.run import Run

SHUFFLES = 5


@dataclass(frozen=True, eq=False)
class LookAt:
    """A way to do triage.

    Attributes
    ----------
    selector : Selector
    step, attempts : int
    threshold : dict of float by prompt, or None for the best of all attempts
    """

    selector: Selector
    step: int
    attempts: int
    threshold: dict[str, float] | None


@dataclass(frozen=True, eq=False)
class Knowledge:
    """Fitted to the surely labelled samples of a run, in folds of prompts; see the functions for what it gives.

    Attributes
    ----------
    fold : dict of int by prompt
    block : str
        The block that steering and the block probe work on.
    aucs : dict of float, the held-out AUC within prompts of each selector
    looks : dict of LookAt by name
    """

    fold: dict[str, int]
    block: str
    aucs: dict[str, float]
    looks: dict[str, LookAt]
    _directions: dict[tuple[int, int | None], NDArray] = field(repr=False)
    _centres: dict[int, NDArray] = field(repr=False)
    _probes: dict[tuple[str, int, int | None], RidgeProbe] = field(repr=False)

    def fold_of(self, prompt: str) -> int:
        """Which fold a prompt is in; one that was never labelled may use any, and is in the first."""
        return self.fold.get(prompt, 0)

    def directions(self, prompt: str) -> Mapping[str, NDArray]:
        """From bad to good, mean hand tokens of the block: the difference of means."""
        return {self.block: self._directions[self.fold_of(prompt), None]}

    def shuffled_directions(self, prompt: str, k: int) -> Mapping[str, NDArray]:
        """The same of labels permuted within prompts; `k` below `SHUFFLES`."""
        return {self.block: self._directions[self.fold_of(prompt), k]}

    def centres(self, prompt: str) -> Mapping[str, NDArray]:
        """The mean of good hands' tokens."""
        return {self.block: self._centres[self.fold_of(prompt)]}

    def block_loss(self, prompt: str, k: int | None) -> ProbeLoss:
        """A probe of the block's output at all tokens; of labels permuted within prompts where `k` is given."""
        return ProbeLoss({self.block: self._probes["block", self.fold_of(prompt), k]})

    def picture_loss(self, prompt: str, k: int | None) -> LatentLoss:
        """A probe of the predicted clean latents of all tokens; shuffled as in `block_loss`."""
        return LatentLoss(self._probes["picture", self.fold_of(prompt), k])


def learn(
    model: Model,
    run: Run,
    block: str,
    step: int,
    looks: Sequence[int],
    wanted: float = 2.0,
    attempts: int = 4,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = quiet,
) -> Knowledge:
    """Fit everything that the arms use.

    Parameters
    ----------
    run : Run
        With trajectories and labels.
    block, step : str, int
        Where steering and guidance get their directions and probes from.
    looks : sequence of int
        Steps at which triage may look; for each feature the one with the best held-out AUC within prompts is taken.
    wanted, attempts : as of `handscope.evaluation.selection`
    """
    table = labelled(sample_table(run), "sure", folds, run.path)
    prompts, bad = table["prompt"].to_numpy(), table["bad"].to_numpy(float)
    of = int(table["steps"].iloc[0])
    x = features_of(model, run, table, sorted({*looks, step}), [block], progress)
    fitted = {key: fit_selector(model, run, *key, x[key], bad, prompts, folds, seed) for key in x}
    fold = next(iter(fitted.values())).fold
    shuffled = permuted_labels(bad, prompts, SHUFFLES, seed, within=True)
    tokens = x[block, step].reshape(len(bad), -1, model.transformer.inner_dim)
    hands = _hand_means(run, table["sample"].tolist(), tokens)
    directions, centres, probes = {}, {}, {}
    for number in np.unique(fold):
        kept = fold != number
        for k, y in [(None, bad), *enumerate(shuffled)]:
            good_mean, bad_mean = (hands[kept & (y == label)].mean(0) for label in (0, 1))
            directions[int(number), k] = good_mean - bad_mean
            if k is None:
                centres[int(number)] = good_mean
            for name, key in (("block", (block, step)), ("picture", ("x0_flat", step))):
                l2 = fitted[key].l2[int(number)]
                probes[name, int(number), k] = RidgeProbe(l2).fit(x[key][kept], y[kept])
    return Knowledge(
        fold={prompt: int(fold[prompts == prompt][0]) for prompt in np.unique(prompts).tolist()},
        block=block,
        aucs={f"{name} at {at}": float(auc(one.scores, bad, prompts)) for (name, at), one in fitted.items()},
        looks=_looks(fitted, looks, bad, prompts, of, wanted, attempts),
        _directions=directions,
        _centres=centres,
        _probes=probes,
    )


def _looks(
    fitted: dict[tuple[str, int], Fitted],
    steps: Sequence[int],
    bad: NDArray[np.float64],
    prompts: NDArray[Any],
    of: int,
    wanted: float,
    attempts: int,
) -> dict[str, LookAt]:
    found = {}
    for feature in {name for name, _ in fitted}:
        ways = [one for (name, step), one in fitted.items() if name == feature and step in steps]
        best = max(ways, key=lambda one: float(auc(one.scores, bad, prompts)))
        limit = {
            prompt: threshold_for(
                best.scores[best.fold != best.fold[prompts == prompt][0]], wanted, attempts, best.step, of
            )
            for prompt in np.unique(prompts).tolist()
        }
        found[f"{feature} at {best.step}"] = LookAt(best.by_prompt, best.step, attempts, limit)
    return dict(sorted(found.items()))


def _hand_means(run: Run, samples: list[str], tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over each sample's hand tokens, (n, width)."""
    current = Labels(run.labels_path).current()
    means = np.empty((len(samples), tokens.shape[2]), np.float32)
    for i, sample in enumerate(samples):
        mask = current[sample].hands.ravel() > 0
        means[i] = tokens[i][mask].mean(0) if mask.any() else tokens[i].mean(0)
    return means
