"""The renderer's pictures agree with the ground truth that it returns."""

import itertools

import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.organism.captions import BACKGROUNDS, CAPTIONS, GESTURES, SKINS, Caption
from handscope.organism.hands import DIGITS, FAULTS, JOINTS, LIMITS, pose_hands, sample_pose
from handscope.organism.render import mirror_caption, render, render_dataset
from handscope.organism.shape import features, find_palm
from handscope.organism.silhouette import hand_tokens, silhouette


@pytest.fixture(scope="module")
def plausible():
    return render_dataset(32, seed=3)


@pytest.fixture(scope="module")
def corrupt():
    return render_dataset(24, seed=4, corrupt=True)


def pictures(renders):
    return renders.images.permute(0, 2, 3, 1).numpy()


def test_shapes_and_the_same_seed_draws_the_same(plausible):
    again = render_dataset(32, seed=3)
    assert plausible.images.shape == (32, 3, 96, 96) and plausible.landmarks.shape == (32, 21, 3)
    assert plausible.angles.shape == (32, 15) == (32, len(JOINTS)) and plausible.ratios.shape == (32, 5) == (
        32,
        len(DIGITS),
    )
    assert torch.equal(plausible.images, again.images) and plausible.captions == again.captions
    assert not torch.equal(plausible.images, render_dataset(32, seed=5).images)


def test_plausible_angles_stay_within_the_limits_of_motion(plausible):
    assert (plausible.angles >= LIMITS[:, 0]).all() and (plausible.angles <= LIMITS[:, 1]).all()
    assert plausible.fault == [""] * 32


def test_count_is_what_the_caption_says_and_a_fault_changes_it(plausible, corrupt):
    said = [sum(GESTURES[Caption.parse(caption).gesture]) for caption in plausible.captions]
    assert plausible.count.tolist() == said
    said = [sum(GESTURES[Caption.parse(caption).gesture]) for caption in corrupt.captions]
    change = {"six": 1, "four": -1}
    assert corrupt.count.tolist() == [n + change.get(fault, 0) for n, fault in zip(said, corrupt.fault, strict=True)]
    assert set(corrupt.fault) == set(FAULTS)


@pytest.mark.parametrize("kind", ["plausible", "corrupt"])
def test_visible_joints_lie_on_the_hand(kind, request):
    drawn = request.getfixturevalue(kind)
    at = drawn.landmarks[..., :2].long()
    for mask, points, seen, fault in zip(drawn.silhouettes, at, drawn.visibility, drawn.fault, strict=True):
        on_hand = mask[points[seen, 1], points[seen, 0]]
        # The base of a detached digit is a joint at the edge of its bone.
        assert on_hand.float().mean() > 0.9 if fault == "detached" else on_hand.all(), fault
    assert drawn.visibility.float().mean() > 0.6


def test_a_fault_needs_a_digit_to_be_seen_on():
    pose = sample_pose(["one"], torch.Generator().manual_seed(0))
    with pytest.raises(HandscopeError, match="two raised digits"):
        pose_hands(*pose, torch.Generator().manual_seed(0), ["fused"])


def test_silhouette_from_colours_agrees_with_the_renderer(plausible):
    for image, mask in zip(pictures(plausible), plausible.silhouettes.numpy(), strict=True):
        found = silhouette(image)
        assert (found & mask).sum() / (found | mask).sum() > 0.85
        assert hand_tokens(found, 12, 12).shape == (12, 12)


@pytest.mark.parametrize("view", ["palm", "back"])
def test_a_left_hand_is_the_mirror_of_a_right_hand(view):
    captions = [Caption(side, view, "five", "tan", "blue") for side in ("left", "right")]
    pose = [
        value.repeat(2, *[1] * (value.ndim - 1)) for value in sample_pose(["five"], torch.Generator().manual_seed(0))
    ]
    drawn = [
        render(pose_hands(*pose, torch.Generator().manual_seed(1)), [caption] * 2, torch.Generator().manual_seed(2))
        for caption in captions
    ]
    # One camera and one shift: mirrored, but for the shift, which moves both hands the same way.
    thumb = [float(renders.landmarks[0, 4, 0] - renders.landmarks[0, 0, 0]) for renders in drawn]
    assert thumb[0] == pytest.approx(-thumb[1], abs=1e-3) and abs(thumb[0]) > 10
    assert (thumb[1] > 0) == (view == "palm")


def test_a_backward_joint_is_outside_its_limits(corrupt):
    for fault, angles in zip(corrupt.fault, corrupt.angles, strict=True):
        outside = ((angles < LIMITS[:, 0]) | (angles > LIMITS[:, 1])).any()
        assert bool(outside) == (fault == "backward")


def test_a_wrong_proportion_shows_in_the_ratios(plausible, corrupt):
    usual = plausible.ratios.mean(0)
    worst = (corrupt.ratios / usual).log().abs().amax(1)
    for fault, off in zip(corrupt.fault, worst, strict=True):
        assert (off > 0.3) == (fault == "proportion"), fault


def test_every_skin_stands_out_from_every_background():
    distances = [
        np.linalg.norm(np.subtract(skin, ground))
        for skin, ground in itertools.product(SKINS.values(), BACKGROUNDS.values())
    ]
    assert min(distances) > 0.35 and max(distances) / min(distances) < 2.5


def test_captions_are_read_back_and_mirrored():
    assert all(Caption.parse(str(caption)) == caption for caption in CAPTIONS)
    assert mirror_caption(mirror_caption(str(CAPTIONS[5]))) == str(CAPTIONS[5]) != mirror_caption(str(CAPTIONS[5]))
    with pytest.raises(ValueError, match="not a caption"):
        Caption.parse("a cat")


def test_features_see_a_missing_and_a_detached_digit(plausible, corrupt):
    good = [features(image, caption) for image, caption in zip(pictures(plausible), plausible.captions, strict=True)]
    bad = [features(image, caption) for image, caption in zip(pictures(corrupt), corrupt.captions, strict=True)]
    assert np.mean([row["parts"] == 1 for row in good]) > 0.95
    detached = [row["parts"] for row, fault in zip(bad, corrupt.fault, strict=True) if fault == "detached"]
    missing = [row["tips"] for row, fault in zip(bad, corrupt.fault, strict=True) if fault == "four"]
    assert np.mean(np.array(detached) > 1) >= 0.5 and np.mean(missing) < np.mean([row["tips"] for row in good]) - 0.5
    assert find_palm(silhouette(pictures(plausible)[0])).radius > 8
