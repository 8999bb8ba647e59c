"""What the measurements of the finger counter compute, on numbers whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from handscope.organism.training.counting.measure import confidence_against_accuracy, sensitivity, within


def test_an_auc_within_prompts_is_that_of_pairs_counted_one_by_one():
    rng = np.random.default_rng(0)
    score, prompt, side = rng.integers(0, 20, 300) * 1.0, rng.integers(0, 12, 300), rng.integers(0, 3, 300)
    score[:5], prompt[:5], side[:5] = 3, 99, 1  # a prompt without a negative has no pair
    positive, negative = side == 1, side == 2
    pairs = []
    for name in range(12):
        high, low = score[positive & (prompt == name)], score[negative & (prompt == name)]
        pairs.append(((high[:, None] > low).sum() + 0.5 * (high[:, None] == low).sum(), len(high) * len(low)))
    table = np.array(pairs)
    drawn = table[np.random.default_rng(0).integers(12, size=(2000, 12))].sum(1)
    found = within(score, positive, negative, prompt)
    assert found["auc"] == pytest.approx(table[:, 0].sum() / table[:, 1].sum(), abs=6e-4)
    assert found["interval"] == pytest.approx(np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975]), abs=6e-4)
    assert found["prompts"] == 12


def test_sensitivity_is_the_share_above_what_few_negatives_pass():
    score = np.concatenate([np.arange(100), [50, 94.0, 96, 200]])
    negative = np.arange(104) < 100
    assert sensitivity(score, ~negative, negative) == 0.5  # 5 of 100 negatives pass 94.05
    assert sensitivity(score, ~negative, negative, alarms=0.5) == 1.0
    assert sensitivity(score, np.zeros(104, bool), negative) is None


def test_confidence_is_held_against_accuracy_in_tenths():
    probability = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.35, 0.65], [0.1, 0.9]])
    truth, counted = torch.tensor([0, 1, 1, 1, 0]), torch.tensor([True, True, True, True, False])
    found = confidence_against_accuracy(SimpleNamespace(probability=probability), truth, counted)
    assert found["bins"] == [
        {"n": 2, "confidence": 0.625, "accuracy": 1.0},
        {"n": 2, "confidence": 0.95, "accuracy": 0.5},
    ]
    assert found["expected_error"] == pytest.approx((0.375 + 0.45) / 2, abs=6e-4)
