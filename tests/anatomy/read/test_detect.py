"""Where hands are: MediaPipe's pipeline beside MediaPipe's own answers, its parts beside slow ones, and the search."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from handscope.anatomy.measure.angles import joint_angles
from handscope.anatomy.read import palm as palm_module
from handscope.anatomy.read import regions
from handscope.anatomy.read.detect import detect, read
from handscope.anatomy.read.hands import Hands
from handscope.anatomy.read.networks import load_landmarks
from handscope.anatomy.read.palm import anchors, overlap, suppress
from handscope.anatomy.read.regions import crop, hand_region, landmark_region, place, turned
from handscope.errors import HandscopeError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

DATA = Path(__file__).parents[2] / "support" / "data"
sys.path.insert(0, str(DATA))

from make_references import pictures, run_solutions  # noqa: E402

STORED = json.loads((DATA / "mediapipe.json").read_text())
TASKS_UPRIGHT = 90.0  # radians, where mediapipe's Tasks API means degrees


def picture(name: str | Path) -> Tensor:
    pixels = np.array(Image.open(DATA / name).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """A right hand, its palm towards the camera, index finger raised: (3, 640, 480)."""
    return picture("nocurl.jpg")


def palm_length(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[[5, 9, 13, 17], :2].mean(0) - points[0, :2]))


def compare(found: dict[str, list[dict]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[bool, bool]]]:
    """Distances in % of a palm's length, angles in degrees, right-handedness beside theirs, and who found a hand."""
    gaps, turns, sides, seen = [], [], [], []
    for name, theirs in found.items():
        hands = detect([picture(name)], search="plain")
        seen.append((len(hands) > 0, len(theirs) > 0))
        for i in range(len(hands)):
            points = hands.points[i].numpy()
            if not theirs:
                continue
            away = [np.linalg.norm(np.array(one["points"])[:, :2] - points[:, :2], axis=-1) for one in theirs]
            nearest = int(np.argmin([gap.mean() for gap in away]))
            gaps.append(100 * away[nearest] / palm_length(np.array(theirs[nearest]["points"])))
            world = torch.tensor(theirs[nearest]["world"])[None]
            side = hands.right[i : i + 1]
            turns.append((joint_angles(world, right=side) - joint_angles(hands.world[i : i + 1], right=side)).abs())
            called_right = theirs[nearest]["side"] == "Right"
            sides.append(called_right == bool(side > 0.5))
    return np.concatenate(gaps), torch.cat(turns).numpy(), np.array(sides), seen


def test_hands_are_those_of_mediapipe() -> None:
    gaps, turns, sides, seen = compare(STORED["solutions"])
    assert all(mine == theirs for mine, theirs in seen) and sum(theirs for _, theirs in seen) == 6
    assert np.median(gaps) < 0.8 and np.percentile(gaps, 95) < 3
    assert np.median(turns) < 1.5 and np.percentile(turns, 95) < 8
    assert not sides.any()  # mp.solutions takes pictures to be mirrored, and calls a right hand "Left"


def test_hands_are_those_of_the_tasks_api_once_read_at_its_slant(monkeypatch: pytest.MonkeyPatch) -> None:
    straight, *_ = compare(STORED["tasks"])
    monkeypatch.setattr(regions, "UPRIGHT", TASKS_UPRIGHT)
    gaps, turns, sides, seen = compare(STORED["tasks"])
    assert all(mine == theirs for mine, theirs in seen)
    assert np.median(gaps) < 0.8 and np.percentile(gaps, 95) < 3.5
    assert np.median(turns) < 2 and np.percentile(turns, 95) < 10
    assert sides.all()
    assert np.median(straight) > 3 * np.median(gaps)


@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="needs mediapipe 0.10.21 beside the project")
def test_hands_are_those_of_an_installed_mediapipe() -> None:
    gaps, *_, seen = compare(run_solutions(pictures()))
    assert np.mean([mine == theirs for mine, theirs in seen]) > 0.9 and np.median(gaps) < 1


