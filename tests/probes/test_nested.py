"""Penalties chosen inside the training folds; thresholds, calibration, tokens, transfer and permuted rows."""

import numpy as np
import pytest
from handscope.analysis import auc
from handscope.analysis.statistics.folds import grouped_folds
from handscope.errors import HandscopeError
from handscope.probes import LogisticProbe, MassMeanProbe, RidgeProbe, cross_validate, even_weights
from handscope.probes.calibration import calibration, platt, rising
from handscope.probes.conditional import Offset, conditional_gain
from handscope.probes.crossval import nested_cross_validate
from handscope.probes.held_out_ridge import PENALTIES, HeldOutRidge
from handscope.probes.nested import GRID, best_threshold, grid_scores, nested_scores
from handscope.probes.tokens import cross_validate_tokens, token_wins
from handscope.probes.transfer import probe_transfer
from scipy.special import logit
from scipy.stats import norm
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge

PROMPTS, SEEDS = 16, 6
GROUPS = np.repeat(np.arange(PROMPTS), SEEDS)
N = len(GROUPS)


def planted(seed, size=1.5, width=10):
    rng = np.random.default_rng(seed)
    y = (rng.random(N) < 0.4).astype(float)
    x = rng.normal(size=(N, width))
    x[:, 2] += size * y
    return x, y


def test_the_choice_is_that_of_a_loop_over_folds_and_penalties():
    x, y = planted(0, width=60)
    grid = (0.1, 10.0, 1000.0)
    found = cross_validate(LogisticProbe(), x, y, GROUPS, l2=grid, folds=4, permutations=0)
    fold = grouped_folds(GROUPS, 4, 0)
    single = x.astype(np.float32)
    for place in range(4):
        kept, test = fold != place, fold == place
        inner = grouped_folds(GROUPS[kept], 4, 0)
        values = []
        for l2 in grid:
            scores = np.empty(kept.sum())
            for one in range(4):
                fit = LogisticProbe(l2).fit(single[kept][inner != one], y[kept][inner != one])
                scores[inner == one] = fit.decision_function(single[kept][inner == one])
            values.append(float(auc(scores, y[kept], inner)))
        best = max(zip(values, grid, strict=True))[1]
        assert found.l2[place] == best
        expected = LogisticProbe(best).fit(single[kept], y[kept]).decision_function(single[test])
        np.testing.assert_allclose(found.scores[test], expected, atol=0.02)


def test_choosing_inside_the_folds_finds_nothing_in_noise():
    values, p = [], []
    for seed in range(25):
        x, y = planted(seed, size=0, width=30)
        result = nested_cross_validate(RidgeProbe(), x, y, GROUPS, folds=4, permutations=19, bootstraps=20, seed=seed)
        values.append(result.auc)
        p.append(result.p)
        assert set(result.l2) <= {1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5}
    assert np.mean(values) == pytest.approx(0.5, abs=0.05)
    assert (np.array(p) <= 0.05).mean() <= 0.2


def test_a_grid_for_an_estimator_without_penalties_is_refused():
    x, y = planted(0)
    with pytest.raises(HandscopeError, match="LogisticRegression"):
        cross_validate(LogisticRegression(), x, y, GROUPS, l2=(1.0, 10.0))


def test_balanced_accuracy_uses_thresholds_of_the_training_folds():
    x, y = planted(1, size=4)
    result = cross_validate(MassMeanProbe(), x, y, GROUPS, permutations=0)
    assert result.balanced_accuracy > 0.9 and result.balanced_interval[0] < result.balanced_accuracy
    x[:, 2] += 100 * (grouped_folds(GROUPS, 5, 0) == 0)  # no threshold of the other folds fits this one
    moved = cross_validate(MassMeanProbe(), x, y, GROUPS, permutations=0)
    assert moved.balanced_accuracy < 0.85 < moved.auc


def test_the_best_threshold_is_that_of_trying_all():
    rng = np.random.default_rng(2)
    for _ in range(20):
        y = rng.integers(0, 2, 30)
        y[:2] = 0, 1
        scores = np.round(rng.normal(size=30) + y, 1)
        values = [0.5 * ((scores[y == 1] > t).mean() + (scores[y == 0] <= t).mean()) for t in np.r_[-9, scores]]
        cut = best_threshold(scores, y)
        assert 0.5 * ((scores[y == 1] > cut).mean() + (scores[y == 0] <= cut).mean()) == pytest.approx(max(values))


