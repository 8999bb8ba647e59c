"""The experiment end to end on a random FLUX: every arm draws, nothing is drawn twice, the table is of the files."""

import hashlib
import mmap
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from handscope.anatomy.read.embedding import landmark_features
from handscope.errors import HandscopeError
from handscope.evaluation.arms import Arm, DrawnBatch, draw_arm
from handscope.evaluation.blind import blind, unblind
from handscope.evaluation.early_looks import early_looks
from handscope.evaluation.experiment import compared, experiment
from handscope.evaluation.memory import peak_memory
from handscope.evaluation.quality import SHIFTS
from handscope.evaluation.recipe import Recipe
from handscope.guidance.triage import Look
from handscope.labeling.database.labels import Annotation, Labels
from handscope.models.model import Model, load
from handscope.organism.study import ways
from handscope.organism.study.catalogue import chosen_arms, pilot_arms, plain_arms, triage_arms
from handscope.organism.study.interventions import Setting, anatomy_loss, interventions, lack_of_contrast
from handscope.organism.study.lessons import SHUFFLES, Lessons, learn
from handscope.organism.study.pilot import choose, pilot
from handscope.report.experiment import doses_plate, forest_plate, pairs_plate
from handscope.run.folder import Run
from handscope.run.part import PartsLeftError
from PIL import Image

STEPS = 4


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    return load(str(tiny_pipe_folder))


@pytest.fixture(scope="module")
def known(model: Model, finished_run) -> Lessons:
    return learn(model, finished_run, ["single.1", "double.1"], 2, [2], folds=4)


@pytest.fixture(scope="module")
def setting(model: Model, known: Lessons) -> Setting:
    return Setting(model, STEPS, 3.5, 32, 32, known, (3, 2), 10_000)


def test_what_is_used_on_a_prompt_was_fitted_without_it(finished_run, known: Lessons, model: Model) -> None:
    table = finished_run.samples()
    prompts = table["prompt"].unique()
    assert len({known.fold_of(prompt) for prompt in prompts}) == 4
    one, other = prompts[0], next(p for p in prompts if known.fold_of(p) != known.fold_of(prompts[0]))
    own, others, shuffled = known.lesson(one), known.lesson(other), known.lesson(one, 0)
    for lesson in (others, shuffled):
        assert not np.array_equal(own.directions["single.1"], lesson.directions["single.1"])
        assert not np.array_equal(own.by_token, lesson.by_token)
        for probe, another in zip([own.gate, own.picture, *own.probes.values()],
                                  [lesson.gate, lesson.picture, *lesson.probes.values()]):  # fmt: skip
            assert not np.array_equal(probe.coef_, another.coef_)
    assert own.directions.keys() == own.probes.keys() == {"single.1", "double.1"}
    look = Look([one, other, one], 2, torch.randn(3, 16, 16), torch.randn(3, 16, 16), {})
    selector = next(at.selector for name, at in known.looks.items() if name.startswith("x0_flat"))
    scores = selector(look)
    for i, prompt in enumerate(look.prompts):
        alone = selector(Look([prompt], 2, look.latents[i : i + 1], look.clean[i : i + 1], {}))
        assert float(alone) == pytest.approx(float(scores[i]))


def test_a_selection_says_what_triage_costs(model: Model, run_copy, finished_run) -> None:
    run = run_copy(finished_run)
    table, fitted = early_looks(model, run, [3, 2], ["single.1"], folds=4)
    assert set(table["feature"]) == {"none", "x0_flat", "image", "x_t_flat", "single.1"}
    plain = table[table["way"] == "plain"].iloc[0]
    assert plain["cost"] == 1 and plain["ratio"] == 1
    best = table[table["way"] == "best of 2"].set_index(["feature", "step"])
    np.testing.assert_allclose(best["cost"], best.index.get_level_values("step").map({3: 1.5, 2: 1.75}))
    assert len(fitted) == 8 and (run.analysis_dir / "triage.csv").exists()
    with pytest.raises(HandscopeError, match="between 1 and 4"):
        early_looks(model, run, [5], folds=4)


def pairs_of(finished_run) -> list[tuple[str, int]]:
    return [(prompt, seed) for prompt in finished_run.samples()["prompt"].unique()[:3] for seed in (90, 91)]