def slow_anchors() -> list[tuple[float, float]]:
    """MediaPipe's SsdAnchorsCalculator with the palm detector's options: strides 8, 16, 16, 16, two sizes each."""
    centres = []
    strides, layer = [8, 16, 16, 16], 0
    while layer < len(strides):
        alike = [s for s in strides[layer:] if s == strides[layer]]
        for y in range(192 // strides[layer]):
            for x in range(192 // strides[layer]):
                centres += [((x + 0.5) * strides[layer] / 192, (y + 0.5) * strides[layer] / 192)] * 2 * len(alike)
        layer += len(alike)
    return centres


def test_anchors() -> None:
    np.testing.assert_allclose(anchors().numpy(), slow_anchors(), atol=1e-6)


def slow_suppress(boxes: list, points: list, scores: list) -> list[tuple[np.ndarray, np.ndarray, float]]:
    left = sorted(range(len(scores)), key=lambda i: -scores[i])
    found = []
    while left:
        best = left[0]
        group = [i for i in left if i == best or float(overlap(boxes[best], boxes[i][None])) > 0.3]
        total = sum(scores[i] for i in group)
        box = sum(scores[i] * boxes[i].numpy() for i in group) / total
        found.append((box, sum(scores[i] * points[i].numpy() for i in group) / total, scores[best]))
        left = [i for i in left if i not in group]
    return found


@given(st.integers(0, 2**31), st.integers(0, 30))
@settings(max_examples=40)
def test_suppression_beside_the_slow_one(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 2
    boxes = torch.cat([corner, corner + 0.3 + torch.rand(n, 2, generator=generator)], -1)
    points, scores = torch.rand(n, 7, 2, generator=generator), torch.rand(n, generator=generator)
    mine, theirs = suppress(boxes, points, scores), slow_suppress(list(boxes), list(points), scores.tolist())
    assert len(mine.scores) == len(theirs)
    for i, (box, point, score) in enumerate(theirs):
        np.testing.assert_allclose(mine.boxes[i].numpy(), box, atol=1e-5)
        np.testing.assert_allclose(mine.points[i].numpy(), point, atol=1e-5)
        assert mine.scores[i] == pytest.approx(score)


def test_a_crop_of_whole_pixels_is_a_slice_and_black_outside() -> None:
    image = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0))
    (inside,) = crop([image], torch.tensor([[30.0, 20.0, 16.0, 0.0]]), size=16)
    torch.testing.assert_close(inside, image[:, 12:28, 22:38], atol=1e-5, rtol=0)
    (turn,) = crop([image], torch.tensor([[29.5, 19.5, 16.0, math.pi / 2]]), size=16)
    # Turned by a quarter, its first row is the picture's last column: the crop's corner pixels lie on whole pixels.
    torch.testing.assert_close(turn[:, :, :-1], image[:, 12:28, 22:38].rot90(1, (1, 2))[:, :, 1:], atol=1, rtol=0)
    (outside,) = crop([image], torch.tensor([[-50.0, 20.0, 16.0, 0.3]]), size=16)
    assert not outside.any()


@given(st.floats(-10, 70), st.floats(-10, 50), st.floats(5, 80), st.floats(-3.1, 3.1))
@settings(max_examples=25)
def test_a_crop_is_bilinear_sampling_where_place_says(x: float, y: float, size: float, turn: float) -> None:
    image = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    region = torch.tensor([[x, y, size, turn]], dtype=torch.float64)
    (mine,) = crop([image], region, size=8)
    padded = torch.zeros(3, 44, 64, dtype=torch.float64)
    padded[:, 2:-2, 2:-2] = image
    for row in (0, 3, 7):
        for column in (0, 5, 7):
            at = place(torch.tensor([[[column / 8, row / 8]]], dtype=torch.float64), region)[0, 0]
            left, top = (math.floor(v) for v in at.tolist())
            right, down = at[0] - left, at[1] - top
            expected = torch.zeros(3, dtype=torch.float64)
            if -2 <= left < 61 and -2 <= top < 41:
                corner = padded[:, top + 2 : top + 4, left + 2 : left + 4]
                weights = torch.stack([1 - down, down])[:, None] * torch.stack([1 - right, right])
                expected = (corner * weights).sum((1, 2))
            torch.testing.assert_close(mine[:, row, column], expected, atol=1e-9, rtol=0)


def test_turning_is_a_rotation_clockwise_as_seen() -> None:
    points = torch.tensor([[[1.0, 0.0, 5.0]]])
    torch.testing.assert_close(turned(points, torch.tensor([math.pi / 2])), torch.tensor([[[0.0, 1.0, 5.0]]]))


def test_a_hand_region_stands_on_the_wrist() -> None:
    """Wrist below, middle knuckle above: no turn, and the square moves half the palm's height towards the fingers."""
    points = torch.zeros(1, 7, 2)
    points[0, 0], points[0, 2] = torch.tensor([50.0, 90.0]), torch.tensor([50.0, 50.0])
    box = torch.tensor([[30.0, 50.0, 70.0, 90.0]])
    torch.testing.assert_close(hand_region(box, points), torch.tensor([[50.0, 50.0, 104.0, 0.0]]))
    fingers_right = torch.zeros(1, 7, 2)
    fingers_right[0, 0], fingers_right[0, 2] = torch.tensor([30.0, 70.0]), torch.tensor([70.0, 70.0])
    expected = torch.tensor([[70.0, 70.0, 104.0, math.pi / 2]])
    torch.testing.assert_close(hand_region(box, fingers_right), expected, atol=1e-4, rtol=0)


def test_pictures_of_different_sizes_together_are_those_alone(photo: Tensor) -> None:
    images = [photo, picture("render_2.png"), torch.zeros(3, 50, 300), photo[:, ::2, ::2]]
    together = detect(images, search="plain")
    alone = Hands.cat([detect([image], search="plain") for image in images])
    assert together.image.tolist() == [0, 1, 3] and together.found_by == ["palm"] * 3
    torch.testing.assert_close(together.points, alone.points, atol=0.05, rtol=0)
    torch.testing.assert_close(together.world, alone.world, atol=2e-4, rtol=0)


def test_nothing_is_found_in_nothing() -> None:
    images = [torch.zeros(3, 64, 64), torch.ones(3, 1, 1), torch.full((3, 3, 900), 0.5)]
    images.append(torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(3)))
    hands = detect(images)
    assert len(hands) == 0 and hands.points.shape == (0, 21, 3) and hands.found_by == []


