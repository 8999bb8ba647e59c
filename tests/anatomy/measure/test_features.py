"""Angles, ratios and shapes: against the kinematic hand's ground truth, slow references and symmetries."""

import math

import numpy as np
import pytest
import torch
from handscope.anatomy.measure.angles import abductions, bend_votes, joint_angles, side
from handscope.anatomy.measure.evidence import SIZE, evidence, inside_picture, mismatch
from handscope.anatomy.measure.outline import outline
from handscope.anatomy.measure.ratios import digit_ratios
from handscope.anatomy.measure.visibility import visibility
from handscope.anatomy.measure.webbing import web_graph, webbing
from handscope.anatomy.read import skeleton
from handscope.anatomy.read.capsules import in_crop, shape_of
from handscope.anatomy.read.foreground import foreground
from handscope.anatomy.read.hands import Hands
from handscope.anatomy.read.regions import crop
from handscope.errors import HandscopeError
from handscope.organism.captions import CAPTIONS, GESTURES
from handscope.organism.hands import DIGITS, JOINTS, pose_hands, sample_pose
from handscope.organism.render import render, render_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

RIGHT = torch.ones(1)


def posed(n, seed, fault=""):
    generator = torch.Generator().manual_seed(seed)
    names = ["five"] * n if fault else [list(GESTURES)[i % len(GESTURES)] for i in range(n)]
    pose = sample_pose(names, generator)
    return pose_hands(*pose, generator, [fault] * n), pose[1]


def rotation(seed):
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    q = q * r.diagonal().sign()
    return q * q.det().sign()  # in three dimensions the sign of all axes changes the determinant's


def as_detected(renders):
    """Perfect landmarks, as a detector would give them: depth away from the viewer, a square region around the hand."""
    points = renders.landmarks.clone()
    points[..., 2] = points[:, :1, 2] - points[..., 2]
    n, size = len(points), renders.images.shape[-1]
    right = torch.tensor([float("right" in caption) for caption in renders.captions])
    region = torch.tensor([size / 2, size / 2, 1.1 * size, 0.0]).expand(n, 4).clone()
    presence, embedding = torch.full((n,), 0.95), torch.zeros(n, 4)
    return Hands(torch.arange(n), region, points, points / 1000, presence, right, embedding, ["palm"] * n)


def true_mask(renders, hands):
    drawn = renders.silhouettes[:, None].float().expand(-1, 3, -1, -1)
    return crop(drawn, hands.region, SIZE, hands.image)[:, 0] > 0.5


@pytest.fixture(scope="module")
def plain():
    renders = render_dataset(16, seed=11, size=128)
    return renders, as_detected(renders)


@pytest.fixture(scope="module")
def faulty():
    """Open hands with an extra digit, and with a digit that floats."""
    generator = torch.Generator().manual_seed(12)
    faults = ["six", "detached"] * 8
    hands = pose_hands(*sample_pose(["five"] * 16, generator), generator, faults)
    captions = [caption for caption in CAPTIONS if caption.gesture == "five"][:16]
    renders = render(hands, captions, generator, size=128)
    return renders, as_detected(renders)


def test_names_are_those_of_the_kinematic_hand():
    assert skeleton.JOINTS == JOINTS and skeleton.DIGITS == DIGITS


@pytest.mark.parametrize("fault", ["", "backward", "proportion"])
@pytest.mark.parametrize("right", [True, False])
def test_angles_and_ratios_of_the_kinematic_hand_are_recovered(fault, right):
    hands, abduction = posed(64, 3, fault)
    world = hands.joints.double() * torch.tensor([1.0 if right else -1.0, 1.0, 1.0])
    side = torch.full((64,), float(right))
    assert (joint_angles(world, side) - hands.angles).abs().max() < 1e-3
    assert (abductions(world, side) - (abduction[:, :-1] - abduction[:, 1:])).abs().max() < 1e-2
    assert torch.allclose(digit_ratios(world).float(), hands.ratios, atol=1e-5)


