"""What triage would have come to, beside a loop that tries one seed after the other."""

import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.evaluation.reseed import reseed

RANDOM = np.random.default_rng(0)
N, PROMPTS, STEPS = 400, 20, 20
GROUPS = np.arange(N) % PROMPTS
BAD = (RANDOM.random(N) < 0.3).astype(float)
SCORES = 1.2 * BAD + RANDOM.normal(size=N)


def by_hand(attempts: int, threshold: float | None, step: int) -> tuple[float, float]:
    random, bad, calls = np.random.default_rng(1), [], []
    for prompt in range(PROMPTS):
        members = np.flatnonzero(prompt == GROUPS)
        for _ in range(400):
            order = random.permutation(members)[:attempts]
            begun = []
            for one in order:
                begun.append(one)
                if threshold is not None and SCORES[one] < threshold:
                    break
            passed = threshold is not None and SCORES[begun[-1]] < threshold
            best = begun[-1] if passed else min(begun, key=lambda i: SCORES[i])
            bad.append(BAD[best])
            looked = min(STEPS, STEPS - step + 1)
            calls.append(looked * len(begun) + STEPS - looked)
    return float(np.mean(bad)), float(np.mean(calls))


@pytest.mark.parametrize(("attempts", "threshold", "step"), [(1, None, 12), (4, None, 12), (3, 0.2, 14), (4, -0.5, 0)])
def test_it_is_what_trying_one_after_the_other_gives(attempts: int, threshold: float | None, step: int) -> None:
    found = reseed(SCORES, BAD, GROUPS, step, STEPS, attempts, threshold)
    rate, calls = by_hand(attempts, threshold, step)
    assert found.rate == pytest.approx(rate, abs=0.02)
    assert found.calls == pytest.approx(calls, rel=0.02)
    assert found.low <= found.rate <= found.high
    assert found.calls_per_good == pytest.approx(found.calls / (1 - found.rate))


def test_one_attempt_is_a_plain_generation_and_a_perfect_score_finds_a_good_one() -> None:
    plain = reseed(SCORES, BAD, GROUPS, 12, STEPS, 1, None)
    assert plain.rate == pytest.approx(BAD.mean(), abs=0.02) and plain.calls == STEPS
    assert reseed(BAD, BAD, GROUPS, 12, STEPS, 20, None).rate == 0
    random = reseed(RANDOM.normal(size=N), BAD, GROUPS, 12, STEPS, 4, None)
    assert random.rate == pytest.approx(BAD.mean(), abs=0.08)


def test_thresholds_may_differ_between_prompts() -> None:
    limit = np.where(GROUPS < 10, np.inf, -np.inf)
    found = reseed(SCORES, BAD, GROUPS, 12, STEPS, 3, limit)
    assert found.begun == pytest.approx(2.0)  # half of the prompts take the first, half try three


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(HandscopeError, match="one shape"):
        reseed(SCORES[:5], BAD, GROUPS, 12, STEPS, 2, None)
    with pytest.raises(HandscopeError, match="finite"):
        reseed(np.full(N, np.nan), BAD, GROUPS, 12, STEPS, 2, None)
