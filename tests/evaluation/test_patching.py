"""Interchange over the tiny run: pairs, parts that resume and are shared, and what is measured."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.errors import HandscopeError
from handscope.evaluation.patch_pairs import stored_pairs
from handscope.evaluation.patching import (  # fmt: skip
    CONTROLS,
    FIRST_ORDER,
    LATENTS,
    MAIN,
    WINDOWS,
    Looked,
    Settings,
    missing_parts,
    parts_of,
    patch_parts,
)
from handscope.labeling.table import sample_table
from handscope.parallel import workers

BLOCKS, STEPS_READ = ("double.1", "single.2"), (4, 2)
SETTINGS = Settings(
    blocks=BLOCKS, steps=STEPS_READ, arms={**dict.fromkeys(CONTROLS, 4), **dict.fromkeys(WINDOWS, 2)}, batch_size=4
)


def look(pictures, prompts) -> Looked:
    """Red is bad; what is brighter than the middle is a shape."""
    assert len(pictures) == len(prompts)
    red = pictures[..., 0].mean((1, 2)) / 255
    return Looked(red, {"outline": pictures.mean(-1) > 127, "colours": pictures.mean((1, 2)) / 255})


@pytest.fixture(scope="module")
def pairs(finished_run) -> pd.DataFrame:
    return stored_pairs(finished_run, 6)


@pytest.fixture(scope="module")
def folder(tiny_model, finished_run, pairs, tmp_path_factory) -> Path:
    """All parts, done at once."""
    folder = tmp_path_factory.mktemp("patch")
    patch_parts(tiny_model, finished_run, folder, pairs, look, SETTINGS)
    return folder


def test_pairs_are_of_one_prompt_and_both_ways(finished_run, pairs):
    table = sample_table(finished_run).set_index("sample")
    assert len(pairs) == 6 and pairs["prompt"].nunique() == 3
    for row in pairs.itertuples():
        recipient, donor = table.loc[row.recipient], table.loc[row.donor]
        assert recipient["prompt"] == donor["prompt"] == row.prompt
        assert (recipient["verdict"], donor["verdict"]) == (("good", "bad") if row.toward > 0 else ("bad", "good"))
        if row.own:
            own = table.loc[row.own]
            assert row.own != row.recipient and own["verdict"] == recipient["verdict"] and own["prompt"] == row.prompt
        other = table.loc[row.other]
        assert other["prompt"] != row.prompt and other["verdict"] == donor["verdict"]
    couples = pairs.groupby(pairs["pair"].str[:-1])
    assert all(set(some["recipient"]) == set(some["donor"]) for _, some in couples)
    assert stored_pairs(finished_run, 6).equals(pairs) and stored_pairs(finished_run, 2).equals(pairs[:2])


def test_every_arm_has_its_cells(folder, pairs):
    found = pd.concat(pd.read_csv(path) for path in (folder / "parts").glob("*.csv"))
    counts = found.groupby("arm")["pair"].nunique().to_dict()
    own = int((pairs["own"][:4] != "").sum())
    assert counts == {MAIN: 6, LATENTS: 6, FIRST_ORDER: 6, "own class": own, "other prompt": 4, "elsewhere": 4,
                      "blocks on": 4, "steps on": 4}  # fmt: skip
    main = found[found["arm"] == MAIN]
    assert set(zip(main["block"], main["step"])) == {(block, step) for block in BLOCKS for step in STEPS_READ}
    assert found.loc[found["arm"] == LATENTS, "block"].isna().all()
    elsewhere = found[found["arm"] == "elsewhere"].set_index(["pair", "block", "step"])["tokens"]
    tokens = main.set_index(["pair", "block", "step"])["tokens"]
    assert (elsewhere == np.minimum(tokens, 16 - tokens).loc[elsewhere.index]).all()
    assert main["way"].between(-2, 2).all() and main["way_outline"].dropna().between(0, 1).all()
    assert (main["outside"] >= 0).all() and main["bad"].between(0, 1).all()
    assert len(list((folder / "strips").glob("000-_*.png"))) == 2 + len(STEPS_READ) * (len(BLOCKS) + 1)


def test_the_last_block_and_all_later_steps_are_a_window(folder):
    """Of one block alone, this block and all later ones is that block; the window of steps moves further."""
    found = pd.concat(pd.read_csv(path) for path in (folder / "parts").glob("*.csv"))
    keyed = {arm: rows.set_index(["pair", "block", "step"]) for arm, rows in found.groupby("arm")}
    last = keyed["blocks on"].query("block == 'single.2'")
    assert np.allclose(last["way"], keyed[MAIN].loc[last.index, "way"])
    later = keyed["steps on"].query("block == 'single.2' and step == 4")["way"]
    assert later.mean() > keyed[MAIN].loc[later.index, "way"].mean() + 0.1


def test_parts_go_on_where_they_stopped_and_are_shared(tiny_model, finished_run, pairs, folder, tmp_path):
    every = parts_of(len(pairs), SETTINGS)
    for i in (1, 2):
        assert missing_parts(tmp_path, len(pairs), SETTINGS)
        patch_parts(tiny_model, finished_run, tmp_path, pairs, look, SETTINGS, shard=(i, 2))
    assert not missing_parts(tmp_path, len(pairs), SETTINGS)
    for part in every:
        name = f"parts/{part.name}.csv"
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    gone = tmp_path / "parts" / f"{every[0].name}.csv"
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir() if path != gone}
    gone.unlink()
    patch_parts(tiny_model, finished_run, tmp_path, pairs, look, SETTINGS)
    assert gone.read_bytes() == (folder / "parts" / gone.name).read_bytes()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("by", ["two processes", "a cluster"])
def test_parts_have_the_same_bytes_whoever_does_them(by, tiny_model, finished_run, pairs, folder, tmp_path):
    crew = 2 if by == "two processes" else Elsewhere()
    with workers(crew):
        patch_parts(tiny_model, finished_run, tmp_path, pairs, look, SETTINGS)
    for part in parts_of(len(pairs), SETTINGS):
        name = f"parts/{part.name}.csv"
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


class Elsewhere:
    """A cluster whose workers have only what can be sent to them."""

    def finished(self, work, items, stage, progress, gpu=False):
        sent = pickle.loads(pickle.dumps(work))
        yield from ((place, sent(pickle.loads(pickle.dumps(item)))) for place, item in enumerate(items))


def test_parts_of_other_pairs_are_refused(tiny_model, finished_run, pairs, folder):
    with pytest.raises(HandscopeError, match="are of other pairs"):
        patch_parts(tiny_model, finished_run, folder, pairs[:2], look, SETTINGS)
    wrong = Settings(blocks=BLOCKS, steps=STEPS_READ, arms={"sideways": 4})
    with pytest.raises(HandscopeError, match="found sideways"):
        patch_parts(tiny_model, finished_run, folder, pairs, look, wrong)
