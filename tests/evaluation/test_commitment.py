"""When regions are decided, on trajectories whose answer is planted."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from handscope.analysis.statistics.folds import codes
from handscope.analysis.statistics.intervals import bootstrap_weights
from handscope.errors import HandscopeError
from handscope.evaluation.commitment import COLUMNS, commit, predicted_pictures
from handscope.evaluation.decided import _drawn_medians, decided, summarise
from handscope.evaluation.regions import Region, of_colour, of_shapes, outlines
from handscope.report.commitment import commitment_plate, sentences
from handscope.run.trajectory import Trajectory

SIZE, STEPS = 32, 10


class Decoder:
    """Stands in for a model: the first two numbers of a sample's latents are the place of a white square."""

    def decode(self, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
        pictures = torch.zeros(len(latents), 3, height, width)
        for picture, (x, y) in zip(pictures, latents[:, 0, :2].round().int().tolist()):
            if x >= 0:
                picture[:, y : y + 8, x : x + 8] = 1
        return pictures


def trajectory_of(clean: torch.Tensor) -> Trajectory:
    """Latents whose Euler steps imply these clean latents (steps, 1, 4)."""
    sigmas = torch.linspace(1, 0, len(clean) + 1)
    latents = [torch.randn(1, 4, generator=torch.Generator().manual_seed(0)) * 3]
    for i, wanted in enumerate(clean):
        velocity = (latents[-1] - wanted) / sigmas[i]
        latents.append(latents[-1] + (sigmas[i + 1] - sigmas[i]) * velocity)
    times = sigmas[:-1] * 1000
    return Trajectory(torch.stack(latents), sigmas, times, times)


def squares(settled_at: int) -> torch.Tensor:
    """A square that jumps about until it stays."""
    places = torch.tensor([(2.0 + 9 * (i % 2), 3.0 + 6 * (i % 3)) for i in range(STEPS)])
    places[settled_at:] = torch.tensor([20.0, 20.0])
    return torch.cat([places, torch.zeros(STEPS, 2)], 1)[:, None]


REGIONS = [
    of_shapes("square", outlines(lambda picture: picture[..., 0] > 128), 2.0),
    of_colour("corner", lambda pictures: np.indices((SIZE, SIZE)).max(0) < 2, 5.0),
]


class Planted:
    """Stands in for a run: samples of four prompts that settle at known steps, the bad ones later."""

    def __init__(self, folder: Any, settled: list[int]) -> None:
        self.path, self.analysis_dir, self.samples_dir = folder, folder / "analysis", folder / "samples"
        self.labels_path, self.settings_path = folder / "labels.sqlite", folder / "run.yaml"
        names = [f"s{i:02}" for i in range(len(settled))]
        self.paths = {name: trajectory_of(squares(index)) for name, index in zip(names, settled)}
        self.table = pd.DataFrame(
            {
                "sample": names,
                "prompt": [f"prompt {i % 4}" for i in range(len(names))],
                "height": SIZE,
                "width": SIZE,
                "image_sha256": "0" * 64,
            }
        )
        self.settings: dict[str, Any] = {}

    def samples(self) -> pd.DataFrame:
        return self.table

    def check_drawn(self, what: str) -> None:
        """All were drawn."""

    def prompts_as_seen(self) -> dict[str, str]:
        return {prompt: prompt for prompt in self.table["prompt"]}

    def metadata(self) -> dict[str, dict]:
        return self.table.set_index("sample", drop=False).to_dict("index")

    def trajectory(self, sample: str) -> Trajectory:
        return self.paths[sample]

    def trajectory_path(self, sample: str) -> Any:
        return SimpleNamespace(exists=lambda: sample in self.paths)


def label(run: Planted, bad: list[bool]) -> None:
    from handscope.labeling.database.labels import Annotation, Labels

    grid = np.ones((2, 2), np.uint8)
    Labels(run.labels_path).add(
        [
            Annotation(name, "0" * 64, grid * (3 if is_bad else 2), grid, "bad" if is_bad else "good")
            for name, is_bad in zip(run.table["sample"], bad)
        ]
    )


@pytest.fixture
def planted(tmp_path) -> Planted:
    settled = [3] * 20 + [6] * 20
    run = Planted(tmp_path, settled)
    label(run, [index == 6 for index in settled])
    return run


def test_latents_imply_the_planted_pictures() -> None:
    pictures = predicted_pictures(Decoder(), trajectory_of(squares(4)), SIZE, SIZE)
    assert pictures.shape == (STEPS, SIZE, SIZE, 3) and pictures.dtype == np.uint8
    assert all((pictures[i, 20:28, 20:28] == 255).all() for i in range(4, STEPS))


def test_planted_steps_come_back_exactly(planted: Planted) -> None:
    rows, summary = commit(Decoder(), planted, REGIONS)
    own = rows[(rows["region"] == "square") & (rows["tolerance"] == 2.0)].set_index("sample")
    assert list(rows.columns) == list(COLUMNS)
    assert own["index"].tolist() == [3] * 20 + [6] * 20
    assert own["step"].tolist() == [7] * 20 + [4] * 20
    np.testing.assert_allclose(own["snr_db"].iloc[0], 20 * np.log10(0.3 / 0.7), rtol=1e-4)
    corner = rows[rows["region"] == "corner"]
    assert (corner["index"] == 0).all()
    whole = summary.query("region == 'square' and tolerance == 2.0").set_index("group")
    assert whole.loc["good", "median_step"] == 7 and whole.loc["bad", "median_step"] == 4
    assert whole.loc["bad", "difference"] == pytest.approx(3) and whole.loc["bad", "p"] < 0.01
    assert summary.query("region == 'corner'")["from_the_start"].tolist() == summary.query("region == 'corner'")[
        "n"
    ].tolist()
    for name in ("commitment.csv", "commitment_summary.csv"):
        assert len(pd.read_csv(planted.analysis_dir / name)) > 0


def test_what_was_measured_is_not_measured_again(planted: Planted) -> None:
    calls: list[int] = []

    def counted(pictures: np.ndarray) -> np.ndarray:
        calls.append(1)
        return REGIONS[0].distances(pictures)

    region = Region("square", counted, 2.0, "pixels")
    first, _ = commit(Decoder(), planted, [region], samples=10)
    assert len(calls) == 10
    (planted.analysis_dir / "commitment.csv").unlink()
    again, _ = commit(Decoder(), planted, [region], samples=12)
    assert len(calls) == 12
    pd.testing.assert_frame_equal(first, again[again["sample"].isin(first["sample"])].reset_index(drop=True))
    (planted.analysis_dir / "commitment.safetensors").write_bytes(b"damaged")
    commit(Decoder(), planted, [region], samples=3)
    assert len(calls) == 15


def test_prompts_take_turns(planted: Planted) -> None:
    rows, _ = commit(Decoder(), planted, REGIONS, samples=8)
    assert rows.drop_duplicates("sample")["prompt"].value_counts().tolist() == [2] * 4


def test_a_shape_that_is_missing_or_never_settles_is_counted_and_named(tmp_path) -> None:
    run = Planted(tmp_path, [3, 3, 9, 3])
    gone = squares(3)
    gone[-1] = -1.0
    run.paths["s01"] = trajectory_of(gone)
    rows, summary = commit(Decoder(), run, REGIONS[:1])
    own = rows[rows["tolerance"] == 2.0].set_index("sample")
    assert own.loc["s01", "reason"] == "no shape at the end" and np.isnan(own.loc["s01", "index"])
    assert own.loc["s02", "reason"] == "changes to the end"
    row = summary.query("tolerance == 2.0 and group == 'all'").iloc[0]
    assert (row["n"], row["missing"], row["undecided"]) == (3, 1, 1)
    empty = summary.query("tolerance == 2.0 and group == 'bad'").iloc[0]
    assert empty["n"] == 0 and empty["reason"] and np.isnan(empty["median_step"])
    assert decided(rows[rows["tolerance"] == 2.0]).n == 3


def test_drawn_medians_are_those_of_the_estimate_itself(planted: Planted) -> None:
    rows, _ = commit(Decoder(), planted, REGIONS[:1])
    rows = rows[rows["tolerance"] == 2.0]
    rows = rows.assign(index=np.random.default_rng(0).choice([1.0, 2.0, 5.0, 8.0, np.nan], len(rows)), reason="")
    group = codes(rows["prompt"])
    found = _drawn_medians(rows, 3, 40)
    for median, weights in zip(found, bootstrap_weights(group, 40, 3)):
        again = decided(rows.iloc[np.repeat(np.arange(len(rows)), weights[group].astype(int))]).median
        assert median == (STEPS if again is None else again)


def test_no_difference_is_found_where_there_is_none() -> None:
    random = np.random.default_rng(0)
    called = 0
    for seed in range(60):
        rows = pd.DataFrame(
            {
                "region": "x", "unit": "pixels", "tolerance": 1.0, "prompt": np.repeat(np.arange(8), 6), "reason": "",
                "bad": random.integers(0, 2, 48).astype(float), "index": random.integers(0, 9, 48).astype(float),
                "steps": 10, "step": 5.0, "sigma": 0.5, "snr_db": 0.0,
            }
        )  # fmt: skip
        called += summarise(rows, seed, draws=5).query("group == 'bad'")["p"].iloc[0] <= 0.05
    assert called <= 8  # 3 expected; more than 8 of 60 has a chance of 0.4%


def test_prompts_that_differ_make_no_difference_of_bad_from_good() -> None:
    # Prompt 0 is decided late and mostly bad, prompt 1 early and mostly good; inside each nothing differs.
    bad = np.array([1, 1, 1, 0, 1, 0, 0, 0], float)
    rows = pd.DataFrame(
        {
            "region": "x", "unit": "pixels", "tolerance": 1.0, "prompt": np.repeat([0, 1], 4), "reason": "",
            "bad": bad, "index": [8.0] * 4 + [2.0] * 4, "steps": 10, "step": 5.0, "sigma": 0.5, "snr_db": 0.0,
        }
    )  # fmt: skip
    found = summarise(rows, draws=5).query("group == 'bad'").iloc[0]
    assert found["difference"] == 0 and found["p"] == 1
    rows["index"] += 1.5 * bad
    found = summarise(rows, draws=5).query("group == 'bad'").iloc[0]
    assert found["difference"] == found["difference_lo"] == found["difference_hi"] == 1.5


def test_the_figure_and_the_words(planted: Planted, tmp_path) -> None:
    rows, summary = commit(Decoder(), planted, REGIONS)
    drawn = commitment_plate(Decoder(), planted, rows, REGIONS)
    drawn.savefig(tmp_path / "commitment.png")
    said = sentences(planted, summary, REGIONS)
    assert said[0].startswith("square, within 2 pixels: half are decided by step")
    assert said[-1].startswith("Yes: bad hands are decided later than good ones of the same prompt in 1 of 2 regions")
    assert "most for square: difference +3.00 steps" in said[-1]
    probes = {"subset": "sure", "block": ["single.0", "single.1"], "step": [8, 5], "within_q": [0.2, 0.01]}
    probes |= {"within_auc": 0.7, "within_lo": 0.6, "within_hi": 0.8, "n_good": 20, "n_bad": 20}
    pd.DataFrame(probes).to_csv(planted.analysis_dir / "probes.csv", index=False)
    assert "from single.1 at step 5 on: AUC 0.70 (0.60 to 0.80)" in sentences(planted, summary, REGIONS)[-1]


def test_what_cannot_be_done_is_said(tmp_path, planted: Planted) -> None:
    del planted.paths["s07"]
    with pytest.raises(HandscopeError, match="no trajectory"):
        commit(Decoder(), planted, REGIONS)
    with pytest.raises(HandscopeError, match="a name each"):
        commit(Decoder(), planted, [REGIONS[0], REGIONS[0]], samples=4)
    planted.table = planted.table.head(0)
    with pytest.raises(HandscopeError, match="run generate first"):
        commit(Decoder(), planted, REGIONS)