def test_platt_is_logistic_regression_in_one_dimension():
    rng = np.random.default_rng(3)
    scores = 5 * rng.normal(size=400) + 30
    y = (rng.random(400) < 1 / (1 + np.exp(-(scores - 30) / 4))).astype(int)
    theirs = LogisticRegression(C=1e10, tol=1e-10).fit(scores[:, None], y)
    slope, intercept = platt(scores, y, smooth=False)
    assert (slope, intercept) == (
        pytest.approx(theirs.coef_[0, 0], rel=1e-3),
        pytest.approx(theirs.intercept_[0], rel=1e-3),
    )
    slope, _ = platt(np.r_[-1.0, -2, 1, 2], np.array([0, 0, 1, 1]))  # separable
    assert 0 < slope < 10


@pytest.mark.parametrize("probe", [RidgeProbe(1e5), LogisticProbe(1e5), RidgeProbe(1.0)])
def test_calibration_never_turns_a_good_probe_upside_down(probe):
    # A large penalty leaves scores that differ by less than the intercepts of the folds, which follow the labels that
    # were fitted to and so run against those of the rows left out.
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(32), 16)
    x = rng.normal(size=(512, 8))
    chance = 1 / (1 + np.exp(-(0.9 * x[:, 0] + 0.5 * rng.normal(size=32)[groups] - 0.5)))
    y = (rng.random(512) < chance).astype(float)
    found = cross_validate(probe, x, y, groups, permutations=0)
    assert found.auc > 0.65 and found.balanced_accuracy > 0.6
    assert auc(found.log_odds, y, found.fold) == pytest.approx(found.auc, abs=1e-6)
    offset = Offset.of(probe, x, y, groups, found.fold)
    assert auc(offset.held_out, y, found.fold) == pytest.approx(found.auc, abs=1e-6)


def test_scores_that_rank_worse_than_chance_are_calibrated_to_nothing():
    y = np.array([1.0, 1, 0, 0, 0])
    assert rising(-y, y) == (0.0, pytest.approx(np.log(2.5 / 3.5)))
    assert rising(y, y) == platt(y, y)


def test_inner_scores_are_those_of_fits_without_either_fold_less_their_mean():
    x, y = planted(12)
    fold = grouped_folds(GROUPS, 3, 0)
    for probe in (RidgeProbe(2.0), LogisticRegression()):
        found = nested_scores(probe, x.astype(np.float32), y[None], GROUPS, fold, None)
        for place in range(3):
            kept = np.flatnonzero(fold != place)
            fit = clone(probe).fit(x[kept], y[kept])
            np.testing.assert_allclose(found.centre[fold == place], fit.decision_function(x[kept]).mean(), atol=1e-4)
            inner = grouped_folds(GROUPS[kept], 3, 0)
            for one in range(3):
                fit = clone(probe).fit(x[kept][inner != one], y[kept][inner != one])
                expected = fit.decision_function(x[kept][inner == one])
                expected -= fit.decision_function(x[kept][inner != one]).mean()
                np.testing.assert_allclose(found.inner[place, kept][inner == one], expected, atol=1e-3)
            assert np.isnan(found.inner[place, fold == place]).all()


def test_calibration_knows_a_calibrated_predictor_from_one_that_is_too_sure():
    rng = np.random.default_rng(4)
    p = []
    for seed in range(40):
        scores = 1.5 * rng.normal(size=300)
        y = (rng.random(300) < 1 / (1 + np.exp(-scores))).astype(int)
        found = calibration(scores, y, draws=199, seed=seed)
        p.append(found.p)
    assert found.ece > 0 and found.null.mean() > 0.02  # above 0 although nothing is wrong
    assert np.mean(p) == pytest.approx(0.5, abs=0.15)
    sure = calibration(4 * scores, y)
    assert sure.p < 0.01 and sure.slope == pytest.approx(found.slope / 4, rel=1e-3) and sure.excess > 0.05
    assert sure.table["n"].sum() == 300
    chance = 1 / (1 + np.exp(-4 * scores))
    slow = sum(abs(y[part].mean() - chance[part].mean()) * len(part) for part in np.array_split(np.argsort(scores), 10))
    assert sure.ece == pytest.approx(slow / 300)
    with pytest.raises(HandscopeError, match="3 bad"):
        calibration([0.0, 1, 2], [1, 1, 1])


