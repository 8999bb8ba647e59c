"""The judge is fitted to the side that most looks took, learns from sure verdicts only, and is tested on all."""

import json

import numpy as np
import pandas as pd
import pytest
from handscope.organism import judge as of_judge
from handscope.organism.judge import Judge
from handscope.organism.study import fit_judge
from sklearn.metrics import cohen_kappa_score


def test_the_majority_counts_leaning_looks_and_a_tie_is_good() -> None:
    looks = [
        ("bad", "bad?", ""), ("good", "good?", "bad"), ("bad", "good", ""), ("bad", "good", "bad?"),
        ("good", "good", None), ("unsure", "bad", "unsure"),
    ]  # fmt: skip
    table = pd.DataFrame(looks, columns=["look_1", "look_2", "look_3"])
    assert fit_judge.majority(table).tolist() == [1, 0, 0, 1, 0, 1]


class Planted:
    """600 labels of 30 prompts whose pictures hold two features; of the unsure, the first says the opposite."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        bad, unsure = rng.random(600) < 0.4, rng.random(600) < 0.1
        self.table = pd.DataFrame(
            {
                "prompt": [f"prompt {i % 30}" for i in range(600)],
                "verdict": np.where(unsure, "unsure", np.where(bad, "bad", "good")),
                "look_1": np.where(bad, "bad", "good"), "look_2": np.where(bad, "bad?", "good?"), "look_3": "",
            },
            index=[f"sample {i}" for i in range(600)],
        )  # fmt: skip
        telling = np.where(bad ^ unsure, 3.0, -3.0) + rng.normal(size=600)
        self.features = dict(zip(self.table.index, zip(telling, rng.normal(size=600))))

    def reference(self, sample: str) -> str:
        return sample


def test_the_card_holds_a_judge_that_learnt_from_the_sure_and_was_tested_on_all(tmp_path, monkeypatch, capsys) -> None:
    planted, card = Planted(), tmp_path / "judge.json"
    monkeypatch.setattr(fit_judge.ShippedLabels, "load", lambda folder: planted)
    monkeypatch.setattr(
        fit_judge, "features", lambda picture, prompt: dict(zip(("telling", "noise"), planted.features[picture]))
    )
    save = Judge.save
    monkeypatch.setattr(Judge, "save", lambda judge, path: save(judge, card))
    fit_judge.main([])

    judge, said = Judge.load(card), json.loads(capsys.readouterr().out)
    assert judge.names == ("noise", "telling") and judge.summary == said
    assert judge.weights[1] > 1 > abs(judge.weights[0])
    table = planted.table
    assert (said["n"], said["prompts"]) == (600, 30)
    assert said["bad_share"] == pytest.approx(table["look_1"].eq("bad").mean(), abs=5e-4)
    clear = (table["verdict"] != "unsure").to_numpy()
    rows = np.array([planted.features[name][::-1] for name in table.index])
    bad = table["look_1"].eq("bad").to_numpy()
    right = (judge.probability(rows) > 0.5) == bad
    assert right[clear].mean() > 0.98 and right[~clear].mean() < 0.02
    # Left out of the test, the unsure would make the judge perfect; in it, they cost it what they are.
    assert 0.7 < said["kappa"] < 0.9 and said["trusted"]


def test_a_judge_is_checked_on_an_organism_that_it_was_not_fitted_to(tmp_path, monkeypatch, capsys) -> None:
    planted = Planted()
    bad, rng = planted.table["look_1"].eq("bad").to_numpy(), np.random.default_rng(1)
    telling = np.where(bad, 3.0, -3.0) + 1.5 * rng.normal(size=600)
    planted.features = dict(zip(planted.table.index, zip(telling, rng.normal(size=600))))
    monkeypatch.setattr(fit_judge.ShippedLabels, "load", lambda folder: planted)
    monkeypatch.setattr(
        fit_judge, "features", lambda picture, prompt: dict(zip(("telling", "noise"), planted.features[picture]))
    )
    for module in (fit_judge, of_judge):
        monkeypatch.setattr(module, "CHECKS", tmp_path / "checks.json")
        monkeypatch.setattr(module, "card_of", lambda name: tmp_path / f"{name}.json")
    # A judge that says bad a little too readily.
    Judge(("noise", "telling"), (0.0, 0.0), (1.0, 1.0), (0.0, 2.0), 3.0, 0.5, 0.5, {"trusted": True}).save(
        tmp_path / "organism.json"
    )
    fit_judge.main(["organism-flux2"])
    said = json.loads(capsys.readouterr().out)
    p = 1 / (1 + np.exp(-(2 * telling + 3)))
    assert said["n"] == 600 and said["kappa"] == pytest.approx(cohen_kappa_score(p > 0.5, bad), abs=1e-3)
    low, high = said["band"]
    assert 0 < said["rate_bias_interval"][0] < said["rate_bias"] < said["rate_bias_interval"][1] < 0.2
    judge = Judge.of("organism-flux2")
    assert (judge.sure_good, judge.sure_bad) == (low, high) and judge.weights == (0.0, 2.0)
    assert judge.summary == {"fitted_to": "organism", **said}
    assert Judge.of("organism-small").summary == {"fitted_to": "organism", "n": 0, "trusted": False}
    assert Judge.of("organism").summary == {"trusted": True}

    # One that knows nothing decides nothing.
    planted.features = dict(zip(planted.table.index, rng.normal(size=(600, 2))))
    said = fit_judge.check_on("organism-flux2")
    assert said["band"] == [0.0, 1.0] and said["decided_share"] == 0 and not said["trusted"]
