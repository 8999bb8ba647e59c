"""Arrays that make no sense are refused in a sentence, whichever function they are given to."""

import numpy as np
import pandas as pd
import pytest
import torch
from handscope.analysis import Moments, auc, bhattacharyya, bhattacharyya_test, bootstrap_auc, permuted_labels
from handscope.analysis.statistics.agreement import coincidences, confusion
from handscope.analysis.statistics.effects import effect_size
from handscope.analysis.statistics.survival import kaplan_meier
from handscope.analysis.statistics.verdicts import Counts, corrected_rate
from handscope.analysis.two_sample import classifier_two_sample_test
from handscope.errors import HandscopeError
from handscope.probes import RidgeProbe, compare, cross_validate
from scipy.sparse import csr_matrix

N = 120
RNG = np.random.default_rng(0)
G = np.repeat(np.arange(12), 10)
Y = (RNG.random(N) < 0.4).astype(int)
X = RNG.normal(size=(N, 8)).astype(np.float32)
X[:, 0] += Y
FIRST = np.arange(N) == 0
SETS = Moments.by(X, np.arange(N) // 2, 60)


def validated(x=X, y=Y, groups=G, permutations=9, **settings):
    return cross_validate(RidgeProbe(10.0), x, y, groups, permutations=permutations, bootstraps=50, **settings)


REFUSED = {
    "text labels": (lambda: validated(y=np.where(Y, "bad", "good")), "labels as numbers"),
    "labels of -1 and 1": (lambda: validated(y=2 * Y - 1), "found -1"),
    "fractions": (lambda: validated(y=np.where(FIRST, 0.5, Y)), "found 0.5"),
    "NaN labels": (lambda: validated(y=np.where(FIRST, np.nan, Y)), "1 of 120 are NaN"),
    "infinite features": (lambda: validated(x=np.where(FIRST[:, None], np.inf, X)), "8 of 960"),
    "sparse features": (lambda: validated(x=csr_matrix(X)), "dense"),
    "too few groups": (lambda: validated(groups=G[:-1]), "shape"),
    "NaN groups": (lambda: validated(groups=np.where(FIRST, np.nan, G)), "1 of 120 have none"),
    "groups of two kinds": (lambda: validated(groups=np.array(["a", *G[1:].tolist()], object)), "of one kind"),
    "negative permutations": (lambda: validated(permutations=-1), "at least 0"),
    "a penalty of 0": (lambda: validated(l2=[0.0, 1.0]), "larger than 0"),
    "no penalty": (lambda: validated(l2=[]), "larger than 0"),
    "auc, labels of 0 and 2": (lambda: auc([1, 2, 3], [0, 2, 0]), "found 2"),
    "auc, infinite scores": (lambda: auc([1, np.inf, 3], [0, 1, 0], [0, 0, 1]), "1 of 3"),
    "auc, lengths": (lambda: auc([1, 2, 3], [1]), "each score"),
    "bootstrap, NaN scores": (lambda: bootstrap_auc(np.where(FIRST, np.nan, X[:, 0]), Y, G), "1 of 120"),
    "permutations, lengths": (lambda: permuted_labels(Y, G[:-1], 2), "shape"),
    "compare, NaN scores": (lambda: compare(np.full(N, np.nan), X[:, 0], Y, G, G % 5), "120 of 120"),
    "distance, NaN": (lambda: bhattacharyya(np.where(FIRST[:60, None], np.nan, X[:60]), X[60:]), "finite"),
    "distance test": (lambda: bhattacharyya_test(SETS, Y[:60] + 1, G[:60], 9), "found 2"),
    "moments, a set too far": (lambda: Moments.by(X, np.full(N, 7), 3), "found 7"),
    "two samples, groups": (lambda: classifier_two_sample_test(X, Y, G[:-1], permutations=9), "shape"),
    "effect, labels of 1 and 2": (lambda: effect_size(X[:, 0], Y + 1, G, G % 5), "found 2"),
    "survival, NaN": (lambda: kaplan_meier([1, 2.0], [1, np.nan]), "1 of 2"),
    "verdicts, NaN": (lambda: Counts.of([1, np.nan], [1, 0], [0, 1]), "1 of 2"),
    "no verdict to correct": (lambda: corrected_rate([], [], Counts(np.ones((5, 4)))), "found none"),
    "verdicts without a group": (lambda: corrected_rate([1, 0], [1], Counts(np.ones((5, 4)))), r"\(2,\)"),
    "votes of -1": (lambda: confusion([0, -1], [0, 1], 2), "0 to 1"),
    "votes of NaN": (lambda: coincidences([[1, np.nan]]), "1 of 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused(name):
    call, words = REFUSED[name]
    with pytest.raises(HandscopeError, match=words):
        call()


@pytest.mark.parametrize("x", [X.astype(np.float64) + 1e8, torch.tensor(X), pd.DataFrame(X), X.tolist()])
def test_the_same_numbers_in_other_clothes_give_the_same(x):
    expected, same = validated(), validated(x=x, y=Y.astype(bool), groups=pd.Series(G))
    assert same.auc == pytest.approx(expected.auc, abs=2e-3)
    assert same.within_auc == pytest.approx(expected.within_auc, abs=2e-3)