def test_labels_that_are_alike_in_a_prompt_are_not_wrong_probabilities():
    """Probabilities are right over all prompts, while the labels of one share a part that nothing predicts."""
    prompts, called = np.repeat(np.arange(24), 12), np.zeros(2)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        shown = np.sqrt(0.5) * (rng.normal(size=24)[prompts] + rng.normal(size=len(prompts)))
        hidden = np.sqrt(0.3) * rng.normal(size=24)[prompts] + np.sqrt(0.7) * rng.normal(size=len(prompts))
        chance = norm.cdf(-0.4 + 0.6 * shown)
        y = (-0.4 + 0.6 * shown + hidden > 0).astype(int)
        for place, groups in enumerate((None, prompts)):
            called[place] += calibration(logit(chance), y, groups, draws=199, seed=seed).p <= 0.05
    assert called[0] >= 18 and called[1] <= 16
    few = calibration(logit(chance), y, prompts % 5)
    assert few.p_floor == 1 / 16 and few.p >= 1 / 16  # five signs, and their opposites say the same


def test_platt_in_the_training_folds_mends_a_probe_that_is_too_sure():
    x, y = planted(5, size=1.0, width=60)
    result = cross_validate(RidgeProbe(1e-3), x, y, GROUPS, permutations=0)
    raw, mended = calibration(result.scores, y), calibration(result.log_odds, y)
    assert raw.p < 0.01 and mended.ece < raw.ece / 2


def tokens_of(y, rng, size=0.0, icc=0.7):
    count = rng.integers(3, 12, N)
    hand = np.repeat(np.arange(N), count)
    x = np.sqrt(icc) * rng.normal(size=(N, 6))[hand] + np.sqrt(1 - icc) * rng.normal(size=(len(hand), 6))
    x[:, 0] += size * y[hand]
    return x, hand


def test_token_pairs_are_counted_as_a_loop_counts_them():
    rng = np.random.default_rng(6)
    y = np.arange(N) % 2 * 1.0
    x, hand = tokens_of(y, rng, 1.0)
    fold = grouped_folds(GROUPS, 4, 0)
    scores = np.round(x[:, 0], 1)
    won = [
        ((scores[hand == i, None] > scores[hand == j]) + 0.5 * (scores[hand == i, None] == scores[hand == j])).mean()
        for i in range(N) for j in range(N) if y[i] == 1 and y[j] == 0 and fold[i] == fold[j]
    ]  # fmt: skip
    pairs = token_wins(scores, y, hand, GROUPS, fold)
    assert pairs.auc(np.ones((1, PROMPTS)))[0] == pytest.approx(np.mean(won))


def test_tokens_are_fitted_evenly_and_judged_by_hands():
    rng = np.random.default_rng(7)
    y = (rng.random(N) < 0.5).astype(float)
    x, hand = tokens_of(y, rng, 1.5)
    order = rng.permutation(len(hand))  # tokens need not lie together
    x, hand = x[order], hand[order]
    found = cross_validate_tokens(LogisticProbe(1.0), x, y[hand], hand, GROUPS[hand], permutations=19, bootstraps=200)
    assert found.p == found.token_p == 0.05
    assert found.auc > found.token_auc > 0.6  # the mean over a hand is less noisy than a token
    assert found.interval[0] < found.auc < found.interval[1]
    test = found.fold[hand] == 0
    alone = LogisticProbe(1.0).fit(x[~test], y[hand][~test], even_weights(hand[~test])).decision_function(x[test])
    np.testing.assert_allclose(found.token_scores[test], alone, atol=2e-3)
    np.testing.assert_allclose(found.scores, [found.token_scores[hand == k].mean() for k in range(N)], atol=1e-6)
    mixed = y[hand].copy()
    mixed[0] = 1 - mixed[0]
    with pytest.raises(HandscopeError, match="those of 1 instances"):
        cross_validate_tokens(LogisticProbe(), x, mixed, hand, GROUPS[hand])


