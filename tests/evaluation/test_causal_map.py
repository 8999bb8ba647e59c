"""What rows of interchange come to: against plain means, on effects that are known, and where there are none."""

import numpy as np
import pandas as pd
import pytest
from handscope.evaluation.causal_map import agreement, agreements, causal_map, effects_of, first_order_map, probe_map
from handscope.evaluation.patching import FIRST_ORDER, LATENTS, MAIN

BLOCKS, STEPS = ("double.0", "single.1"), (4, 2, 1)
EFFECT = {("double.0", 4): 0.3, ("single.1", 2): 0.15}


def made(seed: int, pairs: int = 96, prompts: int = 16, spread: float = 0.2, own: float = 0.0) -> pd.DataFrame:
    """Rows as `effects_of` gives them: effects of two cells, noise that prompts share, latents that move by 0.1."""
    random = np.random.default_rng(seed)
    rows, shared = [], random.normal(0, spread / 2, (prompts, 6))
    for pair in range(pairs):
        prompt, toward = pair % prompts, 1 - 2 * (pair % 2)
        base = {"pair": f"{pair:03d}", "prompt": f"prompt {prompt}", "toward": toward, "tokens": 3, "outside": 1.0,
                "judged": 0, "way": 0.1, "whole": 0.5}  # fmt: skip
        for number, cell in enumerate((block, step) for block in BLOCKS for step in STEPS):
            common = shared[prompt, number] * (-1) ** (pair // 2 % 2)
            for arm, mean in ((MAIN, EFFECT.get(cell, 0.0)), ("own class", own)):
                moved = mean + common + random.normal(0, spread)
                rows.append({**base, "arm": arm, "block": cell[0], "step": cell[1], "moved": moved})
            if number < len(STEPS):
                moved = 0.1 + random.normal(0, spread)
                rows.append({**base, "arm": LATENTS, "block": "", "step": cell[1], "moved": moved})
            rows.append({"pair": base["pair"], "prompt": base["prompt"], "toward": toward, "arm": FIRST_ORDER,
                         "block": cell[0], "step": cell[1], "exact": EFFECT.get(cell, 0.01 * number),
                         "estimate": 2 * EFFECT.get(cell, 0.01 * number) + random.normal(0, 0.01)})  # fmt: skip
    return pd.DataFrame(rows)


def test_means_are_of_the_pairs_and_controls_are_paired():
    rows = made(0)
    table = causal_map(rows)
    for direction, towards in (("both", (1, -1)), ("into good", (1,))):
        some = rows[(rows["arm"] == MAIN) & rows["toward"].isin(towards)]
        found = table[(table["direction"] == direction) & (table["arm"] == MAIN)].set_index(["block", "step"])
        for cell, part in some.groupby(["block", "step"]):
            assert found.loc[cell, "moved"] == pytest.approx(part["moved"].mean())
            assert found.loc[cell, "n"] == len(part) and found.loc[cell, "moved_lo"] < part["moved"].mean()
            latents = rows[(rows["arm"] == LATENTS) & (rows["step"] == cell[1]) & rows["toward"].isin(towards)]
            less = part["moved"].to_numpy() - latents.set_index("pair").loc[part["pair"], "moved"].to_numpy()
            assert found.loc[cell, "beyond_latents"] == pytest.approx(less.mean())
            assert found.loc[cell, "beyond_latents_n"] == len(part)
    assert "beyond_other_prompt" not in table


def test_effects_are_found_and_nothing_else_at_5_percent(monkeypatch):
    monkeypatch.setattr("handscope.evaluation.causal_map.FLIPS", 499)
    called, beyond = [], []
    for seed in range(40):
        table = causal_map(made(seed))
        main = table[(table["direction"] == "both") & (table["arm"] == MAIN)].set_index(["block", "step"])
        called.append(main["p_family"] <= 0.05)
        beyond.append(main["beyond_own_class_q"] <= 0.05)
    for found in (pd.concat(called, axis=1), pd.concat(beyond, axis=1)):
        real = found.index.isin(list(EFFECT))
        assert found[real].to_numpy().mean() > 0.95
    false = pd.concat(called, axis=1)
    false = false[~false.index.isin(list(EFFECT))]
    assert false.any().mean() <= 0.15  # 5% of 40 are 2; more than 6 are seen once in a hundred times


def test_what_changes_no_bit_is_not_called():
    rows = made(0)
    rows.loc[rows["arm"] == MAIN, "moved"] = 0.0
    main = causal_map(rows).query("arm == @MAIN")
    assert (main["p"] == 1).all() and (main["p_family"] == 1).all() and (main["moved"] == 0).all()


def test_agreement_is_spearmans_of_means_with_an_interval():
    rows = made(3)
    main = rows[rows["arm"] == MAIN]
    cells = [(block, step) for block in BLOCKS for step in STEPS]
    probes = pd.DataFrame([{"block": b, "step": s, "value": EFFECT.get((b, s), 0.0) + 0.001 * i}
                           for i, (b, s) in enumerate(cells)])  # fmt: skip
    found = agreement(main, "moved", probes)
    assert found.lo < found.hi
    means = main.groupby(["block", "step"])["moved"].mean()
    ranks = [pd.Series(one).rank() for one in ([means[cell] for cell in cells], probes["value"].tolist())]
    assert found.rho == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found.lo <= found.rho <= found.hi and found.cells == 6 and found.worst.count(";") == 2
    table = agreements(rows, probes)
    first = table.set_index(["causal", "other"]).loc[("predicted picture, exact", "first order")]
    assert first["rho"] > 0.9
    assert set(table["other"]) == {"probe", "first order"}
    both = first_order_map(rows)
    assert np.allclose(both["estimate"], 2 * both["exact"], atol=0.01) and (both["exact_lo"] <= both["exact"]).all()


def test_files_are_read_as_rows(tmp_path):
    (tmp_path / "parts").mkdir()
    part = {"pair": ["000+", "000-"], "arm": MAIN, "block": "double.0", "step": 4, "tokens": 2, "before": [0.2, 0.9],
            "goal": 0.5, "bad": [0.6, 0.4], "way": 0.5, "outside": 1.0}  # fmt: skip
    pd.DataFrame(part).to_csv(tmp_path / "parts" / "donor-000.csv", index=False)
    (tmp_path / "parts" / "own_class-000.csv").write_text("\n")
    pairs = pd.DataFrame({"pair": ["000+", "000-"], "prompt": "a", "toward": [1, -1]})
    rows = effects_of(tmp_path, pairs)
    assert rows["moved"].tolist() == pytest.approx([0.4, 0.5]) and rows["judged"].tolist() == [1, 1]
    probes = pd.DataFrame({"subset": ["sure", "all"], "block": "b", "step": 1, "auc": 0.6, "within_auc": [0.7, 0.8]})
    assert probe_map(probes)["value"].tolist() == [0.7]
