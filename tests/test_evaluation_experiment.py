"""The experiment end to end on a random FLUX: every arm draws, nothing is drawn twice, the table is of the files."""

import numpy as np
import pandas as pd
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.evaluation.arms import Arm, Drawn, draw_arm
from handscope.evaluation.blind import blind, unblind
from handscope.evaluation.catalogue import Setting, arms
from handscope.evaluation.experiment import compared, experiment
from handscope.evaluation.experiment_plate import forest_plate, pairs_plate
from handscope.evaluation.knowledge import Knowledge, learn
from handscope.evaluation.quality import SHIFTS, hand_features
from handscope.evaluation.selection import selection
from handscope.extract.labels import Annotation, Labels
from handscope.extract.models import Model, load
from handscope.extract.run import Run
from handscope.guidance.triage import Look
from PIL import Image

STEPS = 4


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    return load(str(tiny_pipe_folder))


@pytest.fixture(scope="module")
def known(model: Model, finished_run) -> Knowledge:
    return learn(model, finished_run, "single.1", 2, [2], folds=4)


@pytest.fixture(scope="module")
def setting(model: Model, known: Knowledge) -> Setting:
    return Setting(model, STEPS, 3.5, 32, 32, known, (3, 2), 10_000)


def test_what_is_used_on_a_prompt_was_fitted_without_it(finished_run, known: Knowledge, model: Model) -> None:
    table = finished_run.samples()
    prompts = table["prompt"].unique()
    assert len({known.fold_of(prompt) for prompt in prompts}) == 4
    one, other = prompts[0], next(p for p in prompts if known.fold_of(p) != known.fold_of(prompts[0]))
    assert not np.array_equal(known.directions(one)["single.1"], known.directions(other)["single.1"])
    assert not np.array_equal(known.directions(one)["single.1"], known.shuffled_directions(one, 0)["single.1"])
    look = Look([one, other, one], 2, torch.randn(3, 16, 16), torch.randn(3, 16, 16), {})
    selector = next(at.selector for name, at in known.looks.items() if name.startswith("x0_flat"))
    scores = selector(look)
    for i, prompt in enumerate(look.prompts):
        alone = selector(Look([prompt], 2, look.latents[i : i + 1], look.clean[i : i + 1], {}))
        assert float(alone) == pytest.approx(float(scores[i]))


def test_a_selection_says_what_triage_costs(model: Model, run_copy, finished_run) -> None:
    run = run_copy(finished_run)
    table, fitted = selection(model, run, [3, 2], ["single.1"], folds=4)
    assert set(table["feature"]) == {"none", "x0_flat", "image", "x_t_flat", "single.1"}
    plain = table[table["way"] == "plain"].iloc[0]
    assert plain["cost"] == 1 and plain["ratio"] == 1
    best = table[table["way"] == "best of 2"].set_index(["feature", "step"])
    np.testing.assert_allclose(best["cost"], best.index.get_level_values("step").map({3: 1.5, 2: 1.75}))
    assert len(fitted) == 8 and (run.analysis_dir / "triage.csv").exists()
    with pytest.raises(HandscopeError, match="between 1 and 4"):
        selection(model, run, [5], folds=4)


def pairs_of(finished_run) -> list[tuple[str, int]]:
    return [(prompt, seed) for prompt in finished_run.samples()["prompt"].unique()[:3] for seed in (90, 91)]


def test_every_arm_of_the_catalogue_draws(model: Model, setting: Setting, finished_run, tmp_path) -> None:
    pairs = pairs_of(finished_run)[:2]
    every = arms(setting)
    names = [arm.name for arm in every]
    assert len(set(names)) == len(names) and names[0] == "baseline"
    assert all(control in names for arm in every for control in arm.controls)
    guided = [arm for arm in every if arm.family == "guidance"]
    assert all(len([c for c in arm.controls if c.startswith("shuffled")]) in (0, 5) for arm in guided)
    pictures = {}
    # One strength of each way is enough here: the others differ by a number.
    for arm in (arm for arm in every if not any(f" {s}" in arm.name for s in ("0.05", "0.1"))):
        run = Run(tmp_path / arm.name.replace(" ", "_"))
        draw_arm(model, arm, run, pairs)
        pictures[arm.name] = np.stack([run.image(name) for name in run.samples()["sample"]])
    for name, drawn in pictures.items():
        assert drawn.shape == (2, 32, 32, 3)
        if name != "baseline" and not name.startswith("triage"):
            assert not np.array_equal(drawn, pictures["baseline"]), name


def bright(picture: np.ndarray, prompt: str) -> float:
    return float(picture.mean() > 127)