def test_tokens_alike_within_hands_are_not_evidence():
    p = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        y = (rng.random(N) < 0.5).astype(float)
        x, hand = tokens_of(y, rng)
        found = cross_validate_tokens(
            RidgeProbe(), x, y[hand], hand, GROUPS[hand], l2=(1.0, 100.0), folds=4, permutations=19, bootstraps=10
        )
        p.append((found.p, found.token_p))
    assert (np.array(p) <= 0.05).mean() <= 0.15
    assert np.mean(p) == pytest.approx(0.5, abs=0.15)


def test_two_instances_of_a_picture_that_are_alike_count_as_one_picture():
    """Nothing to find: labels of a picture's instances agree, and so do their features, mostly."""
    spread = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        picture = np.repeat(np.arange(N), 2)
        y = (rng.random(N) < 0.4).astype(float)[picture]
        x = rng.normal(size=(N, 6))[picture] + 0.3 * rng.normal(size=(2 * N, 6))
        prompt, hand = GROUPS[picture], np.arange(2 * N)
        both = [
            cross_validate_tokens(RidgeProbe(10.0), x, y, hand, groups, permutations=60, bootstraps=2, seed=seed)
            for groups in (prompt, np.stack([prompt, picture], 1))
        ]
        assert both[0].auc == both[1].auc and both[0].interval != both[1].interval
        spread.append([one.null.std() for one in both])
    assert np.mean(spread, 0)[1] > 1.2 * np.mean(spread, 0)[0]


def test_rows_of_features_change_places_with_their_picture():
    """A block that tells pictures apart, not their instances, adds nothing of which labels of instances could speak."""
    rng = np.random.default_rng(0)
    picture = np.repeat(np.arange(N), 2)
    groups, fold = np.stack([GROUPS[picture], picture], 1), grouped_folds(GROUPS, 4, 0)[picture]
    y = np.tile([0.0, 1.0], N)
    base = rng.normal(size=(2 * N, 2))
    offset = Offset.of(RidgeProbe(), base, y, groups, fold, 0, (10.0,))
    found = conditional_gain(offset, rng.normal(size=(N, 3))[picture], y, groups, 10.0, permutations=39)
    assert found.p > 0.05
    own = conditional_gain(offset, y[:, None] + 0.1 * rng.normal(size=(2 * N, 3)), y, groups, 10.0, permutations=39)
    assert own.p == own.within_p == 1 / 40 and own.auc_both > 0.9


def test_a_probe_transfers_to_the_cell_that_codes_alike_and_not_to_the_one_that_does_not():
    rng = np.random.default_rng(8)
    y = (rng.random(N) < 0.5).astype(float)
    first, second, third = (rng.normal(size=(N, 8)) for _ in range(3))
    first[:, 0] += 2 * y
    second[:, 0] += 2 * y
    third[:, 5] += 2 * y
    table = probe_transfer(LogisticProbe(10.0), {"a": first, "b": second, "c": third}, y, GROUPS, permutations=19)
    found = table.set_index(["fitted", "judged"])
    assert found.loc[("a", "b"), "p"] == 0.05 and found.loc[("a", "b"), "auc"] > 0.8
    assert found.loc[("a", "c"), "auc"] < 0.7 < found.loc[("c", "c"), "auc"]
    own = cross_validate(LogisticProbe(10.0), first, y, GROUPS, permutations=0)
    assert found.loc[("a", "a"), "auc"] == pytest.approx(own.auc, abs=1e-3)
    assert found.loc[("a", "a"), "within_auc"] == pytest.approx(own.within_auc, abs=1e-3)


def test_rows_permuted_inside_prompts_tell_what_adds_from_what_does_not():
    rng = np.random.default_rng(9)
    p = []
    for seed in range(25):
        y = (rng.random(N) < 0.5).astype(float)
        base = np.column_stack([y + rng.normal(size=N), rng.normal(size=N)])
        fold = grouped_folds(GROUPS, 4, seed)
        offset = Offset.of(LogisticProbe(1.0), base, y, GROUPS, fold)
        nothing = conditional_gain(offset, rng.normal(size=(N, 6)), y, GROUPS, 10.0, permutations=19, seed=seed)
        p.append((nothing.p, nothing.within_p))
    assert (np.array(p) <= 0.05).mean() <= 0.15 and np.mean(p) == pytest.approx(0.5, abs=0.15)
    adds = rng.normal(size=(N, 6))
    adds[:, 3] += 2 * y
    something = conditional_gain(offset, adds, y, GROUPS, 10.0, permutations=19)
    assert something.p == something.within_p == 0.05 and something.added > 0.05
    assert something.auc_baseline == pytest.approx(float(auc(offset.held_out, y, fold)))
    lonely = conditional_gain(
        Offset.of(LogisticProbe(1.0), base, y, np.arange(N), fold), adds, y, np.arange(N), 10.0, permutations=5
    )
    assert lonely.p == 1  # prompts that do not repeat leave nothing to permute