def test_a_direction_has_nothing_of_the_captions(model: Model, finished_run, run_copy, known: Lessons) -> None:
    # Were a prompt's own mean in it, a prompt whose hands are all good would bend it.
    from handscope.organism.study.lessons import _within

    x, prompts = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), np.array([0, 0, 0, 1, 1, 1])
    moved = x + 100 * prompts[:, None].astype(np.float32)
    np.testing.assert_allclose(_within(moved, prompts), _within(x, prompts), atol=1e-4)
    np.testing.assert_allclose(_within(x, prompts)[:3], x[:3] - x[:3].mean(0), atol=1e-6)


def test_every_arm_draws(model: Model, setting: Setting, finished_run, tmp_path) -> None:
    pairs = pairs_of(finished_run)[:2]
    chosen = {way.group: (way.name, 0.2 if len(way.doses) > 1 else 1.0) for way in interventions(setting)}
    tried = [one.arm for one in pilot_arms(setting)]
    # One strength of each way is enough here: the others differ by a number.
    every = [arm for arm in tried if "0.05" not in arm.name and "0.1" not in arm.name]
    every += [*plain_arms(setting)[2:], *triage_arms(setting)]
    assert len({arm.name for arm in every}) == len(every) and every[0].name == "baseline"
    pictures = {}
    for arm in every:
        run = Run(tmp_path / arm.name.replace(" ", "_"))
        draw_arm(model, arm, run, pairs)
        pictures[arm.name] = np.stack([run.image(name) for name in run.samples()["sample"]])
        rows = run.metadata().values()
        assert all(row["calls"] >= STEPS and row["memory"] >= 0 for row in rows), arm.name
    for name, drawn in pictures.items():
        assert drawn.shape == (2, 32, 32, 3)
        if name != "baseline" and not name.startswith("triage"):
            assert not np.array_equal(drawn, pictures["baseline"]), name
    last = {way.group: way.name for way in interventions(setting)}
    assert last["block probe"] == "block probe with time travel"
    arms = {arm.name: arm for arm in chosen_arms(setting, chosen)}
    beside = {name for arm in arms.values() for name in arm.controls}
    assert beside <= set(arms) and all(arms[name].family == "control" for name in beside)
    leading = arms["block probe with time travel 0.2"]
    assert len([c for c in leading.controls if c.startswith("shuffled")]) == SHUFFLES
    assert "contrast 0.2" in leading.controls and arms["anatomy 0.2"].controls == ("contrast 0.2",)
    assert len([c for c in arms["steering in 2 blocks 0.2"].controls if c.startswith("random")]) == 2
    assert all(arm.settings["window"] == [3, 2] for arm in arms.values())


def test_the_arms_of_mend_are_arms_of_any_evaluation(setting, finished_run, monkeypatch) -> None:
    monkeypatch.setattr(ways, "_setting", lambda *given: setting)
    prompts = [prompt for prompt, _ in pairs_of(finished_run)][:2]

    def made(way: str, strength: float | None = None):
        said = {"way": way, "run": str(finished_run.path), "strength": strength}
        return ways.mend_arm(Recipe(name="mine", mend=said, controls=("other",)), prompts)

    model, arm = made("steering", 0.2)
    expected = next(one.arm for one in pilot_arms(setting) if one.arm.name == "steering 0.2")
    assert (model, arm.name, arm.controls) == (setting.model, "mine", ("other",))
    assert arm.settings["way"] == "steering" and arm.settings["steps"] == STEPS
    np.testing.assert_array_equal(arm.draw(prompts[:1], [90]).images, expected.draw(prompts[:1], [90]).images)
    assert made("shuffled steering (1)", 0.1)[1].settings != arm.settings
    for given, said in ((("steering",), "needs a strength"), (("baseline", 0.1), "takes no strength"),
                        (("magic", 0.1), "no way 'magic'")):  # fmt: skip
        with pytest.raises(HandscopeError, match=said):
            made(*given)
    prompts.append("a cat")
    with pytest.raises(HandscopeError, match="no sure labels of 1 prompts, 'a cat'"):
        made("steering", 0.2)


