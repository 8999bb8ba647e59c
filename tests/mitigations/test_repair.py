"""A region painted anew: only its pixels change, what cannot be is refused, and the network for depth is trained."""

import numpy as np
import pytest
import torch
from diffusers import FluxControlNetModel
from handscope.errors import HandscopeError
from handscope.mitigations.depth_control import DepthControl
from handscope.mitigations.painting import load_network, network_folder
from handscope.mitigations.pictures import captioned
from handscope.mitigations.repair import Region, refusal, repair
from handscope.mitigations.settings import Training
from handscope.mitigations.train import train
from handscope.models.model import load
from handscope.organism.depth import render_with_depth
from handscope.organism.silhouette import silhouette
from made_families import save
from made_tiny import PROMPTS
from PIL import Image


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def trained(tiny_pipe_folder, pictures, tmp_path_factory):
    """The folder of a network of one double block, trained for two steps on pictures with a depth image each."""
    folder, depths = tmp_path_factory.mktemp("control"), []
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(PROMPTS[number])
        depths.append(tmp_path_factory.mktemp("depth") / f"{number}.png")
        Image.new("RGB", (32, 32), (100 * number,) * 3).save(depths[-1])
    learner = DepthControl(load(str(tiny_pipe_folder)), depths, 32, 32)
    assert not any(p.any() for p in learner.network.controlnet_blocks.parameters())  # it begins by adding nothing
    return train(learner, folder / "out", captioned(folder), Training(steps=2, batch=2, rate=1e-2))


def region() -> Region:
    mask = np.zeros((32, 32), bool)
    mask[5:30, 3:28] = True
    return Region(mask, np.linspace(0, 1, 32, dtype=np.float32)[:, None].repeat(32, 1))


@pytest.mark.parametrize("depth", [False, True])
def test_only_what_is_within_the_mask_changes(depth, tiny_model, pictures, trained):
    regions = [region(), Region(region().mask[::-1], region().depth)]
    network = load_network(tiny_model, trained) if depth else None
    made = repair(tiny_model, pictures, PROMPTS[:2], regions, [1, 2], network, strength=0.7, steps=4)
    for before, after, one in zip(pictures, made, regions):
        assert np.array_equal(before[~one.mask], after[~one.mask])
        assert (before[one.mask] != after[one.mask]).any()
    again = repair(tiny_model, pictures, PROMPTS[:2], regions, [1, 2], network, strength=0.7, steps=4)
    assert np.array_equal(made, again)


def test_depth_acts_as_strongly_as_it_is_told_to(tiny_model, pictures, trained):
    network = load_network(tiny_model, trained)

    def made(control: float, net=network) -> np.ndarray:
        return repair(tiny_model, pictures[:1], PROMPTS[:1], [region()], [1], net, control=control, steps=4)

    # A network that was not trained adds nothing, as one that does not act.
    shape = {"attention_head_dim": 16, "num_attention_heads": 2}
    new = FluxControlNetModel.from_transformer(tiny_model.transformer, num_layers=1, num_single_layers=0, **shape)
    assert np.array_equal(made(0.0), made(5.0, new))
    apart = [np.abs(made(control).astype(int) - made(0.0)).mean() for control in (0.5, 5.0, 50.0)]
    assert 0 <= apart[0] <= apart[1] < apart[2]


def test_a_network_learns_and_is_saved_as_diffusers_loads_it(trained):
    network = FluxControlNetModel.from_pretrained(trained)
    assert len(network.transformer_blocks) == 1 and len(network.single_transformer_blocks) == 0
    assert any(p.any() for p in network.controlnet_blocks.parameters())


def test_what_cannot_be_painted_anew_is_refused(tiny_model, tmp_path, trained):
    nothing, small = np.zeros((32, 32), bool), np.zeros((32, 32), bool)
    small[:16, :16] = True  # 4 of 16 tokens
    depth = np.zeros((32, 32), np.float32)
    assert "Nothing was found" in refusal(tiny_model, None)
    assert "Nothing was found" in refusal(tiny_model, Region(nothing, depth))
    assert "covers 4.0 tokens of the model, and 9 are needed" in refusal(tiny_model, Region(small, depth))
    assert refusal(tiny_model, region()) == ""
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(HandscopeError, match="too small"):
        repair(tiny_model, picture, PROMPTS[:1], [Region(small, depth)], [0])
    for strength in (0.0, 1.1, 0.01):
        with pytest.raises(HandscopeError, match="leaves at least one of 20 steps"):
            repair(tiny_model, picture, PROMPTS[:1], [region()], [0], strength=strength)
    with pytest.raises(HandscopeError, match="could not be loaded"):
        load_network(tiny_model, tmp_path)
    wide = FluxControlNetModel.from_config({**FluxControlNetModel.from_pretrained(trained).config, "in_channels": 32})
    wide.save_pretrained(tmp_path / "wide")
    with pytest.raises(HandscopeError, match="width 32 and 32 channels, .* has 32 and 16"):
        load_network(tiny_model, tmp_path / "wide")
    with pytest.raises(HandscopeError, match="at most the model's 2 double"):
        DepthControl(tiny_model, [], 32, 32, double=3)


def test_the_organisms_network_ships_and_what_is_painted_has_the_depth_that_is_told():
    model, (renders,), depths = load("organism"), *render_with_depth(4, 7001)
    network = load_network(model, network_folder("organism-depth"))
    blank, whole = np.full((96, 96, 3), 128, np.uint8), np.ones((96, 96), bool)
    regions = [Region(whole, depth) for depth in depths.numpy()]

    def shared(control: float) -> float:
        """Intersection over union of what is drawn and what is told, the mean of all."""
        made = repair(model, [blank] * 4, renders.captions, regions, [0, 1, 2, 3], network, control=control, steps=8)
        pairs = [(silhouette(one), region.depth > 0) for one, region in zip(made, regions)]
        return float(np.mean([(drawn & told).sum() / (drawn | told).sum() for drawn, told in pairs]))

    assert shared(1.0) > 0.85 > shared(0.0) + 0.1


def test_other_families_are_refused(tmp_path):
    save("sd3", tmp_path / "sd3")
    model = load(str(tmp_path / "sd3"))
    with pytest.raises(HandscopeError, match="no pipeline for"):
        repair(model, np.zeros((1, 32, 32, 3), np.uint8), ["a"], [region()], [0])
    assert torch.is_grad_enabled()
