"""The experiment's command: what it refuses before anything is drawn, which arms it takes, and its window."""

import numpy as np
import pandas as pd
import pytest
from handscope.errors import HandscopeError
from handscope.evaluation.arms import Arm, DrawnBatch
from handscope.evaluation.decided import FACTORS, decided_by
from handscope.organism.study.mend import _named, mend
from handscope.run.folder import Run


def summary(run: Run, steps: list[float]) -> None:
    run.analysis_dir.mkdir(exist_ok=True)
    rows = [
        {"region": region, "tolerance": 3 * factor, "group": group, "median_step": step + later + shift}
        for region, later in (("outline", 5), ("hand", 0))
        for group, shift in (("all", 0), ("bad", -3))
        for factor, step in zip(FACTORS, steps)
    ]
    pd.DataFrame(rows).sample(frac=1, random_state=0).to_csv(run.analysis_dir / "commitment_summary.csv", index=False)


def test_the_window_ends_where_half_are_decided_at_the_regions_own_tolerance(tmp_path) -> None:
    run = Run(tmp_path)
    with pytest.raises(HandscopeError, match="run commit, or give a window"):
        decided_by(run)
    summary(run, [4.0, 7.0, 11.0, 14.0, 16.0])
    assert decided_by(run) == 11 and decided_by(run, "outline") == 16
    with pytest.raises(HandscopeError, match="'face'"):
        decided_by(run, "face")
    summary(run, [4.0, 7.0, np.nan, 14.0, 16.0])
    with pytest.raises(HandscopeError, match="give a window"):
        decided_by(run)


def test_a_run_of_another_model_is_refused_and_left_as_it_is(finished_run, tiny_model) -> None:
    before = sorted(path.name for path in finished_run.path.iterdir())
    with pytest.raises(HandscopeError, match="knows the organism's pictures only"):
        mend(tiny_model, finished_run)
    assert sorted(path.name for path in finished_run.path.iterdir()) == before


def test_named_arms_come_with_their_controls_and_the_baseline() -> None:
    def draw(prompts, seeds) -> DrawnBatch:
        raise AssertionError

    arms = [
        Arm("baseline", "plain", draw),
        Arm("steering 0.1", "steering", draw, controls=("shuffled steering 0.1 (0)",)),
        Arm("shuffled steering 0.1 (0)", "control", draw),
        Arm("triage image at 19", "triage", draw),
    ]
    assert _named(arms, None) == arms
    assert [arm.name for arm in _named(arms, ["steering"])] == [arm.name for arm in arms[:3]]
    assert [arm.name for arm in _named(arms, ["triage"])] == ["baseline", "triage image at 19"]
    with pytest.raises(HandscopeError, match="No arm's name begins with 'magic'"):
        _named(arms, ["magic"])