def test_a_pilot_takes_the_lowest_rate_among_pictures_that_stay_what_they_were(setting, tmp_path) -> None:
    drawn: list[str] = []

    def compare(folder, some) -> pd.DataFrame:
        drawn.extend(arm.name for arm in some)
        same = {"after": 0.3, "kd_ratio": 1.0, "n": 4, "before": 0.3}
        rows = [{"arm": arm.name, "family": arm.family} | same for arm in some]
        table = pd.DataFrame(rows).set_index("arm", drop=False)
        table.loc["shuffled steering 0.05 (0)", "after"] = 0.0
        table.loc["steering by token 0.1", "after"] = 0.1
        table.loc["steering by token 0.2", ["after", "kd_ratio"]] = [0.05, 1.3]
        table.loc["gated steering 0.1", "after"] = 0.1
        table.loc[table["arm"].str.startswith("anatomy"), "kd_ratio"] = [1.5, 1.4, 1.6]
        return table.reset_index(drop=True)

    table, chosen = pilot(setting, tmp_path, compare)
    assert chosen["steering"] == ("steering by token", 0.1) and chosen["anatomy"] == ("anatomy", 0.1)
    assert chosen["block probe"] == ("block probe", 0.05) and chosen["ablation"] == ("ablation", 1.0)
    assert set(chosen) == {way.group for way in interventions(setting)}
    assert choose(pd.read_csv(tmp_path / "doses.csv", keep_default_na=False)) == chosen
    plate = doses_plate(table)
    assert [ax.get_title("left") for ax in plate.axes[:4]] == ["steering", "block probe", "picture probe", "anatomy"]
    lines = [line.get_label() for line in plate.axes[0].lines]
    assert "random direction (0)" in lines and "contrast" not in lines and "shuffled steering" in lines