def test_the_table_is_what_the_pictures_say(model: Model, finished_run, tmp_path) -> None:
    pairs = pairs_of(finished_run)
    calls: list[int] = []

    def drawer(light: int):
        def drawn(prompts, seeds) -> Drawn:
            calls.append(len(prompts))
            noise = [np.random.default_rng(seed).integers(0, 40, (32, 32, 3)) for seed in seeds]
            images = [n + (light if seed == 90 else 60) for n, seed in zip(noise, seeds)]
            return Drawn(np.array(images).astype(np.uint8), np.full(len(seeds), 4.0), share=0.1)

        return drawn

    def upper(picture: np.ndarray) -> np.ndarray:
        return np.indices(picture.shape[:2])[0] < 16

    made = [
        Arm("baseline", "plain", drawer(200)),
        Arm("better", "guidance", drawer(60), controls=("worse", "same")),
        Arm("worse", "control", drawer(205)),
        Arm("same", "control", drawer(200)),
    ]
    reference = np.random.default_rng(5).integers(0, 255, (6, 32, 32, 3)).astype(np.uint8)
    given = (model, tmp_path, made, pairs, bright, upper, reference, {"steps": 4, "guidance": 3.5})
    table = experiment(*given, batch_size=4).set_index("arm")
    assert sum(calls) == 4 * len(pairs)
    assert table.loc["baseline", "before"] == 0.5 and table.loc["baseline", "difference"] == 0
    assert table.loc["better", "after"] == 0 and table.loc["better", "mended"] == 3
    assert table.loc["better", "beats_controls"] == 1 and np.isnan(table.loc["same", "beats_controls"])
    assert table.loc["better", "q"] == table.loc["better", "p"] and np.isnan(table.loc["worse", "q"])
    assert table.loc["better", "brightness"] < 0 and table.loc["same", list(SHIFTS)].abs().max() == 0
    assert table.loc["baseline", "kd_ratio"] == 1 and table.loc["same", "diversity"] == 1
    assert table.loc["better", "calls_per_good"] == 4 and table.loc["baseline", "calls_per_good"] == 8
    # Again: nothing is drawn, one lost picture excepted, and the numbers are the same.
    lost = next((tmp_path / "better" / "samples").glob("*.png"))
    lost.unlink()
    again = experiment(*given, batch_size=4).set_index("arm")
    assert sum(calls) == 4 * len(pairs) + 1
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))
    with pytest.raises(HandscopeError, match="another window"):
        experiment(*given[:-1], given[-1] | {"window": [3]}, batch_size=4)
    runs = {arm.name: Run(tmp_path / arm.name) for arm in made}
    alone = compared(made[:2], runs, bright, upper, hand_features(reference))
    assert alone["p"].tolist() == table["p"].tolist()[:2]


def test_what_makes_no_sense_is_refused(model: Model, tmp_path) -> None:
    arm = Arm("baseline", "plain", lambda prompts, seeds: Drawn(np.zeros((1, 8, 8, 3), np.uint8), np.ones(1)))
    with pytest.raises(HandscopeError, match="a name each"):
        experiment(model, tmp_path, [arm, arm], [("a hand", 1)], bright, bright, np.zeros((2, 8, 8, 3)), {})
    with pytest.raises(HandscopeError, match="family"):
        Arm("baseline", "magic", arm.draw)


def planted_arms(folder, finished_run) -> list[str]:
    """Two arms on disk: of each pair the second is the same picture, but for the red of its first pixel."""
    names = ["baseline", "triage x"]
    for value, name in zip((10, 200), names):
        run = Run(folder / name.replace(" ", "_"))
        run.samples_dir.mkdir(exist_ok=True)
        rows = {sample: row | {"calls": 4.0} for sample, row in list(finished_run.metadata().items())[:12]}
        for sample in rows:
            image = finished_run.image(sample).copy()
            image[0, 0] = value
            Image.fromarray(image).save(run.image_path(sample))
        run.write_metadata(rows)
    return names


def test_a_blind_look_hides_the_arm_and_gives_it_back(finished_run, tmp_path) -> None:
    names = planted_arms(tmp_path, finished_run)
    run = blind(tmp_path, names, n=8)
    samples = run.samples()
    assert len(samples) == 16 and samples["sample"].str.fullmatch(r"look-\d{5}").all()
    text = run.metadata_path.read_text()
    assert "triage" not in text and "baseline" not in text and "calls" not in text
    arms_in_order = [int(run.image(name)[0, 0, 0]) for name in samples["sample"]]
    assert arms_in_order != sorted(arms_in_order)
    grid = np.ones((4, 4), np.uint8)
    Labels(run.labels_path).add(
        [
            Annotation(row.sample, row.image_sha256, grid * (3 if bad else 2), grid, "bad" if bad else "good")
            for row in samples.itertuples()
            for bad in [run.image(row.sample)[0, 0, 0] == 10]
        ]
    )
    found = unblind(tmp_path)["triage x"]
    assert (found.before, found.after, found.mended, found.n) == (1.0, 0.0, 8, 8)
    with pytest.raises(HandscopeError, match="already"):
        blind(tmp_path, names)
    with pytest.raises(HandscopeError, match="no blind look"):
        unblind(tmp_path / "elsewhere")
    planted_arms(tmp_path / "elsewhere", finished_run)
    with pytest.raises(HandscopeError, match="lacks samples"):
        blind(tmp_path / "elsewhere", ["baseline", "other"])


def test_figures_are_drawn(finished_run, tmp_path) -> None:
    names = planted_arms(tmp_path, finished_run)
    pairs_plate(tmp_path, names, n=4).savefig(tmp_path / "pairs.png")
    rows = [
        {"arm": name, "family": family, "n": 12, "before": 0.3, "after": 0.3 + d, "difference": d, "low": d - 0.05,
         "high": d + 0.05, "q": q, "kd_ratio": 1.0, "calls": 20.0}
        for name, family, d, q in (("baseline", "plain", 0.0, np.nan), ("a", "triage", -0.1, 0.01),
                                   ("b", "control", 0.02, np.nan))
    ]  # fmt: skip
    forest_plate(pd.DataFrame(rows)).savefig(tmp_path / "forest.png")