def test_float32_metres_as_a_network_gives_them_lose_nothing_that_matters():
    hands, _ = posed(64, 4)
    assert (joint_angles(hands.joints / 1000, torch.ones(64)) - hands.angles).abs().max() < 1e-3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.integers(0, 10_000))
def test_angles_and_ratios_do_not_depend_on_where_how_large_or_which_way(seed, scale, turn):
    generator = torch.Generator().manual_seed(seed)
    world = torch.randn(1, 21, 3, generator=generator, dtype=torch.float64)
    moved = scale * (world @ rotation(turn).T) + torch.randn(3, generator=generator, dtype=torch.float64)
    mirrored = world * torch.tensor([-1.0, 1.0, 1.0])
    for measure in (joint_angles, abductions):
        # An angle of 180 degrees is one of -180 too.
        for other in (measure(moved, RIGHT), measure(mirrored, 1 - RIGHT)):
            apart = torch.remainder(other - measure(world, RIGHT) + 180, 360) - 180
            assert apart.abs().max() < 1e-5
    assert torch.allclose(digit_ratios(moved), digit_ratios(world), rtol=1e-9)
    assert torch.allclose(bend_votes(mirrored), -bend_votes(world))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-80, 80), min_size=4, max_size=4),
    st.lists(st.floats(-60, 130), min_size=12, max_size=12),
    st.lists(st.floats(-35, 35), min_size=4, max_size=4),
)
def test_any_pose_of_the_fingers_is_read_back(first, rest, spread):
    angles = torch.zeros(1, 5, 3)
    angles[0, 1:] = torch.tensor(rest).reshape(4, 3)
    angles[0, 1:, 0] = torch.tensor(first)
    abduction = torch.tensor([[45.0, *spread]])
    generator = torch.Generator().manual_seed(0)
    hands = pose_hands(angles.reshape(1, 15), abduction, torch.ones(1, 5, dtype=torch.bool), generator)
    apart = joint_angles(hands.joints.double(), RIGHT) - angles.reshape(1, 15)
    assert (torch.remainder(apart + 180, 360) - 180).abs().max() < 1e-2


def test_which_hand_it_is_shows_in_the_bending_and_one_finger_bent_back_does_not_turn_it():
    for fault in ("", "backward"):
        hands, _ = posed(60, 5, fault)
        world = hands.joints
        mirrored = world * torch.tensor([-1.0, 1.0, 1.0])
        assert (bend_votes(world) > 0).float().mean() >= 0.98 and (bend_votes(mirrored) < 0).float().mean() >= 0.98
        # A sure network is believed about a nearly flat hand, and overruled about a bent one.
        assert side(world, torch.ones(60)).float().mean() >= 0.98
    folded = pose_hands(*sample_pose(["two"] * 8, torch.Generator().manual_seed(1)), torch.Generator().manual_seed(2))
    assert side(folded.joints, torch.zeros(8)).all()


def test_points_that_coincide_give_finite_angles_and_gradients():
    world = torch.zeros(2, 21, 3, dtype=torch.float64)
    world[1, 5:9] = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    world.requires_grad_()
    out = joint_angles(world).sum() + abductions(world).sum() + digit_ratios(world).sum()
    out.backward()
    assert out.isfinite() and world.grad.isfinite().all()


def test_a_wrong_shape_is_named():
    with pytest.raises(HandscopeError, match=r"\(hands, 21, 3\).*\(21, 3\)"):
        joint_angles(torch.zeros(21, 3))
    with pytest.raises(HandscopeError, match="int64"):
        digit_ratios(torch.zeros(1, 21, 3, dtype=torch.long))