def test_a_photograph_upside_down_or_lying_is_found_by_turning(photo: Tensor) -> None:
    upright = detect([photo], search="plain")
    height, width = photo.shape[1:]
    hands = detect([photo.rot90(2, (1, 2)), photo.rot90(1, (1, 2))])
    assert hands.image.tolist() == [0, 1] and (hands.presence > 0.9).all()
    back = hands.points[0].clone()
    back[:, 0], back[:, 1] = width - 1 - back[:, 0], height - 1 - back[:, 1]
    gap = (back[:, :2] - upright.points[0, :, :2]).norm(dim=-1)
    assert gap.median() < 0.1 * palm_length(upright.points[0].numpy())


@pytest.fixture(scope="module")
def small(photo: Tensor) -> Tensor:
    """The hand, small in a wide, empty picture: (3, 1000, 2000), the hand near (1055, 420)."""
    shrunk = torch.nn.functional.interpolate(photo[None], scale_factor=0.2, mode="area")[0]
    wide = photo[:, :1, :1].expand(3, 1000, 2000).clone()
    wide[:, 350 : 350 + shrunk.shape[1], 1000 : 1000 + shrunk.shape[2]] = shrunk
    return wide


def test_a_small_hand_is_found_in_a_tile(small: Tensor) -> None:
    assert len(detect([small], search="plain")) == 0
    hands = detect([small])
    assert hands.found_by == ["tile"]
    middle = hands.points[0, :, :2].mean(0)
    assert (middle - torch.tensor([1055.0, 420.0])).norm() < 30


def test_boxes_are_read_and_a_detector_is_asked_where_nothing_was_found(photo: Tensor, small: Tensor) -> None:
    box = torch.tensor([[1025.0, 360.0, 1085.0, 480.0]])
    asked: list[int] = []

    def detector(image: Tensor) -> Tensor:
        asked.append(image.shape[-1])
        return box

    by_box = detect([photo, small], search="plain", boxes=[torch.tensor([[100.0, 100.0, 400.0, 600.0]]), box])
    by_detector = detect([photo, small], search="plain", detector=detector)
    assert by_box.found_by == by_detector.found_by == ["palm", "box"] and asked == [small.shape[-1]]
    torch.testing.assert_close(by_box.points, by_detector.points)
    assert len(detect([small], search="plain", boxes=[torch.tensor([[10.0, 10.0, 90.0, 90.0]])])) == 0
    assert len(detect([small], search="plain", boxes=[None])) == 0


