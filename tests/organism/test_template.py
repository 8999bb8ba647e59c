"""Depth of what the renderer draws, and the plausible hand that is laid over a picture."""

import numpy as np
import pytest
import torch
from handscope.anatomy.read.depth import depth_of, found
from handscope.errors import HandscopeError
from handscope.organism.depth import LEAST, render_with_depth
from handscope.organism.render import Renders, render_dataset
from handscope.organism.template import MARGIN, candidates, template
from scipy import ndimage

N = 12


@pytest.fixture(scope="module")
def drawn() -> tuple[Renders, np.ndarray]:
    (renders,), maps = render_with_depth(N, 5)
    return renders, maps.numpy()


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_depth_is_of_the_pictures_that_are_drawn(drawn):
    renders, maps = drawn
    assert torch.equal(renders.images, render_dataset(N, 5).images)
    for depth, inside in zip(maps, renders.silhouettes.numpy()):
        assert overlap(depth > 0, inside) > 0.95
        assert depth.max() <= 1 and depth[depth > 0].min() >= np.float32(LEAST)
    # A joint that is seen lies just beneath the surface: nearer joints, nearer surface.
    heights, near = [], []
    for depth, points, seen in zip(maps, renders.landmarks, renders.visibility):
        at = points[seen].round().long().clamp(0, 95)
        heights += points[seen, 2].tolist()
        near += depth[at[:, 1], at[:, 0]].tolist()
    inside = np.array(near) > 0
    assert np.corrcoef(np.array(heights)[inside], np.array(near)[inside])[0, 1] > 0.9


def test_a_template_shows_the_captions_gesture_where_the_picture_has_its_hand(drawn):
    renders, _ = drawn
    shares = []
    for image, caption, inside in zip(renders.images, renders.captions, renders.silhouettes.numpy()):
        mask, depth = template(image.permute(1, 2, 0).numpy(), caption)
        shares.append(overlap(depth > 0, inside))
        assert mask[depth > 0].all()
        assert mask[ndimage.binary_dilation(depth > 0, iterations=MARGIN)].all()
    others = [overlap(one > 0, inside) for inside in renders.silhouettes.numpy()
              for one in candidates("right", "palm", "two", 96)[:4]]  # fmt: skip
    assert np.mean(shares) > 0.8 > np.mean(others) + 0.1
    mask, depth = template(np.full((96, 96, 3), 90, np.uint8), renders.captions[0])
    assert not mask.any() and not depth.any()


def test_landmarks_are_given_the_depth_of_a_whole_hand(drawn):
    renders, maps = drawn
    for points, depth, inside in zip(renders.landmarks, maps, renders.silhouettes.numpy()):
        mediapipe = points * torch.tensor([1.0, 1.0, -1.0])  # there, smaller is nearer
        mask, near = depth_of(mediapipe, 96, 96)
        hand = inside.copy()
        hand[int(points[0, 1]) + 4 :] = False  # the forearm has no landmarks
        near[int(points[0, 1]) + 4 :] = 0
        assert overlap(near > 0, hand) > 0.7
        both = (near > 0) & (depth > 0)
        assert np.corrcoef(near[both], depth[both])[0, 1] > 0.5
        assert mask[near > 0].all() and mask.mean() < 0.9


def test_no_landmarks_no_mask():
    mask, depth = found(np.full((96, 96, 3), 90, np.uint8), "")
    assert not mask.any() and not depth.any()


def test_a_caption_of_another_family_has_no_template(drawn):
    with pytest.raises((ValueError, HandscopeError), match="not a caption"):
        template(drawn[0].images[0].permute(1, 2, 0).numpy(), "a hand")