def test_the_anatomy_loss_does_not_see_contrast_and_the_contrast_loss_nothing_else() -> None:
    g = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 3, 96, 96, generator=g) * 0.4 + 0.3
    fainter = 0.5 + 0.3 * (pictures - 0.5) + 0.1
    torch.testing.assert_close(anatomy_loss()(fainter), anatomy_loss()(pictures), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(lack_of_contrast(fainter), 0.3 * lack_of_contrast(pictures))


def test_the_highest_memory_is_seen_though_it_was_freed() -> None:
    with peak_memory() as small:
        pass
    # Pages of the system, not of torch, which may be given again what another test freed.
    with peak_memory() as large, mmap.mmap(-1, 60 * 2**20, mmap.MAP_PRIVATE) as fresh:
        for page in range(0, len(fresh), mmap.PAGESIZE):
            fresh[page] = 1
    assert small.megabytes < 10 < 50 < large.megabytes < 90


def bright(picture: np.ndarray, prompt: str) -> float:
    return float(picture.mean() > 127)


def test_the_table_is_what_the_pictures_say(model: Model, finished_run, tmp_path) -> None:
    pairs = pairs_of(finished_run)
    calls: list[int] = []

    def drawer(light: int):
        def drawn(prompts, seeds) -> DrawnBatch:
            calls.append(len(prompts))
            noise = [np.random.default_rng(seed).integers(0, 40, (32, 32, 3)) for seed in seeds]
            images = [n + (light if seed == 90 else 60) for n, seed in zip(noise, seeds)]
            return DrawnBatch(np.array(images).astype(np.uint8), np.full(len(seeds), 4.0), share=0.1)

        return drawn

    def upper(picture: np.ndarray) -> np.ndarray:
        return np.indices(picture.shape[:2])[0] < 16

    made = [
        Arm("baseline", "plain", drawer(200)),
        Arm("better", "guidance", drawer(60), controls=("worse", "same"), settings={"window": [2]}),
        Arm("worse", "control", drawer(205)),
        Arm("same", "control", drawer(200)),
    ]
    reference = np.random.default_rng(5).integers(0, 255, (6, 32, 32, 3)).astype(np.uint8)
    given = (model, tmp_path, made, pairs, bright, upper, reference, {"steps": 4, "guidance": 3.5})
    table = experiment(*given, batch_size=4).set_index("arm")
    assert sum(calls) == 4 * len(pairs)
    assert table.loc["baseline", "before"] == 0.5 and table.loc["baseline", "difference"] == 0
    assert table.loc["better", "after"] == 0 and table.loc["better", "mended"] == 3
    assert table.loc["better", "control_p"] == 0.25 and np.isnan(table.loc["same", "control_p"])  # 3 of 3 mended
    assert table.loc["better", "q"] == table.loc["better", "p"] and np.isnan(table.loc["worse", "q"])
    assert table.loc["better", "brightness"] < 0 and table.loc["same", list(SHIFTS)].abs().max() == 0
    assert table.loc["baseline", "kd_ratio"] == 1 and table.loc["same", "diversity"] == 1
    assert table.loc["better", "calls_per_good"] == 4 and table.loc["baseline", "calls_per_good"] == 8
    # In two parts, each of which draws its own pictures of every arm.
    parted = (model, tmp_path / "parted", *given[2:])
    with pytest.raises(PartsLeftError, match="pictures are left for others"):
        experiment(*parted, batch_size=4, shard=(2, 2))
    drawn = sum(calls) - 4 * len(pairs)
    assert 0 < drawn < 4 * len(pairs)
    took = ["seconds", "memory"]
    joined = experiment(*parted, batch_size=4, shard=(1, 2)).set_index("arm")
    assert sum(calls) == 8 * len(pairs)
    pd.testing.assert_frame_equal(joined.drop(columns=took), table.drop(columns=took))
    # Again: nothing is drawn, one lost picture excepted, and the numbers are the same.
    lost = next((tmp_path / "better" / "samples").glob("*.png"))
    lost.unlink()
    again = experiment(*given, batch_size=4).set_index("arm")
    assert sum(calls) == 8 * len(pairs) + 1
    pd.testing.assert_frame_equal(again.drop(columns=took), table.drop(columns=took))
    with pytest.raises(HandscopeError, match="another steps"):
        experiment(*given[:-1], given[-1] | {"steps": 3}, batch_size=4)
    made[1] = replace(made[1], settings={"window": [3]})
    with pytest.raises(HandscopeError, match="better were drawn with another window"):
        experiment(*given, batch_size=4)
    runs = {arm.name: Run(tmp_path / arm.name) for arm in made}
    alone = compared(made[:2], runs, bright, upper, landmark_features(reference))
    assert alone["p"].tolist() == table["p"].tolist()[:2]


def test_what_makes_no_sense_is_refused(model: Model, tmp_path) -> None:
    arm = Arm("baseline", "plain", lambda prompts, seeds: DrawnBatch(np.zeros((1, 8, 8, 3), np.uint8), np.ones(1)))
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
            rows[sample]["image_sha256"] = hashlib.sha256(image.tobytes()).hexdigest()
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


def test_pairs_are_drawn_in_the_order_of_the_arms_and_the_forest_shows_the_table(finished_run, tmp_path) -> None:
    names = planted_arms(tmp_path, finished_run)
    plate = pairs_plate(tmp_path, names, n=4)
    assert [ax.get_ylabel() for ax in plate.axes[::4]] == names
    runs = [Run(tmp_path / name.replace(" ", "_")) for name in names]
    pictures = [run.image(sample) for run in runs for sample in run.samples()["sample"].head(4)]
    for ax, picture in zip(plate.axes, pictures, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), picture)

    rows = [
        {"arm": name, "family": family, "n": 12, "before": 0.3, "after": 0.3 + d, "difference": d, "low": d - 0.05,
         "high": d + 0.07, "q": q, "kd_ratio": ratio, "calls": calls}
        for name, family, d, q, ratio, calls in (("baseline", "plain", 0.0, np.nan, 1.0, 20.0),
                                                 ("a", "triage", -0.1, 0.01, 0.97, 34.0),
                                                 ("b", "control", 0.02, np.nan, 1.2, 20.0))
    ]  # fmt: skip
    left, middle, right = forest_plate(pd.DataFrame(rows)).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["b", "a"]  # from below
    intervals, points = left.collections[:2]
    np.testing.assert_allclose([segment[:, 0] for segment in intervals.get_segments()], [[-3, 9], [-15, -3]])
    np.testing.assert_allclose(points.get_offsets(), [[2, 0], [-10, 1]])
    hollow, filled = points.get_facecolors()
    assert hollow[:3].tolist() == [1, 1, 1] != filled[:3].tolist()  # only the first arm can be told from none
    np.testing.assert_allclose(middle.collections[0].get_offsets()[:, 0], [1.2, 0.97])
    np.testing.assert_allclose(right.collections[0].get_offsets()[:, 0], [1.0, 1.7])
    assert "baseline 30.0%, n = 12" in left.get_xlabel()