def test_the_capsules_distance_is_that_of_a_slow_loop(plain):
    _, hands = plain
    points = in_crop(hands.points[:2], hands.region[:2], 24)
    shape = shape_of(points, 24)
    for i, row, column in [(0, 0, 0), (0, 12, 12), (1, 5, 17), (1, 20, 9), (1, 12, 3)]:
        place, least = np.array([column, row], float), math.inf
        palm = 0.15 * float(shape.palm[i])
        bones = [(a, b, palm, palm) for a, b in skeleton.PALM_BONES.tolist()]
        for d in range(5):
            wide = shape.radius[i, d].tolist()
            bones += [(4 * d + j + 1, 4 * d + j + 2, wide[j], wide[j + 1]) for j in range(3)]
        for a, b, ra, rb in bones:
            start, end = points[i, a].numpy(), points[i, b].numpy()
            t = np.clip((place - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
            least = min(least, np.linalg.norm(place - start - t * (end - start)) / (ra + t * (rb - ra)))
        assert float(shape.nearness[i, row, column]) == pytest.approx(least, rel=1e-4)


def test_crop_points_agree_with_the_crop_itself():
    """A white dot in a picture is found where `in_crop` says, in a region that is turned and scaled."""
    image = torch.zeros(1, 3, 80, 100)
    image[0, :, 30:33, 60:63] = 1
    region = torch.tensor([[55.0, 40.0, 60.0, 0.6]])
    seen = crop(image, region, 64)[0, 0]
    found = torch.stack([(seen.sum(0) * torch.arange(64)).sum(), (seen.sum(1) * torch.arange(64)).sum()]) / seen.sum()
    assert torch.allclose(found, in_crop(torch.tensor([[[61.0, 31.0]]]), region, 64)[0, 0], atol=0.1)


def test_the_silhouette_of_renders_is_found_and_noise_is_unknown(plain):
    renders, hands = plain
    images = renders.images.float() / 255
    inside = inside_picture(images, hands)
    shape = shape_of(in_crop(hands.points, hands.region, SIZE), SIZE)
    seen = foreground(crop(images, hands.region, SIZE, hands.image), shape, inside)
    truth = true_mask(renders, hands)
    overlap = (seen.mask & truth).sum((1, 2)) / (seen.mask | truth).sum((1, 2))
    assert overlap.median() > 0.95 and overlap.min() > 0.85 and seen.known.all()
    noise = torch.rand(len(hands), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert not foreground(noise, shape, inside).known.any()
    flat = torch.full((len(hands), 3, SIZE, SIZE), 0.5)
    assert not foreground(flat, shape, inside).known.any() and (foreground(flat, shape, inside).confidence == 0).all()


def test_a_region_outside_the_picture_leaves_the_silhouette_unknown(plain):
    _, hands = plain
    away = Hands(**{**vars(hands), "region": hands.region + torch.tensor([1e4, 0.0, 0.0, 0.0])})
    found = evidence(torch.rand(16, 3, 32, 32), away)
    assert (found["sil_missing"] == 1).all() and (found["points_cut"] == 1).all()
    assert all(value.isfinite().all() for value in found.values())


def test_an_extra_digit_leaves_a_residual_and_more_arcs_and_a_detached_one_a_second_part(plain, faulty):
    def measured(renders, hands):
        inside = inside_picture(renders.images, hands)
        shape = shape_of(in_crop(hands.points, hands.region, SIZE), SIZE)
        return outline(true_mask(renders, hands), shape, inside)

    sound, odd = measured(*plain), measured(*faulty)
    six = torch.tensor([fault == "six" for fault in faulty[0].fault])
    assert odd.solid[six].mean() > 10 * sound.solid.mean() and (odd.solid[six] > 0).float().mean() >= 0.75
    assert odd.residual[six].median() > 2 * sound.residual.median()
    more = (odd.arcs - odd.explained).amax(1)
    assert (more[six] >= 1).float().mean() >= 0.5
    assert (sound.arcs - sound.explained).clamp_min(0).amax(1).mean() < 0.5
    detached = torch.tensor([fault == "detached" for fault in faulty[0].fault])
    assert (odd.parts[detached] >= 2).float().mean() > 0.5 and sound.parts.max() == 1


def test_webs_between_spread_fingers_are_seen_and_open_fingers_are_apart():
    """An open hand as it is, with a web painted between two fingers, and with a dark line along that web."""
    open_hand = pose_hands(
        torch.zeros(1, 15), torch.tensor([[45.0, 15.0, 0.0, -15.0, -30.0]]), torch.ones(1, 5, dtype=torch.bool),
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    points = (open_hand.joints[..., :2] * torch.tensor([1.0, -1.0]) * 0.5 + torch.tensor([56.0, 108.0])).float()
    shape = shape_of(points, 112)
    spread = shape.nearness < 1
    assert webbing(spread, points)[0, 1:].max() < 0.3
    filled = spread.clone()
    index, middle = points[0, 6:9], points[0, 10:13]
    for t in torch.linspace(0, 1, 40):  # a web from joint to joint
        for u in torch.linspace(0, 1, 60):
            line = [index[0] + (index[2] - index[0]) * u, middle[0] + (middle[2] - middle[0]) * u]
            x, y = (line[0] * (1 - t) + line[1] * t).round().long().tolist()
            filled[0, y - 1 : y + 2, x - 1 : x + 2] = True
    graph = web_graph(filled.float(), shape, torch.full((1, 112, 112), 0.6))
    assert graph.contact[0, 1] > 0.9 and graph.web[0, 1] > 0.5 and graph.web[0, 2:].max() == 0
    assert graph.crease.max() < 1e-6
    striped = torch.full((1, 112, 112), 0.6)
    between = (index.mean(0) + middle.mean(0)) / 2
    striped[0, :, int(between[0]) - 2 : int(between[0]) + 2] = 0.2
    assert web_graph(filled.float(), shape, striped).crease[0, 1] > 0.1


def test_two_digits_on_one_place_are_not_apart(plain):
    _, hands = plain
    points = in_crop(hands.points, hands.region, SIZE)
    doubled = points.clone()
    doubled[:, 9:13] = points[:, 5:9]
    shape = shape_of(doubled, SIZE)
    blank = torch.zeros(len(points), SIZE, SIZE)
    assert web_graph(blank, shape, blank).apart[:, 1].max() < 0.05


def test_digits_that_a_picture_hides_are_seen_less(plain):
    """Against the renderer's own visibility of tips, which it has from the depth of what it drew."""
    renders, hands = plain
    shape = shape_of(in_crop(hands.points, hands.region, SIZE), SIZE)
    points = torch.cat([shape.points, hands.points[..., 2:] * (SIZE / hands.region[:, 2, None, None])], -1)
    share = visibility(points, shape, inside_picture(renders.images, hands))
    tips = renders.visibility[:, 4::4]
    assert share[tips].mean() > 0.85 and share[tips].mean() - share[~tips].mean() > 0.4


def test_landmarks_of_picture_and_space_that_disagree_are_seen(plain):
    _, hands = plain
    assert mismatch(hands.points, hands.world).max() < 1e-4
    bent = hands.points.clone()
    bent[:, 8, :2] += 30
    assert mismatch(bent, hands.world).min() > 0.02


def test_evidence_has_the_same_finite_columns_for_any_input(plain):
    renders, hands = plain
    images = renders.images.float() / 255
    found = evidence(images, hands)
    none = evidence(images, hands.select(torch.zeros(len(hands), dtype=torch.bool)))
    assert list(found) == list(none) and all(value.shape == (0,) for value in none.values())
    assert all(value.shape == (16,) and value.dtype == torch.float32 for value in found.values())
    assert all(value.isfinite().all() for value in found.values())
    # One at a time, or from a list of pictures, gives the same.
    alone = evidence([images[3]], Hands(**{**vars(hands.select(torch.tensor([3]))), "image": torch.tensor([0])}))
    assert all(torch.allclose(alone[name][0], found[name][3], atol=1e-4) for name in found)
    nowhere = torch.full_like(hands.points, torch.nan)
    broken = Hands(**{**vars(hands), "points": nowhere, "world": hands.world * torch.inf})
    assert all(value.isfinite().all() for value in evidence(images, broken).values())
