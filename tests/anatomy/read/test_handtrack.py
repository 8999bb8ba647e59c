"""The second detector beside TensorFlow.js's answers and slow anchors; grey pictures in the tones of skin; feet."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from handscope.anatomy.read import detect as module
from handscope.anatomy.read.convert_handtrack import convert
from handscope.anatomy.read.detect import detect
from handscope.anatomy.read.graph import WEIGHTS
from handscope.anatomy.read.handtrack import anchors, find_boxes, load_handtrack
from handscope.anatomy.read.toes import like_feet
from handscope.anatomy.read.tone import is_grey, toned
from handscope.errors import HandscopeError
from PIL import Image
from torch import Tensor

DATA = Path(__file__).parents[2] / "support" / "data"


@pytest.fixture(scope="module")
def photo() -> Tensor:
    pixels = np.array(Image.open(DATA / "nocurl.jpg").convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def grey(photo: Tensor) -> Tensor:
    return photo.mean(0, keepdim=True).expand(3, -1, -1).contiguous()


def slow_anchors() -> list[tuple[float, float, float, float]]:
    """TensorFlow's multiscale grid anchors: levels 3 to 7, scale 4, ratios 1, 2 and .5, two scales an octave."""
    out = []
    for level in range(3, 8):
        stride = 2**level
        offset = stride / 2 if 320 % stride == 0 else 0
        for row in range(math.ceil(320 / stride)):
            for column in range(math.ceil(320 / stride)):
                for ratio in (1.0, 2.0, 0.5):
                    for octave in (0, 1):
                        base = 4 * stride * 2 ** (octave / 2)
                        at = (column * stride + offset, row * stride + offset)
                        out.append((*at, base * ratio**0.5, base / ratio**0.5))
    return out


def test_anchors() -> None:
    np.testing.assert_allclose(anchors().numpy() * 320, slow_anchors(), rtol=1e-5)


def test_the_network_is_that_of_tensorflow_js() -> None:
    stored = json.loads((DATA / "handtrack.json").read_text())
    pixels = np.array(Image.open(DATA / "nocurl.jpg").convert("RGB").resize((320, 320)))
    shown = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        boxes, classes = load_handtrack().graph(2 * shown - 1)
    at = stored["anchors"]
    torch.testing.assert_close(boxes[0, at], torch.tensor(stored["boxes"]), atol=0.01, rtol=0)
    torch.testing.assert_close(classes[0, at], torch.tensor(stored["classes"]), atol=0.01, rtol=0)


def test_a_box_is_about_the_hand(photo: Tensor) -> None:
    points = detect([photo], search="plain").points[0, :, :2]
    beside = torch.cat([torch.zeros(3, 640, 300), photo], -1)  # and where the picture is moved, so is the box
    for image, moved in ((photo, 0), (beside, 300)):
        left, top, right, bottom = find_boxes([image])[0][0].tolist()
        middle = torch.tensor([(left + right) / 2 - moved, (top + bottom) / 2])
        assert (points.amin(0) < middle).all() and (middle < points.amax(0)).all()
        assert 80 < right - left < 250 and 100 < bottom - top < 500
    assert [len(boxes) for boxes in find_boxes([torch.zeros(3, 50, 300), torch.rand(3, 200, 200)])] == [0, 0]


@pytest.mark.skipif("HANDTRACKJS" not in os.environ, reason="needs the path of the npm package 0.1.5 as HANDTRACKJS")
def test_shipped_weights_are_what_the_script_makes(tmp_path: Path) -> None:
    made = convert(os.environ["HANDTRACKJS"], tmp_path)
    assert made.read_bytes() == (WEIGHTS / "handtrack.safetensors").read_bytes()


def test_another_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HandscopeError, match="holds no models/webmodel/ssd320fpnlite/int8/model.json"):
        convert(tmp_path, tmp_path)


def test_grey_is_told_from_colour(photo: Tensor, grey: Tensor) -> None:
    assert is_grey(grey) and not is_grey(photo) and not is_grey(photo / 20) and is_grey(torch.zeros(3, 40, 40))
    tinted = grey.clone()
    tinted[2] *= 0.7
    assert not is_grey(tinted)


def test_tones_of_skin_follow_the_light() -> None:
    ramp = torch.linspace(-0.1, 1.1, 50).expand(3, 1, -1)
    shown = toned(ramp)
    assert (shown.diff(dim=-1) >= 0).all() and float(shown.min()) == 0 and float(shown.max()) == 1
    middle = (ramp[0, 0] > 0.05) & (ramp[0, 0] < 0.95)
    red, green, blue = shown[:, 0, middle]
    assert (red > green).all() and (green > blue).all()


def test_a_grey_hand_is_found_where_the_coloured_one_is(photo: Tensor, grey: Tensor) -> None:
    coloured, plain = (detect([image], search="plain") for image in (photo, grey))
    assert plain.found_by == ["palm"] and float(plain.presence) > 0.9
    gap = (plain.points - coloured.points)[0, :, :2].norm(dim=-1)
    assert gap.median() < 0.1 * (coloured.points[0, 9, :2] - coloured.points[0, 0, :2]).norm()


def hand_of(tips: list[float], knuckle: float = 1.0) -> Tensor:
    """Landmarks (1, 21, 2) of a palm with four fingers side by side, straight, whose tips are so far from the wrist."""
    points = torch.zeros(1, 21, 2)
    for finger, tip in enumerate(tips):
        for joint in range(4):
            along = knuckle + (tip - knuckle) * joint / 3
            points[0, 5 + 4 * finger + joint] = along * torch.tensor([math.sin(0.1 * finger), -math.cos(0.1 * finger)])
    return points


@pytest.mark.parametrize(
    ("tips", "presence", "foot"),
    [
        ([1.3, 1.32, 1.3, 1.25], 0.95, True),  # toes
        ([1.3, 1.32, 1.3, 1.25], 0.99, False),  # but the network is certain
        ([1.9, 2.0, 1.9, 1.7], 0.95, False),  # fingers
        ([0.7, 0.68, 0.7, 0.72], 0.95, False),  # a fist
        ([1.3, 1.6, 1.1, 1.4], 0.95, False),  # short, and in no line
        ([1.3, 0.9, 1.3, 1.25], 0.95, False),  # one is folded
    ],
)
def test_feet_are_told_by_their_toes(tips: list[float], presence: float, foot: bool) -> None:
    points = hand_of(tips)
    for scale, moved in ((1, 0), (200, 50)):
        assert like_feet(points * scale + moved, torch.tensor([presence])).tolist() == [foot]
    assert like_feet(points[:0], torch.zeros(0)).shape == (0,)


def test_the_search_asks_the_detector_and_takes_what_both_networks_see(photo: Tensor, monkeypatch) -> None:
    """With the other steps taken away a hand that is small in its picture is found by its box, and not without one."""
    small = torch.nn.functional.interpolate(photo[None], scale_factor=0.2, mode="area")[0]
    wide = photo[:, :1, :1].expand(3, 1000, 2000).clone()
    wide[:, 350 : 350 + small.shape[1], 1000 : 1000 + small.shape[2]] = small
    box = torch.tensor([[1025.0, 360.0, 1085.0, 480.0]])
    monkeypatch.setattr(module, "SEARCH", tuple(step for step in module.SEARCH if step.name == "detector"))
    monkeypatch.setattr(module, "find_boxes", lambda images: [box])
    assert detect([wide]).found_by == ["detector"]
    monkeypatch.setattr(module, "find_boxes", lambda images: [box[:0]])
    assert len(detect([wide])) == 0
