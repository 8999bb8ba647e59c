"""Steering changes what it says and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flux_calls import call
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.capture import capture
from handscope.guidance import ablate, probe_gate, random_directions, steer
from handscope.models.model import Model, load
from torch import Tensor

STEPS = 4


@pytest.fixture(scope="module")
def model(tiny_pipe_folder) -> Model:
    return load(str(tiny_pipe_folder))


@pytest.fixture(scope="module")
def direction() -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(1)) + 3.0


def stream(model: Model, block: str, step: int) -> Tensor:
    """The image tokens that leave a block in a run of two images, (2, 16, 32); inside `steer`, the changed ones."""
    with capture(model.transformer, Plan([block], [step], of=STEPS)) as seen:
        call(model)
    return seen[block, step]


def test_a_push_is_a_share_of_each_tokens_centred_length(model: Model, direction: Tensor) -> None:
    before = stream(model, "single.1", 3)
    with steer(model.transformer, {"single.1": direction}, 0.25, steps=[3], of=STEPS):
        after = stream(model, "single.1", 3)
    unit = direction - direction.mean()
    unit /= unit.norm()
    length = (before - before.mean(-1, keepdim=True)).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(after, before + 0.25 * length * unit)


def test_a_mean_over_channels_is_lost_in_the_layer_norm_and_is_not_pushed(model: Model, direction: Tensor) -> None:
    bare = call(model)
    with steer(model.transformer, {"single.1": direction}, 0.25, steps=[3], of=STEPS):
        one = call(model)
    with steer(model.transformer, {"single.1": direction * 7 + 100}, 0.25, steps=[3], of=STEPS):
        other = call(model)
    assert not torch.equal(one, bare)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    with (
        pytest.raises(HandscopeError, match="no length once its mean"),
        steer(model.transformer, {"single.1": torch.ones(32)}, 0.25, steps=[3], of=STEPS),
    ):
        call(model)


def test_other_steps_and_tokens_are_left_alone(model: Model, direction: Tensor) -> None:
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = mask[3, 0] = True
    before = {step: stream(model, "double.1", step) for step in (4, 3)}
    with steer(model.transformer, {"double.1": direction}, 0.5, steps=[3], of=STEPS, tokens=mask):
        assert torch.equal(stream(model, "double.1", 4), before[4])
        changed = (stream(model, "double.1", 3) != before[3]).any(-1)
    assert torch.equal(changed, torch.from_numpy(mask.flatten()).expand(2, 16))


def test_strength_zero_changes_no_bit_and_nothing_stays_behind(model: Model, direction: Tensor) -> None:
    bare = call(model)
    with steer(model.transformer, {"double.0": direction, "single.2": direction}, 0.0, steps=[4, 3, 2, 1], of=STEPS):
        assert torch.equal(call(model), bare)
    with (
        pytest.raises(RuntimeError, match="of the user"),
        steer(model.transformer, {"double.0": direction}, 9.0, steps=[4], of=STEPS),
    ):
        raise RuntimeError("of the user")
    assert torch.equal(call(model), bare)
    assert not any(block._forward_hooks for block in model.transformer.transformer_blocks)
    assert not model.transformer._forward_hooks and not model.transformer._forward_pre_hooks
    assert "cache_context" not in vars(model.transformer)


def test_ablation_leaves_nothing_along_the_direction(model: Model, direction: Tensor) -> None:
    unit = direction / direction.norm()
    before = stream(model, "single.0", 2)
    with ablate(model.transformer, {"single.0": direction}, steps=[2], of=STEPS):
        after = stream(model, "single.0", 2)
    torch.testing.assert_close(after @ unit, torch.zeros(2, 16), rtol=0, atol=1e-4)
    torch.testing.assert_close(after, before - (before @ unit)[..., None] * unit, rtol=1e-4, atol=1e-4)
    centre = torch.full((32,), 2.0)
    with ablate(model.transformer, {"single.0": direction}, steps=[2], of=STEPS, centre={"single.0": centre}):
        after = stream(model, "single.0", 2)
    torch.testing.assert_close(after @ unit, (centre @ unit).expand(2, 16), rtol=1e-4, atol=1e-4)


def test_a_gate_lets_through_what_its_probe_calls_bad(model: Model, direction: Tensor) -> None:
    before = stream(model, "single.1", 3)
    weights = torch.randn(32, generator=torch.Generator().manual_seed(2)).numpy()
    scores = before[0].numpy() @ weights
    probe = SimpleNamespace(coef_=weights, intercept_=-float(np.median(scores)))
    with steer(model.transformer, {"single.1": direction}, 0.5, steps=[3], of=STEPS, gate=probe_gate(probe)):
        changed = (stream(model, "single.1", 3) != before).any(-1)[0]
    assert changed.sum() == 8
    assert np.array_equal(changed.numpy(), scores > np.median(scores))


def test_guided_calls_of_true_cfg_are_both_pushed(model: Model, direction: Tensor) -> None:
    seen: list[Tensor] = []

    def keep(module, args, output) -> None:
        seen.append(output[1].clone())

    def run(strength: float) -> list[Tensor]:
        seen.clear()
        with steer(model.transformer, {"single.1": direction}, strength, steps=[4], of=STEPS):
            handle = model.transformer.single_transformer_blocks[1].register_forward_hook(keep)
            try:
                call(model, negative_prompt="a hand", true_cfg_scale=2.0)
            finally:
                handle.remove()
        return list(seen)

    bare, pushed = run(0.0), run(0.5)
    assert len(bare) == 2 * STEPS
    assert not torch.equal(bare[0], pushed[0]) and not torch.equal(bare[1], pushed[1])


def test_token_wise_directions_push_each_token_its_own_way_and_share_one_strength(model: Model) -> None:
    before = stream(model, "single.1", 3)
    directions = torch.randn(16, 32, generator=torch.Generator().manual_seed(1)) + 3.0
    directions *= torch.linspace(0, 2, 16)[:, None]
    with steer(model.transformer, {"single.1": 7 * directions}, 0.25, steps=[3], of=STEPS):
        after = stream(model, "single.1", 3)
    for image in range(2):
        pushes = []
        for token in range(16):
            h, d = before[image, token], directions[token]
            pushes.append((h - h.mean()).norm() * (d - d.mean()))
        root = np.sqrt(np.mean([float((d - d.mean()).square().sum()) for d in directions]))
        torch.testing.assert_close(after[image], before[image] + 0.25 * torch.stack(pushes) / root)
    assert torch.equal(after[:, 0], before[:, 0])
    length = (before - before.mean(-1, keepdim=True)).norm(dim=-1)
    shares = (after - before).norm(dim=-1) / length
    torch.testing.assert_close(shares.square().mean(1).sqrt(), torch.full((2,), 0.25), rtol=1e-4, atol=1e-4)


def test_the_same_direction_at_every_token_is_that_direction(model: Model, direction: Tensor) -> None:
    mask = np.eye(4, dtype=bool)
    made = []
    for given in (direction, direction.expand(16, 32)):
        with steer(model.transformer, {"double.1": given}, 0.5, steps=[3, 2], of=STEPS, tokens=mask):
            made.append(call(model))
    torch.testing.assert_close(made[0], made[1], rtol=1e-4, atol=1e-4)


def test_random_directions_are_unit_seeded_and_their_own(direction: Tensor) -> None:
    one, two = (random_directions({"single.1": direction, "double.0": direction}, seed) for seed in (0, 1))
    assert one["single.1"].norm() == pytest.approx(1)
    assert torch.equal(one["single.1"], random_directions({"single.1": direction}, 0)["single.1"])
    assert abs(float(one["single.1"] @ two["single.1"])) < 0.9
    assert not torch.equal(one["single.1"], one["double.0"])


def test_random_token_wise_directions_keep_how_far_each_token_is_pushed() -> None:
    directions = torch.randn(16, 32, generator=torch.Generator().manual_seed(1)) * torch.linspace(0, 2, 16)[:, None]
    (drawn,) = random_directions({"single.1": directions + 5}, 0).values()
    length = (directions - directions.mean(-1, keepdim=True)).norm(dim=-1)
    torch.testing.assert_close(drawn.norm(dim=-1), length / length.square().mean().sqrt())
    ways = torch.nn.functional.normalize(drawn[1:], dim=-1)
    assert float((ways @ ways.T - torch.eye(15)).abs().max()) < 0.7
    (other,) = random_directions({"single.1": directions}, 1).values()
    assert not torch.allclose(drawn, other, atol=0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"directions": {"single.9": torch.ones(32)}}, "single.9"),
        ({"directions": {"single.1": torch.arange(31.0)}}, "32 wide"),
        ({"directions": {"single.1": torch.full((32,), float("nan"))}}, "finite"),
        ({"directions": {"single.1": torch.eye(32)[None]}}, "or .tokens, width., found shape .1, 32, 32."),
        ({"directions": {"single.1": torch.eye(32)[:9]}}, "each of 16 image tokens, found 9 at single.1"),
        ({"directions": {"single.1": torch.eye(16)}}, "32 wide"),
        ({"directions": {"single.1": torch.ones(16, 32)}}, "no length once its mean"),
        ({"steps": [5]}, "5"),
        ({"of": 3, "steps": [3]}, "number of inference steps"),
        ({"of": 6, "steps": [3]}, "number of inference steps"),
        ({"of": 2, "steps": [1]}, "number of inference steps"),
        ({"strength": float("nan")}, "number"),
        ({"tokens": np.ones(9, bool)}, "mask of 16 image tokens"),
        ({"tokens": np.ones(16)}, "boolean"),
    ],
)
def test_what_does_not_fit_is_refused(model: Model, direction: Tensor, change: dict, words: str) -> None:
    given = {"directions": {"single.1": direction}, "strength": 0.1, "steps": [3], "of": STEPS} | change
    with pytest.raises(HandscopeError, match=words), steer(model.transformer, **given):
        call(model)


def test_ablation_of_token_wise_directions_is_refused(model: Model, direction: Tensor) -> None:
    every = direction.expand(16, 32)
    for directions, centre in ((every, None), (direction, {"single.1": every})):
        with (
            pytest.raises(HandscopeError, match="steered along, and not ablated"),
            ablate(model.transformer, {"single.1": directions}, steps=[3], of=STEPS, centre=centre),
        ):
            call(model)


def test_runs_of_one_step_may_follow_each_other(model: Model, direction: Tensor) -> None:
    bare = call(model, 1)
    with steer(model.transformer, {"single.1": direction}, 0.5, steps=[1], of=1):
        pushed = [call(model, 1) for _ in range(3)]
    assert not torch.allclose(pushed[0], bare, atol=1e-3)
    assert all(torch.equal(one, pushed[0]) for one in pushed)
    with (
        pytest.raises(HandscopeError, match="called 1 times"),
        steer(model.transformer, {"single.1": direction}, 0.5, [1], 2),
    ):
        call(model, 2)
        call(model, 1)
