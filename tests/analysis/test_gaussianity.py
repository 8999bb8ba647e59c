"""The diagnosis of the Gaussian model: right where it holds, and in words where it does not."""

import numpy as np
import pytest
from handscope.analysis import Moments, Scatter, diagnose
from handscope.analysis.gaussianity import implied_auc
from handscope.analysis.statistics.auc import auc
from handscope.errors import HandscopeError
from scipy.stats import kurtosis, norm

WIDTH, SAMPLES, TOKENS = 24, 60, 40
Y = np.arange(SAMPLES) % 2
FOLD = np.arange(SAMPLES) // 2 % 5
SAMPLE_OF = np.repeat(np.arange(SAMPLES), TOKENS)


def diagnosed(x, chunk=700, sample_of=SAMPLE_OF, moments=None):
    places = np.arange(len(x))
    chunks = ((x[start : start + chunk], places[start : start + chunk]) for start in range(0, len(x), chunk))
    kept = sample_of >= 0
    moments = moments or Moments.by(x[kept], sample_of[kept], SAMPLES)
    return diagnose(chunks, sample_of, moments, Scatter.by(x[kept], Y[sample_of[kept]], 2), Y, FOLD)


def tokens(seed=0, shift=0.25):
    rng = np.random.default_rng(seed)
    sd = np.where(Y[SAMPLE_OF] == 1, 1.2, 1.0)[:, None]
    return rng.normal(size=(len(SAMPLE_OF), WIDTH)) * sd + shift * Y[SAMPLE_OF, None] * (np.arange(WIDTH) < 6)


def test_tokens_of_the_model_itself_pass():
    found = diagnosed(tokens())
    assert found.reason == ""
    assert abs(found.kurtosis) < 0.2 and found.norm_outliers == 0
    assert found.effective_rank == pytest.approx(WIDTH, rel=0.05)
    assert found.llr_auc_implied == pytest.approx(found.llr_auc_in_sample, abs=0.02)
    assert found.llr_auc == pytest.approx(found.llr_auc_in_sample, abs=0.04)


def test_numbers_are_those_of_whole_arrays():
    x = tokens(1) * np.geomspace(1, 5, WIDTH)
    found = diagnosed(x)
    bad = Y[SAMPLE_OF] == 1
    centred = np.where(bad[:, None], x - x[bad].mean(0), x - x[~bad].mean(0))
    within = centred.T @ centred / len(x)
    assert found.effective_rank == pytest.approx(np.trace(within) ** 2 / np.trace(within @ within))
    directions = np.linalg.eigh(within)[1][:, :-9:-1]
    tails = [kurtosis(centred[bad == one] @ directions) for one in (False, True)]
    assert found.kurtosis == pytest.approx(np.median(tails), abs=1e-5)
    assert found.kurtosis_max == pytest.approx(np.max(tails), abs=1e-5)
    held_out = np.empty(len(x))
    for one in range(5):
        train, test = FOLD[SAMPLE_OF] != one, FOLD[SAMPLE_OF] == one
        density = [
            norm.logpdf(x[test], part.mean(0), part.std(0)).sum(1) for part in (x[train & ~bad], x[train & bad])
        ]
        held_out[test] = density[1] - density[0]
    assert found.llr_auc == pytest.approx(auc(held_out, bad, FOLD[SAMPLE_OF]), abs=1e-5)


def test_implied_auc_is_that_of_draws_from_the_model():
    rng = np.random.default_rng(0)
    m0, m1 = rng.normal(size=(2, 300)) * 0.05
    v0, v1 = rng.uniform(0.85, 1.15, (2, 300))
    drawn = [rng.normal(m, np.sqrt(v), (20_000, 300)) for m, v in ((m0, v0), (m1, v1))]
    ratio = [norm.logpdf(x, m1, np.sqrt(v1)).sum(1) - norm.logpdf(x, m0, np.sqrt(v0)).sum(1) for x in drawn]
    expected = auc(np.concatenate(ratio), np.repeat([0, 1], 20_000))
    assert implied_auc(m0, v0, m1, v1) == pytest.approx(float(expected), abs=0.005)
    assert implied_auc(m0, v0, m0, v0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, rng: x / np.sqrt(rng.chisquare(4, (len(x), 1)) / 4), "heavy tails"),
        (lambda x, rng: x * np.where(rng.random((len(x), 1)) < 0.01, 20, 1), "lie far out"),
        (lambda x, rng: 0.2 * x + rng.normal(size=(len(x), 1)) + 0.4 * Y[SAMPLE_OF, None], "channels are correlated"),
        (lambda x, rng: 0.2 * x + rng.normal(size=(len(x), 1)) + 0.4 * Y[SAMPLE_OF, None], "implies an AUC"),
    ],
)
def test_what_does_not_fit_is_said(spoil, words):
    rng = np.random.default_rng(3)
    assert words in diagnosed(spoil(tokens(3), rng)).reason


def test_a_difference_between_samples_is_no_difference_between_classes():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(len(SAMPLE_OF), WIDTH)) + 2 * rng.normal(size=(SAMPLES, WIDTH))[SAMPLE_OF]
    found = diagnosed(x)
    assert found.llr_auc_in_sample > 0.65 and abs(found.llr_auc - 0.5) < 0.1


def test_channels_and_tokens_that_are_left_out_change_nothing():
    x = tokens(5)
    wide = np.concatenate([x, 1e4 + 100 * np.random.default_rng(0).normal(size=(len(x), 1))], 1)
    moments = Moments.by(wide, SAMPLE_OF, SAMPLES)
    moments.mean[:, -1] = moments.m2[:, -1] = 0
    longer = np.concatenate([wide, 50 * np.ones((9, WIDTH + 1))])
    found = diagnosed(longer, sample_of=np.concatenate([SAMPLE_OF, np.full(9, -1)]), moments=moments)
    expected = diagnosed(x)
    assert found.reason == expected.reason
    for name in ("effective_rank", "kurtosis", "norm_outliers", "llr_auc", "llr_auc_implied"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-6)


def test_tokens_that_do_not_vary_are_refused():
    with pytest.raises(HandscopeError, match="0 of 24 do"):
        diagnosed(np.ones((len(SAMPLE_OF), WIDTH)))
