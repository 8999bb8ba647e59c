"""Calibration curves of honest and of dishonest probabilities."""

import numpy as np
from handscope.analysis.statistics.probabilities import calibration_curve, calibration_error


def test_calibration_curve_of_honest_probabilities() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(5000)
    table = calibration_curve(p, rng.random(5000) < p)
    assert table["n"].tolist() == [500] * 10
    assert ((table["lo"] <= table["predicted"]) & (table["predicted"] <= table["hi"])).sum() >= 8
    assert calibration_error(table) < 0.03
    assert calibration_error(calibration_curve(p, rng.random(5000) < p**3)) > 0.15
