"""The table of organisms: sizes as it says, every shipped one draws and replays, a missing one says how it is made."""

import re

import numpy as np
import pytest
import torch
from handscope import ActivationStore, Plan, Run, extract, generate, load
from handscope.errors import HandscopeError
from handscope.models.embedded import ORGANISMS, SHIPPED, folder_of, organism_of
from handscope.organism.architectures import ARCHITECTURES
from handscope.organism.captions import CAPTIONS
from handscope.organism.judge import Judge
from handscope.organism.model import Shape, folder_size
from handscope.organism.study.shipped import ShippedLabels

MILLIONS = {
    "organism": 2.35, "organism-1": 2.35, "organism-small": 0.61, "organism-small-1": 0.61, "organism-large": 7.65,
    "organism-large-1": 7.65, "organism-flux2": 2.05,
}  # fmt: skip
SHIPS = [name for name, one in ORGANISMS.items() if one.ships]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A home of one's own, so that what this machine has made is not found."""
    monkeypatch.setenv("HANDSCOPE_HOME", str(tmp_path / "home"))


def test_every_organism_has_the_size_that_is_said():
    assert ORGANISMS.keys() == MILLIONS.keys()
    for name, one in ORGANISMS.items():
        with torch.device("meta"):
            made = ARCHITECTURES[one.architecture].transformer(Shape(one.heads, one.double, one.single))
        assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(MILLIONS[name], rel=0.1), name


def test_those_that_ship_are_small_together():
    sizes = {name: folder_size(ORGANISMS[name].folder) / 1e6 for name in SHIPS}
    assert sum(sizes.values()) < 40 and all(size < 13 for size in sizes.values()), sizes
    assert folder_size(SHIPPED / "ladder") / 1e6 + sizes["organism"] == pytest.approx(sum(sizes.values()))


def test_nothing_that_ships_names_a_path_of_a_machine():
    configs = list(SHIPPED.rglob("*.json"))
    assert configs and not [path for path in configs if "_name_or_path\": \"/" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", SHIPS)
def test_one_that_ships_draws_and_replays_to_the_bit(name, tmp_path):
    model, one = load(name), ORGANISMS[name]
    shown = sum(p.numel() for p in model.transformer.parameters()) / 1e6
    assert shown == pytest.approx(MILLIONS[name], rel=0.1) and model.family.name == one.architecture
    run, steps = Run(tmp_path / "run"), 4
    generate(model, run, [str(CAPTIONS[0]), str(CAPTIONS[100])], [0], steps=steps)
    assert organism_of(run.settings) == one
    first, last = str(model.blocks[0]), str(model.blocks[-1])
    plan = Plan([first, last], [4, 1], of=steps)
    extract(model, run, plan, tokens="all")
    store = ActivationStore(run.activations_dir)
    again = Run(tmp_path / "again")
    generate(model, again, [str(CAPTIONS[0]), str(CAPTIONS[100])], [0], steps=steps, trajectories=False)
    assert all(np.array_equal(run.image(s), again.image(s)) for s in run.samples()["sample"])
    extract(model, again, plan, tokens="all")  # without trajectories it draws again
    fresh = ActivationStore(again.activations_dir)
    for block in (first, last):
        for step in (4, 1):
            assert np.array_equal(store.read(block, step)[0], fresh.read(block, step)[0]), (block, step)


@pytest.mark.parametrize("name", [name for name in SHIPS if name != "organism"])
def test_flux1s_of_the_ladder_share_the_space_of_latents(name):
    first, other = load("organism").pipe, load(name).pipe
    for part, value in first.vae.state_dict().items():
        assert torch.equal(value, other.vae.state_dict()[part]), part
    if ORGANISMS[name].architecture == "FLUX.1":
        assert other.vae.config.shift_factor == first.vae.config.shift_factor
        for encoder in ("text_encoder", "text_encoder_2"):
            theirs = getattr(other, encoder).state_dict()
            assert all(torch.equal(p, theirs[key]) for key, p in getattr(first, encoder).state_dict().items())


def test_one_that_was_not_made_says_which_command_makes_it(tmp_path):
    with pytest.raises(HandscopeError, match=re.escape("training.train --organism organism-large`")) as error:
        load("organism-large")
    assert str(tmp_path / "home" / "organisms" / "organism-large") in str(error.value)
    folder = tmp_path / "home" / "organisms" / "organism-large"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    assert folder_of("organism-large") == folder


def test_a_judge_that_was_never_checked_on_an_organism_abstains():
    picture = np.zeros((96, 96, 3), np.uint8)
    unchecked = Judge.of("organism-large-1")
    assert unchecked.summary == {"fitted_to": "organism", "n": 0, "trusted": False}
    assert unchecked.verdict(picture, str(CAPTIONS[0]))[0] == "unsure"
    assert Judge.of("organism") == Judge.load()


@pytest.mark.parametrize("name", SHIPS)
def test_labels_of_each_are_of_pictures_that_ship_and_its_judge_was_tried_on_them(name):
    labels, judge = ShippedLabels.of(name), Judge.of(name)
    assert labels is not None and len(labels.table) >= 100
    for sample in labels.table.index[::25]:
        assert labels.reference(sample).shape == (96, 96, 3)
    assert judge.summary["n"] == len(labels.table)
    assert 0.2 < judge.summary["bad_share"] < 0.5