def test_at_most_so_many_hands_and_only_sure_ones(photo: Tensor) -> None:
    two = torch.cat([photo, photo.flip(-1)], -1)
    both = detect([two], search="plain")
    assert len(both) == 2 and both.presence[0] >= both.presence[1]
    one = detect([two], search="plain", max_hands=1)
    torch.testing.assert_close(one.points, both.points[:1])
    assert len(detect([two], threshold=0.9999)) == 0


def test_hands_are_selected_and_joined(photo: Tensor) -> None:
    both = detect([torch.cat([photo, photo.flip(-1)], -1)], search="plain")
    again = Hands.cat([both.select(torch.tensor([False, True])), both.select(torch.tensor([0]))])
    torch.testing.assert_close(again.points, both.points.flip(0))
    assert again.found_by == ["palm", "palm"] and len(both.select(torch.tensor([False, False]))) == 0


@given(st.floats(-3.1, 3.1), st.floats(20, 300))
@settings(max_examples=20)
def test_a_second_look_turns_and_grows_with_the_hand(turn: float, scale: float) -> None:
    points = torch.tensor(STORED["solutions"]["nocurl.jpg"][0]["points"])[None, :, :2]
    first = landmark_region(points)
    moved = turned(points, torch.tensor([turn])) * scale
    region = landmark_region(moved)
    expected = turned(first[:, None, :2], torch.tensor([turn]))[:, 0] * scale
    torch.testing.assert_close(region[:, 2], first[:, 2] * scale, rtol=1e-3, atol=0)
    torch.testing.assert_close((region[:, 3] - first[:, 3] - turn).cos(), torch.ones(1), atol=1e-4, rtol=0)
    torch.testing.assert_close(region[:, :2], expected, rtol=1e-3, atol=float(first[0, 2]) * scale * 1e-3)


def test_read_passes_gradients_to_the_picture_and_the_region(photo: Tensor) -> None:
    network = load_landmarks("lite").double()
    image = photo.double()
    region = detect([photo], search="plain").region.double()
    mix = torch.randn(21, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(image: Tensor, region: Tensor) -> Tensor:
        hands = read([image], region, network)
        return (hands.points[0] * mix).sum() / 100 + (hands.world[0] * mix).sum() * 10 + hands.presence.sum()

    start = image.clone().requires_grad_(), region.clone().requires_grad_()
    gradients = torch.autograd.grad(value(*start), start)
    generator = torch.Generator().manual_seed(5)
    step = 1e-9  # small, so that no unit crosses the bend of its ReLU6, and no sample the edge of a pixel
    for which in (0, 1):
        direction = torch.randn(start[which].shape, generator=generator, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            moved = [image, region]
            moved[which] = moved[which] + sign * step * direction
            with torch.no_grad():
                ends.append(value(*moved))
        difference = (ends[0] - ends[1]) / (2 * step)
        # Rounding of a sum over a whole network is worth some thousandths at this step; a wrong gradient is far off.
        torch.testing.assert_close((gradients[which] * direction).sum(), difference, rtol=5e-3, atol=5e-3)


def test_errors_name_the_picture() -> None:
    fine = torch.zeros(3, 8, 8)
    for wrong in (torch.zeros(4, 8, 8), torch.zeros(8, 8), torch.zeros(3, 8, 8, dtype=torch.int64)):
        with pytest.raises(HandscopeError, match="number 1 is"):
            detect([fine, wrong])
    for value in (255.0, -1.0, math.nan):
        with pytest.raises(HandscopeError, match="number 1 go from"):
            detect([fine, torch.full((3, 8, 8), value)])
    with pytest.raises(HandscopeError, match="boxes for each of 2"):
        detect([fine, fine], boxes=[None])
    with pytest.raises(HandscopeError, match="no pictures"):
        detect([])


def test_overlap_of_a_box_with_itself_is_one() -> None:
    box = torch.tensor([1.0, 2.0, 5.0, 9.0])
    torch.testing.assert_close(palm_module.overlap(box, torch.stack([box, box + 100])), torch.tensor([1.0, 0.0]))
