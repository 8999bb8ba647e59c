"""The small measurements behind the claims: on what is known beforehand, and through the command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from handscope import cli
from handscope.claims import CLAIMS, codec, loss
from handscope.claims.counting import of_vectors, prompts_of
from handscope.claims.imbalance import of_table, thin
from handscope.claims.rates import beside_first, by_bins, read_scores, trend
from handscope.errors import HandscopeError
from handscope.organism.captions import CAPTIONS, Caption
from scipy.stats import t as student

RANDOM = np.random.default_rng(0)


def test_every_claim_has_a_verb_and_every_verb_a_claim() -> None:
    import argparse

    (verbs,) = (one for one in cli._parser()._actions if isinstance(one, argparse._SubParsersAction))
    (inner,) = (one for one in verbs.choices["claims"]._actions if isinstance(one, argparse._SubParsersAction))
    assert set(inner.choices) == set(CLAIMS)


def test_an_embedding_on_a_line_says_how_many_and_one_of_names_does_not() -> None:
    _, templates, numbers = prompts_of()
    random = np.random.default_rng(1)
    noise = 0.3 * random.normal(size=(len(numbers), 32))
    line = np.outer(np.log(numbers), random.normal(size=32)) + noise
    ordered = of_vectors("line", line, templates, numbers, permutations=99)
    assert ordered.order > 0.9 and ordered.order_p == 0.01
    assert ordered.predicted == pytest.approx(np.arange(1, 11), rel=0.2)
    names = random.normal(size=(11, 32))[numbers] + noise
    named = of_vectors("names", names, templates, numbers, permutations=99)
    assert named.accuracy == 1 and named.p == 0.01 and named.order_p > 0.05
    nothing = of_vectors("nothing", noise, templates, numbers, permutations=99)
    assert nothing.p > 0.05 and nothing.chance == pytest.approx(0.1, abs=0.03)


def test_a_template_that_was_fitted_to_is_not_asked_about() -> None:
    """Vectors that are a name of prompt and number together tell nothing of other templates."""
    _, templates, numbers = prompts_of()
    alone = of_vectors("alone", np.eye(len(numbers)), templates, numbers, permutations=19)
    assert alone.accuracy <= 0.2
    with pytest.raises(HandscopeError, match="two templates"):
        of_vectors("one", np.eye(3), ["a"] * 3, [1, 2, 3])


def test_the_shift_costs_as_much_as_the_fault() -> None:
    sound, faulty, outside = loss._pairs(3, "six", 64, seed=0)
    assert ((sound - faulty).abs().amax((1, 2, 3)) > 0.2).all()
    apart = (sound - faulty).abs().amax(1, keepdim=True) > 0.05
    assert apart.float().mean() < 0.2  # the same hand, before the same background
    error = (faulty - sound).square().mean((1, 2, 3))
    shift = (error / outside.mean((1, 2, 3))).sqrt()
    moved = loss._moved(sound, outside, shift)
    assert (moved - sound).square().mean((1, 2, 3)) == pytest.approx(error.numpy(), rel=1e-4)
    assert loss._above(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])).tolist() == [0.5, 0, 1]


class Coarse:
    """An autoencoder that keeps means of 4 by 4 pixels."""

    class pipe:
        vae_scale_factor = 4

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 4)

    def decode(self, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return torch.nn.functional.interpolate(latents, (height, width), mode="bilinear")


class Sharp:
    """A scorer that finds five on what has a sharp edge, and nothing on the rest."""

    def __init__(self, pictures: torch.Tensor) -> None:
        self.found = ((pictures[..., 1:] - pictures[..., :-1]).abs().amax((1, 2, 3)) > 0.2).tolist()

    def outcomes(self) -> list[str]:
        return ["plausible" if found else "undetected" for found in self.found]

    def table(self) -> pd.DataFrame:
        table = pd.DataFrame({"image": range(len(self.found)), "outcome": self.outcomes(), "size": 20.0})
        return table.assign(count=np.where(self.found, 5, 0), score=np.where(self.found, 1.0, np.nan))


def test_what_a_coarse_autoencoder_blurs_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "score", Sharp)
    ground = torch.zeros(4, 3, 32, 32)
    ground[:2, :, 8:24, 8:24] = 1  # large
    ground[2:, :, 9:10, 9:11] = 1  # and small
    rows = codec.kept(Coarse(), ground, [16.0, 16.0, 2.0, 2.0])
    assert list(rows) == codec.COLUMNS and rows["latents"].tolist() == [4, 4, 0.5, 0.5]
    assert rows["found"].all() and rows["found_after"].tolist() == [True, True, False, False]
    assert rows["bad_after"].tolist() == [0, 0, 1, 1] and rows["count_after"].tolist() == [5, 5, 0, 0]
    table = codec.by_side(rows).set_index("side")
    assert table.loc[2, "difference"] == 1 and table.loc[16, "difference"] == 0
    assert np.isnan(table.loc[2, "five_after"]) and table.loc[16, "five_after"] == 1
    even = torch.full((1, 3, 32, 32), 0.25)
    assert torch.allclose(codec.round_trip(Coarse(), even), even)
    psnr = -10 * np.log10((codec.round_trip(Coarse(), ground[3:]) - ground[3:]).square().mean().item())
    assert rows["psnr"][3] == pytest.approx(psnr, rel=1e-4)


def test_the_same_hands_stand_on_an_even_ground_at_every_size() -> None:
    pictures = codec.placed(2, 32, 96)
    assert pictures.shape == (2, 3, 96, 96) and (pictures[:, :, 0] == pictures[:, :, 0, :1]).all()
    assert pictures[:, :, 32:64, 32:64].std() > 0.05


def scored(path: Path, n: int = 60) -> pd.DataFrame:
    """Scores of pictures of which the smaller are worse."""
    size = RANDOM.uniform(20, 200, n)
    bad = RANDOM.random(n) < np.where(size < 80, 0.8, 0.1)
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(n)], "size": size, "presence": RANDOM.random(n)})
    table["outcome"] = np.where(bad, "implausible", "plausible")
    table.loc[:3, ["outcome", "size"]] = ["undetected", np.nan]
    table.to_csv(path, index=False)
    return table


def test_rates_by_size_are_those_of_the_bins(tmp_path: Path) -> None:
    scored(tmp_path / "scores.csv")
    table = read_scores(tmp_path)
    bins = by_bins(table["size"], table["bad"], table["path"], bins=3)
    told = table.dropna(subset=["size", "bad"]).sort_values("size")
    assert bins["n"].sum() == len(told) == 56
    for row, (_, part) in zip(bins.itertuples(), told.groupby(np.repeat([0, 1, 2], bins["n"]))):
        assert row.rate == pytest.approx(part["bad"].mean()) and row.lo <= row.rate <= row.hi
        assert (row.low, row.high) == (part["size"].min(), part["size"].max())
    found, p = trend(table["size"], table["bad"], table["path"], permutations=199)
    assert found.value < -0.3 and found.hi < 0 and p == 0.005
    with pytest.raises(HandscopeError, match="bins take"):
        by_bins(table["size"][:6], table["bad"][:6], table["path"][:6])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name, words in (("other.csv", "no table"), ("none.csv", "could not be read")):
        with pytest.raises(HandscopeError, match=words):
            read_scores(tmp_path / name)


def test_sets_are_compared_with_the_first() -> None:
    bad = (RANDOM.random(400) < 0.3).astype(float)
    worse, alone = (RANDOM.random(400) < 0.6).astype(float), np.arange(400)
    sets = {"base": (bad, alone), "worse": (worse, alone + 400), "same": (bad, alone)}
    table = beside_first(sets).set_index("set")
    assert table.loc["worse", "difference"] == pytest.approx(worse.mean() - bad.mean())
    spread = np.sqrt((bad.var() + worse.var()) / 400 * 800 / 799)  # of independent pictures
    expected = student.ppf(0.975, 799) * spread
    assert table.loc["worse", "d_hi"] - table.loc["worse", "difference"] == pytest.approx(expected)
    assert table.loc["worse", "p_holm"] < 1e-6 and table.loc["same", "p"] == 1 and np.isnan(table.loc["base", "p"])


def test_thinned_renders_are_as_many_and_of_other_gestures(tmp_path: Path) -> None:
    (tmp_path / "renders").mkdir()
    (tmp_path / "latents").mkdir()
    random = np.random.default_rng(0)
    for number in range(2):
        captions = [str(CAPTIONS[i]) for i in random.integers(0, len(CAPTIONS), 200)]
        (tmp_path / "renders" / f"{number:04d}.json").write_text(json.dumps(captions))
        np.save(tmp_path / "renders" / f"{number:04d}.npy", np.arange(200))
        np.save(tmp_path / "latents" / f"{number:04d}.npy", np.arange(400))
    (tmp_path / "latents" / "scale.json").write_text("{}")
    asked = ["claims", "imbalance", "thin", "--work", str(tmp_path), "--out", str(tmp_path / "out"), "--keep", "0.1"]
    assert cli.main(asked) == 0 and cli.main(asked) == 0  # the second time finds all there
    count = {}
    for side in ("balanced", "imbalanced"):
        said = []
        for number in range(2):
            folder = tmp_path / "out" / side
            captions = json.loads((folder / "renders" / f"{number:04d}.json").read_text())
            pictures, latents = (np.load(folder / part / f"{number:04d}.npy") for part in ("renders", "latents"))
            whole = json.loads((tmp_path / "renders" / f"{number:04d}.json").read_text())
            assert [whole[i] for i in pictures] == captions
            assert latents.tolist() == [*pictures, *(200 + pictures)]  # the mirrors follow
            said += captions
        count[side] = [sum(Caption.parse(one).gesture == g for one in said) for g in ("three", "five")]
        assert (tmp_path / "out" / side / "latents" / "scale.json").exists()
        count[side].append(len(said))
    assert count["balanced"][2] == count["imbalanced"][2]
    assert count["imbalanced"][0] < count["balanced"][0] / 3 and count["imbalanced"][1] > count["balanced"][1]
    with pytest.raises(HandscopeError, match="otherwise"):
        thin(tmp_path, tmp_path / "out", "five")
    with pytest.raises(HandscopeError, match="no renders"):
        thin(tmp_path / "none", tmp_path / "out", "five")


def test_what_is_added_to_the_rare_gesture_is_beyond_the_others() -> None:
    rows = []
    for number, caption in enumerate(CAPTIONS):
        for _ in range(2):
            balanced, apart = RANDOM.random() * 0.5, 0.01 * (-1) ** number  # which no gesture has more of
            rows.append((str(caption), balanced, balanced + 0.1 + apart + 0.3 * (caption.gesture == "three")))
    found = of_table(pd.DataFrame(rows, columns=["prompt", "balanced", "imbalanced"]), "three")
    assert found.beyond == pytest.approx(0.3) and found.p < 1e-6
    rates = found.rates.set_index("gesture")
    assert rates.loc["three", "added"] == pytest.approx(0.4) and rates.loc["two", "added"] == pytest.approx(0.1)
    assert rates["n"].tolist() == [96] * 4


def test_the_command_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["claims"]) == 0
    assert all(f"{name}: " in said for said in [capsys.readouterr().out] for name in CLAIMS)
    assert cli.main(["claims", "table", *out]) == 0
    said = capsys.readouterr().out
    assert "reduction: 51.2 [47.89, 54.5]: printed is 52.2" in said and "9 of 15 printed numbers do not follow" in said
    scored(tmp_path / "a.csv")
    scored(tmp_path / "b.csv")
    assert cli.main(["claims", "size", str(tmp_path / "a.csv"), *out]) == 0
    assert "pixels: rho -" in capsys.readouterr().out
    assert cli.main(["claims", "passes", f"one={tmp_path / 'a.csv'}", f"many={tmp_path / 'b.csv'}", *out]) == 0
    assert "many: implausible" in capsys.readouterr().out
    assert cli.main(["claims", "counting", "--permutations", "9", *out]) == 0
    assert "pooled: tells 100%" in capsys.readouterr().out
    for name in ("table", "size", "passes", "counting"):
        assert (tmp_path / "out" / f"{name}.csv").exists() and (tmp_path / "out" / f"{name}.png").exists()
    for asked, words in (
        (["passes", "alone"], "gan=scored"),
        (["loss", "--fault", "none"], "Expected a fault"),
        (["imbalance", "compare"], "--balanced"),
        (["imbalance", "thin"], "--work"),
        (["steps", "--steps", "3"], "two numbers of steps"),
    ):
        assert cli.main(["claims", *asked]) == 2
        assert words in capsys.readouterr().err
