"""The test within prompts against two of other schools: a conditional logit and a GEE, prompts as groups."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from handscope.analysis import auc, permuted_labels
from scipy.stats import norm
from statsmodels.discrete.conditional_models import ConditionalLogit

GROUPS = np.repeat(np.arange(24), 10)


def drawn(seed: int, effect: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels that prompts decide much of, each for itself; `effect` is what a label adds to a score."""
    rng = np.random.default_rng(seed)
    y = (rng.random(len(GROUPS)) < rng.beta(2, 3, 24)[GROUPS]).astype(float)
    return 1.5 * rng.normal(size=24)[GROUPS] + rng.normal(size=len(GROUPS)) + effect * y, y


def ours(scores: np.ndarray, y: np.ndarray, seed: int) -> float:
    null = auc(scores, permuted_labels(y, GROUPS, 300, seed, within=True), GROUPS)
    return float((auc(scores, y, GROUPS) - null.mean()) / null.std())


def conditional_logit(scores: np.ndarray, y: np.ndarray) -> float:
    """What prompts add to the log-odds cancels in the likelihood given each prompt's number of bad samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of prompts of one class, which tell nothing
        fitted = ConditionalLogit(y, scores[:, None], groups=GROUPS).fit(disp=0)
    return float(fitted.params[0] / fitted.bse[0])


def gee(scores: np.ndarray, y: np.ndarray) -> float:
    """The slope on what a score is above its prompt's mean, beside that mean; errors robust to what prompts share."""
    mean = (np.bincount(GROUPS, scores) / np.bincount(GROUPS))[GROUPS]
    x = sm.add_constant(np.stack([scores - mean, mean], 1))
    family, structure = sm.families.Binomial(), sm.cov_struct.Exchangeable()
    return float(sm.GEE(y, x, groups=GROUPS, family=family, cov_struct=structure).fit().tvalues[1])


@pytest.fixture(scope="module")
def z() -> np.ndarray:
    """z of the three tests, shape (3 effects, 12 data sets, 3)."""
    tests = []
    for effect in (0.0, 0.25, 0.6):
        for seed in range(12):
            scores, y = drawn(seed, effect)
            tests.append((ours(scores, y, seed), conditional_logit(scores, y), gee(scores, y)))
    return np.reshape(tests, (3, 12, 3))


def test_all_three_come_to_nearly_the_same_z(z: np.ndarray) -> None:
    flat = z.reshape(-1, 3)
    assert (np.corrcoef(flat.T) > 0.92).all()
    assert np.abs(flat - flat.mean(1, keepdims=True)).mean() < 0.3
    assert np.abs(z.mean(1) - z.mean((1, 2))[:, None]).max() < 0.4


def test_all_three_decide_alike(z: np.ndarray) -> None:
    called = z > norm.ppf(0.95)
    assert (called == called[..., :1]).all(-1).mean() > 0.85
    assert called[0].mean(0).max() <= 0.25 and called[2].mean(0).min() >= 0.9


def test_what_a_prompt_says_of_label_and_score_moves_none_of_them() -> None:
    """A score of the prompt's rate alone, which over all pairs separates well."""
    rng = np.random.default_rng(5)
    rate = rng.beta(1, 1, 24)
    y = (rng.random(len(GROUPS)) < rate[GROUPS]).astype(float)
    scores = 3 * rate[GROUPS] + rng.normal(size=len(GROUPS))
    assert auc(scores, y) > 0.65
    assert np.abs([ours(scores, y, 0), conditional_logit(scores, y), gee(scores, y)]).max() < 1.96