def test_a_block_that_repeats_the_baseline_with_noise_adds_nothing():
    # Before the block was freed of what the baseline's features predict of it, 62% of such data sets had p <= 0.05.
    p, groups = [], np.repeat(np.arange(32), 16)
    for seed in range(40):
        rng = np.random.default_rng([seed, 5])
        z = rng.normal(size=(512, 8))
        x = z @ rng.normal(size=(8, 64)) / np.sqrt(8) + rng.normal(size=(512, 64))
        y = (rng.random(512) < 1 / (1 + np.exp(-(0.9 * z[:, 0] + 0.5 * rng.normal(size=32)[groups] - 0.5)))) * 1.0
        fold = grouped_folds(groups, 5, seed)
        offset = Offset.of(RidgeProbe(), z, y, groups, fold, seed, GRID)
        p.append(conditional_gain(offset, x, y, groups, 100.0, permutations=39, seed=seed).within_p)
    assert (np.array(p) <= 0.05).mean() <= 0.15


def test_held_out_ridge_is_that_of_scikit_learn_with_the_penalty_of_generalised_cross_validation():
    rng = np.random.default_rng(13)
    z, fold = rng.normal(size=(60, 30)) * np.arange(1, 31), np.arange(60) % 3
    x = z @ rng.normal(size=(30, 4)) + 20 * rng.normal(size=(60, 4)) + 5
    x = np.column_stack([x, np.full(60, 7.0)])
    found = HeldOutRidge(z, fold).predict(x)
    np.testing.assert_allclose(found[:, 4], 7)
    for one in range(3):
        train = fold != one
        a = (z - z[train].mean(0)) / z[train].std(0)
        b = x[:, :4] / x[train, :4].std(0)
        penalties = np.linalg.svd(a[train])[1].max() ** 2 * PENALTIES
        errors = []
        for penalty in penalties:
            fit = Ridge(penalty).fit(a[train], b[train])
            hat = a[train] @ np.linalg.solve(a[train].T @ a[train] + penalty * np.eye(30), a[train].T)
            left = np.square(fit.predict(a[train]) - b[train]).sum()
            errors.append(left / (train.sum() - 1 - np.trace(hat)) ** 2)
        best = Ridge(penalties[np.argmin(errors)]).fit(a[train], x[train, :4])
        np.testing.assert_allclose(found[~train, :4], best.predict(a[~train]), rtol=1e-6)


def test_one_labelling_in_a_grid_is_as_one_fit():
    x, y = planted(10)
    fold = grouped_folds(GROUPS, 3, 0)
    found = grid_scores(RidgeProbe(), x, np.stack([y, 1 - y]), fold, (1.0, 50.0))
    for one in range(3):
        fit = RidgeProbe(50.0).fit(x[fold != one], y[fold != one])
        centre = fit.decision_function(x[fold != one]).mean()
        np.testing.assert_allclose(found[0, 1, fold == one], fit.decision_function(x[fold == one]) - centre, atol=1e-5)
    np.testing.assert_allclose(found[1], -found[0], atol=1e-5)


def test_places_are_kept(tiny_model, run_copy, finished_run):
    from handscope.extract.address import Plan
    from handscope.extract.extract import extract
    from handscope.probes.places import flat_block, has_all_tokens

    run = run_copy(finished_run)
    store = extract(tiny_model, run, Plan(["double.1"], [2], of=4), tokens="all")
    assert has_all_tokens(store)
    samples = store.samples[5:1:-1]
    found = flat_block(store, store.cells[0], samples)
    x, tokens = store.read("double.1", 2)
    for row, sample in zip(found, samples, strict=True):
        own = tokens[tokens["sample"] == sample]
        order = np.lexsort((own["col"], own["row"]))
        np.testing.assert_array_equal(row, x[own.index[order]].ravel())
