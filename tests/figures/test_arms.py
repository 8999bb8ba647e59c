"""The figures of an evaluation show its tables."""

import numpy as np
import pandas as pd
from handscope import figures


def test_the_forest_shows_differences_in_points_with_pairs_and_others_apart() -> None:
    table = pd.DataFrame(
        {
            "arm": ["a", "b", "c"],
            "design": ["same noises", "same prompts", "same noises"],
            "difference": [-0.1, 0.05, 0.0],
            "low": [-0.2, -0.05, -0.02],
            "high": [-0.01, 0.15, 0.02],
            "holm": [0.02, 0.5, np.nan],
        }
    )
    ax = figures.arms_forest(table, baseline="plain", measure="implausible")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["c", "b", "a"]  # from below
    lines, points, other_lines, others = ax.collections[:4]
    np.testing.assert_allclose(points.get_offsets(), [[0, 0], [-10, 2]])
    np.testing.assert_allclose(others.get_offsets(), [[5, 1]])
    np.testing.assert_allclose([one[:, 0] for one in lines.get_segments()], [[-2, 2], [-20, -1]])
    np.testing.assert_allclose([one[:, 0] for one in other_lines.get_segments()], [[-5, 15]])
    assert points.get_facecolors()[0, :3].tolist() == [1, 1, 1] != points.get_facecolors()[1, :3].tolist()
    assert "points from plain" in ax.get_xlabel()


def test_a_dose_is_drawn_in_order_and_each_series_alone() -> None:
    table = pd.DataFrame(
        {
            "series": ["x", "x", "y"],
            "dose": [2.0, 1.0, 1.5],
            "rate": [0.4, 0.2, 0.3],
            "lo": [0.3, 0.1, 0.2],
            "hi": [0.5, 0.3, 0.4],
        }
    )
    ax = figures.dose_response(table, dose="lora.scale", reference=0.25, label="implausible, %")
    x, y, reference = ax.lines
    np.testing.assert_allclose(x.get_xydata(), [[1, 20], [2, 40]])
    np.testing.assert_allclose(y.get_xydata(), [[1.5, 30]])
    assert list(reference.get_ydata()) == [25, 25] and ax.get_xlabel() == "lora.scale"


def test_rates_stand_over_what_a_good_picture_costs() -> None:
    table = pd.DataFrame({"arm": ["plain", "two"], "calls_per_good": [25.0, 50.0], "rate": [0.2, 0.1],
                          "lo": [0.1, 0.05], "hi": [0.3, 0.2]})  # fmt: skip
    ax = figures.rate_against_cost(table, baseline="plain", label="implausible, %")
    spans, points = ax.collections
    np.testing.assert_allclose(points.get_offsets(), [[25, 20], [50, 10]])
    np.testing.assert_allclose([one[:, 1] for one in spans.get_segments()], [[10, 30], [5, 20]])
    assert [text.get_text() for text in ax.texts] == ["plain", "two"]
    assert list(ax.lines[0].get_ydata()) == [20, 20] and ax.get_ylim()[0] == 0 == ax.get_xlim()[0]
