"""An automatic judge of the organism's hands: outline features and a logistic regression fitted to hand labels.

A classifier that learnt good from corrupted *renders* is useless here, because a generator's faults are not a
renderer's. So the judge learns from labelled generated pictures, is tested on prompts that it has not seen, and
abstains where it is not sure. On pictures of another organism it is trusted only where it was checked against labels
of theirs (`Judge.of`); audit it again before trusting it on another model, or on pictures that were steered.

``python -m handscope.organism.study.fit_judge`` fits it to the shipped labels and writes ``judge.json``.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.statistics.agreement import cohen_kappa, confusion
from ..analysis.statistics.auc import auc
from ..analysis.statistics.folds import codes
from ..analysis.statistics.intervals import interval, picked_groups
from ..errors import HandscopeError
from ..files import atomic
from ..models.embedded import NAME, ORGANISMS
from .shape import features

CARD = Path(__file__).with_name("judge.json")
CHECKS = Path(__file__).with_name("judge_checks.json")
"""How a judge does on labelled pictures of an organism that it was not fitted to, and its band there, by name."""
NEEDED_KAPPA, NEEDED_KAPPA_DECIDED = 0.6, 0.75
L2 = 30.0  # strength of the penalty on standardised features; labels are few and noisy


@dataclass(frozen=True)
class Judge:
    """A fitted judge.

    Attributes
    ----------
    names : features used, in order. mean, scale, weights : (n_features,). intercept : float.
    sure_good, sure_bad : probabilities of "bad" below and above which it decides; between them it abstains.
    summary : how it did on prompts that it had not seen (see `evaluate`).
    counts : its verdicts there against labels, a row a prompt, as of `handscope.analysis.statistics.verdicts.Counts`;
        empty where that is not known.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    sure_good: float
    sure_bad: float
    summary: dict[str, Any]
    counts: tuple[list[int], ...] = ()

    @classmethod
    def load(cls, path: Path = CARD) -> "Judge":
        """Read a judge from its JSON card."""
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
            values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in card.items()}
            return cls(**values)
        except (OSError, ValueError, TypeError) as error:
            raise HandscopeError(f"The judge in {path} is damaged ({error}): install handscope again.") from error

    @classmethod
    def of(cls, name: str) -> "Judge":
        """The judge of an organism's pictures, with a summary of how it did on them.

        Where nobody has labelled pictures of the organism, it is not trusted and abstains.
        """
        fitted = ORGANISMS[name].judge
        judge = cls.load(card_of(fitted))
        if fitted == name:
            return judge
        found = json.loads(CHECKS.read_text(encoding="utf-8")).get(name)
        if found is None:
            return replace(judge, summary={"fitted_to": fitted, "n": 0, "trusted": False}, counts=())
        low, high = found["band"]
        return replace(judge, sure_good=low, sure_bad=high, summary={"fitted_to": fitted, **found}, counts=())

    def save(self, path: Path = CARD) -> None:
        """Write the card; all of it or nothing."""
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def probability(self, x: np.ndarray) -> np.ndarray:
        """Probability of "bad" for feature rows of shape (n, n_features)."""
        z = (x - np.array(self.mean)) / np.array(self.scale) @ np.array(self.weights) + self.intercept
        return 1 / (1 + np.exp(-z))

    def verdict(self, image: np.ndarray, caption: str) -> tuple[str, float]:
        """``good``, ``bad`` or ``unsure``, and the probability of "bad", of one picture (height, width, 3), uint8.

        A judge that did not reach the agreement with hand labels that this project asks for is unsure of everything.
        """
        values = features(image, caption)
        p = float(self.probability(np.array([[values[name] for name in self.names]]))[0])
        if not self.summary["trusted"] or self.sure_good < p < self.sure_bad:
            return "unsure", p
        return ("good" if p <= self.sure_good else "bad"), p


def card_of(name: str) -> Path:
    """The file of the judge that was fitted to an organism's labels."""
    return CARD if name == NAME else CARD.with_name(f"judge_{name}.json")


