"""The differentiable path: gradients against finite differences, and whether following them mends a hand."""

from types import SimpleNamespace

import pytest
import torch
from handscope.anatomy.judge.reasons import violations
from handscope.anatomy.measure.angles import joint_angles
from handscope.anatomy.measure.count import load_count
from handscope.anatomy.measure.ratios import digit_ratios
from handscope.anatomy.measure.soft import robust_loss, soft_loss, soft_parts
from handscope.anatomy.read.networks import load_landmarks
from handscope.errors import HandscopeError
from handscope.organism.hands import pose_hands, sample_pose
from handscope.organism.render import render_dataset


def worlds(n, seed, fault=""):
    generator = torch.Generator().manual_seed(seed)
    hands = pose_hands(*sample_pose(["five"] * n, generator), generator, [fault] * n)
    return hands.joints.double() / 1000


SURE, RIGHT = torch.ones(6, dtype=torch.float64), torch.ones(6)


def test_plausible_hands_cost_nothing_and_each_fault_costs():
    assert soft_parts(worlds(6, 1), SURE, right=RIGHT)["joints"].max() == 0
    assert soft_parts(worlds(6, 1, "backward"), SURE, right=RIGHT)["joints"].min() > 1
    assert soft_parts(worlds(6, 1, "proportion"), SURE, right=RIGHT)["proportions"].min() > 1
    assert soft_loss(worlds(6, 1), SURE / 2, right=RIGHT).min() >= 0.69
    sure_of_five = torch.tensor([[0.0, 9.0, 0.0, 0.0]]).expand(6, 4)
    sure_of_more = sure_of_five.roll(1, 1)
    parts = [soft_parts(worlds(6, 1), SURE, logits)["count"] for logits in (sure_of_five, sure_of_more)]
    assert parts[0].max() < 1e-3 and parts[1].min() > 8


@pytest.mark.parametrize("seed", range(2))
def test_gradients_agree_with_finite_differences(seed):
    """On arbitrary points, where many hinges act, and on hands with a fault; in float64."""
    generator = torch.Generator().manual_seed(seed)
    wild = torch.randn(3, 21, 3, generator=generator, dtype=torch.float64)
    world = torch.cat([wild, 10 * worlds(1, seed, "backward"), 10 * worlds(2, seed, "proportion")]).requires_grad_()
    presence = (0.2 + 0.6 * torch.rand(6, generator=generator, dtype=torch.float64)).requires_grad_()
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, p, c: soft_loss(w, p, c, RIGHT), (world, presence, logits), atol=1e-5)


@pytest.mark.parametrize("fault", ["backward", "proportion"])
def test_following_the_gradient_mends_a_planted_fault_and_leaves_the_rest(fault):
    start = worlds(6, 2, fault)
    before = joint_angles(start, RIGHT)
    count = torch.full((6,), 5)
    assert all(violations(count, before, digit_ratios(start)))
    world = start.clone().requires_grad_()
    for _ in range(600):
        (gradient,) = torch.autograd.grad(soft_loss(world, SURE, right=RIGHT).sum(), world)
        world.data -= 2e-6 * gradient  # metres; plain descent, so that what costs nothing stays where it is
    world = world.detach()
    after = joint_angles(world, RIGHT)
    assert not any(violations(count, after, digit_ratios(world)))
    assert soft_loss(world, SURE, right=RIGHT).max() < 0.05
    # What broke no limit has hardly moved: the loss does not redraw a hand.
    if fault == "backward":
        bad = before < -40
        digit = bad.reshape(6, 5, 3).any(2).repeat_interleave(3, 1)
        assert bad.sum() == 6 and (after - before)[~digit].abs().median() < 1
    assert (world - start).norm(dim=-1).median() < 0.005  # metres


def test_a_counter_with_too_few_classes_is_named():
    with pytest.raises(HandscopeError, match=r"class 1 for five fingers; found \(6, 1\)"):
        soft_loss(worlds(6, 1), SURE, torch.zeros(6, 1), RIGHT)


def test_robust_loss_is_the_mean_over_views_and_networks_with_a_gradient_to_the_pixels():
    """With two networks that are closed forms of the crop: the loss is minus the log of the mean brightness."""
    asked = []

    def network(shift):
        def read(crops):
            asked.append(crops.shape)
            presence = (crops.mean((1, 2, 3)) / 2 + shift).clamp(1e-3, 1)
            world = worlds(2, 1).float() + 0 * presence[:, None, None]
            return SimpleNamespace(world=world, presence=presence, right=torch.ones(2))

        return read

    images = torch.full((2, 3, 64, 64), 0.5, requires_grad=True)
    region = torch.tensor([[32.0, 32.0, 40.0, 0.0]] * 2)
    losses = robust_loss(images, region, [network(0.1), network(0.3)], torch.Generator().manual_seed(0), views=3)
    assert len(asked) == 6 and set(asked) == {(2, 3, 224, 224)} and losses.shape == (2,)
    expected = -(torch.tensor([0.35, 0.55]).log()).mean()
    assert torch.allclose(losses.detach(), expected.expand(2), atol=0.15)  # views differ in brightness by up to .08
    losses.sum().backward()
    inside = images.grad[:, :, 20:44, 20:44]
    assert (inside < 0).float().mean() > 0.95 and images.grad[:, :, :4].abs().max() == 0
    again = robust_loss(images, region, [network(0.1), network(0.3)], torch.Generator().manual_seed(0), views=3)
    assert torch.equal(again, losses)


def test_robust_loss_through_the_real_networks_gives_the_directional_derivative():
    """Both landmark networks and the finger-count head, against a central difference along the gradient."""
    image = render_dataset(1, seed=3, size=96).images.float() / 255
    region = torch.tensor([[48.0, 48.0, 100.0, 0.0]])
    head = load_count()
    networks = [load_landmarks("full"), load_landmarks("lite")]

    def loss(pixels):
        generator = torch.Generator().manual_seed(5)
        return robust_loss(
            pixels, region, networks, generator, count=lambda crops: head(crops).relation, views=1
        ).sum()

    pixels = image.clone().requires_grad_()
    loss(pixels).backward()
    assert pixels.grad.isfinite().all() and pixels.grad.abs().sum() > 0
    way = pixels.grad / pixels.grad.norm()
    with torch.no_grad():
        step = 3e-2
        slope = (loss(image + step * way) - loss(image - step * way)) / (2 * step)
    assert float(slope) == pytest.approx(float(pixels.grad.norm()), rel=0.2)
