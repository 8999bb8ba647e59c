"""The experiment on the organism: what it refuses, which arms it takes, its window, and all of it once, small."""

from pathlib import Path

import handscope
import numpy as np
import pandas as pd
import pytest
from handscope.errors import HandscopeError
from handscope.evaluation.arms import Arm, DrawnBatch
from handscope.evaluation.decided import FACTORS, decided_by
from handscope.extract.generate import generate
from handscope.labeling.database.labels import Annotation, Labels
from handscope.models.model import load
from handscope.organism.judge import Judge
from handscope.organism.study import mend as experiment
from handscope.organism.study import pilot
from handscope.organism.study.mend import _named, mend
from handscope.run.folder import Run
from handscope.run.prompts import own_seed, read_prompts


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
    with pytest.raises(HandscopeError, match="knows the organisms' pictures only"):
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


@pytest.mark.slow
def test_the_whole_experiment_on_a_small_run(tmp_path, monkeypatch) -> None:
    """Fitting, the pilot, the chosen arms with their controls, and the table, from pictures that the organism draws."""
    monkeypatch.setattr(experiment, "REFERENCE", 40)
    tried = pilot.pilot_arms

    def few(setting):
        return [one for one in tried(setting) if one.arm.name == "baseline" or (one.way, one.dose) == ("steering", 0.1)]

    monkeypatch.setattr(pilot, "pilot_arms", few)
    model, run = load("organism"), Run(tmp_path / "run")
    prompts = read_prompts(Path(handscope.__file__).parent / "datasets" / "study_prompts.txt")[:5]
    generate(model, run, prompts, range(4), steps=4)
    mask = np.zeros((12, 12), np.uint8)
    mask[3:9, 3:9] = 1
    Labels(run.labels_path).add(
        [
            Annotation(row.sample, row.image_sha256, mask * (2 + bad) + (1 - mask), mask, ("good", "bad")[bad])
            for row in run.samples().itertuples()
            for bad in [row.Index % 2]
        ]
    )
    settings = {"seeds": 2, "pilot_seeds": 2, "blocks": ("single.3",), "window": [3, 2], "looks": [3, 2]}
    table = mend(model, run, **settings, names=["steering", "another seed"]).set_index("arm")

    assert table.index[:2].tolist() == ["baseline", "another seed"] and "steering 0.1" in table.index
    assert len([arm for arm in table.index if arm.startswith("shuffled")]) == 5
    assert len([arm for arm in table.index if arm.startswith("random")]) == 2
    assert len(table) == 10
    doses = pd.read_csv(run.path / "mend" / "pilot" / "doses.csv", keep_default_na=False)
    assert doses["arm"].tolist() == ["baseline", "steering 0.1"]
    of_pilot = Run(run.path / "mend" / "pilot" / "baseline").samples()["seed"]
    assert set(of_pilot) == {own_seed(prompt, 1900 + i) for prompt in prompts for i in range(2)}
    saved = pd.read_csv(run.path / "mend" / "arms.csv").set_index("arm")
    assert saved.index.tolist() == table.index.tolist() and saved["after"].tolist() == table["after"].tolist()

    arms = {arm: Run(run.path / "mend" / arm.replace(" ", "_")) for arm in table.index}
    pairs = [(prompt, own_seed(prompt, 2000 + i)) for prompt in prompts for i in range(2)]
    plain = Run(tmp_path / "plain")
    generate(model, plain, prompts, [2000, 2001], steps=4)
    judge = Judge.load()
    for arm, drawn in arms.items():
        samples = drawn.samples()
        assert sorted(zip(samples["prompt"], samples["seed"])) == sorted(pairs), arm
        bad = [judge.verdict(drawn.image(row.sample), row.prompt)[1] > 0.5 for row in samples.itertuples()]
        assert table.loc[arm, "after"] == np.mean(bad) and table.loc[arm, "n"] == 10, arm
        same = [np.array_equal(drawn.image(name), plain.image(name)) for name in samples["sample"]]
        assert all(same) if arm == "baseline" else not any(same), arm

    before = {path: path.stat().st_mtime_ns for path in (run.path / "mend").rglob("*.png")}
    again = mend(model, run, **settings, names=["steering", "another seed"]).set_index("arm")
    assert {path: path.stat().st_mtime_ns for path in (run.path / "mend").rglob("*.png")} == before
    assert again["after"].tolist() == table["after"].tolist()