def fit(x: np.ndarray, bad: np.ndarray, names: list[str], summary: dict[str, Any], band: tuple[float, float]) -> Judge:
    """A judge from feature rows (n, n_features) and labels (n,), 1 for bad."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = x.mean(0), x.std(0) + 1e-6
    model = LogisticRegression(C=1 / L2, max_iter=2000).fit((x - mean) / scale, bad)
    return Judge(
        tuple(names),
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(model.coef_[0].tolist()),
        float(model.intercept_[0]),
        *band,
        summary,
    )


def kappa_or_zero(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa of two binary ratings of shape (n,); 0 where there is none, or where chance agrees perfectly."""
    return float(np.nan_to_num(cohen_kappa(confusion(a, b, 2).sum(0))))


def kappa_interval(a: np.ndarray, b: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[float]:
    """95% interval of Cohen's kappa, by a bootstrap over groups; empty where there is nothing to draw."""
    if len(a) == 0:
        return []
    group = codes(groups)
    counts = np.zeros((int(group.max()) + 1, 2, 2))
    np.add.at(counts, group, confusion(a, b, 2))
    drawn = cohen_kappa(np.tensordot(picked_groups(len(counts), 2000, seed), counts, 1))
    return [round(q, 3) for q in interval(np.nan_to_num(drawn))]


def out_of_fold(
    x: np.ndarray, bad: np.ndarray, groups: np.ndarray, clear: np.ndarray, names: list[str], folds: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of "bad" of each row from a judge that saw no row of its group, and whether it decides: both (n,).

    Only `clear` rows are learnt from. The band in which a judge abstains is chosen, for the rows of a fold, on the
    predictions for the other folds.
    """
    p = np.empty(len(bad))
    for train, test in _splits(bad, groups, folds):
        learnt = train[clear[train]]
        p[test] = fit(x[learnt], bad[learnt], names, {}, (0.5, 0.5)).probability(x[test])
    return p, decided_elsewhere(p, bad, groups, folds)


def decided_elsewhere(p: np.ndarray, bad: np.ndarray, groups: np.ndarray, folds: int = 5) -> np.ndarray:
    """Whether probabilities (n,) decide by a band that was chosen on other groups: (n,)."""
    decided = np.zeros(len(bad), bool)
    for train, test in _splits(bad, groups, folds):
        low, high = choose_band(p[train], bad[train])
        decided[test] = (p[test] <= low) | (p[test] >= high)
    return decided


def _splits(bad: np.ndarray, groups: np.ndarray, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    from sklearn.model_selection import GroupKFold

    return list(GroupKFold(folds, shuffle=True, random_state=0).split(bad, bad, groups))


def evaluate(p: np.ndarray, decided: np.ndarray, bad: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Agreement of out-of-fold probabilities with hand labels: kappa overall and where decided, over prompts."""
    guess, seen = p > 0.5, bad == 1
    overall, where = kappa_or_zero(guess, seen), kappa_or_zero(guess[decided], seen[decided])
    return {
        "n": len(bad),
        "prompts": len(np.unique(groups)),
        "bad_share": round(float(bad.mean()), 3),
        "auc": round(float(auc(p, bad)), 3),
        "kappa": round(overall, 3),
        "kappa_interval": kappa_interval(guess, seen, groups),
        "decided_share": round(float(decided.mean()), 3),
        "kappa_decided": round(where, 3),
        "kappa_decided_interval": kappa_interval(guess[decided], seen[decided], groups[decided]),
        "trusted": bool(overall >= NEEDED_KAPPA and where >= NEEDED_KAPPA_DECIDED),
    }


def choose_band(p: np.ndarray, bad: np.ndarray) -> tuple[float, float]:
    """The narrowest band around one half outside which agreement suffices, with a margin; (0, 1) where none does."""
    for half in np.arange(0.0, 0.5, 0.02):
        decided = abs(p - 0.5) >= half
        if decided.sum() >= 30 and kappa_or_zero(p[decided] > 0.5, bad[decided] == 1) >= NEEDED_KAPPA_DECIDED + 0.05:
            return float(0.5 - half), float(0.5 + half)
    return 0.0, 1.0
