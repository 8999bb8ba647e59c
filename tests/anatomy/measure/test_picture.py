"""The picture head: what it reads of a hand does not depend on the batch, on the side, or on what else is computed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from handscope.anatomy.measure import picture
from handscope.anatomy.measure.picture import FEATURES, MAPS, features, load_picture, mirrored, picture_evidence
from handscope.anatomy.read.detect import detect
from handscope.anatomy.read.networks import load_landmarks
from handscope.errors import HandscopeError
from made_hands import open_hands


def test_evidence_of_a_mirrored_picture_is_the_same() -> None:
    pictures = open_hands(4, 1)
    hands = detect(pictures, search="plain", max_hands=1)
    other = pictures.flip(-1)
    turned = hands.region.clone()
    turned[:, 0] = pictures.shape[-1] - 1 - turned[:, 0]
    turned[:, 3] *= -1
    points = hands.points.clone()
    points[..., 0] = pictures.shape[-1] - 1 - points[..., 0]
    one = picture_evidence(pictures, hands)
    two = picture_evidence(other, replace(hands, region=turned, points=points))
    assert len(hands) >= 3 and list(one) == ["picture_fault", "picture_strange"]
    for name, values in one.items():
        # Crops begin at a pixel's corner, so that they are cut anew by half a pixel.
        assert two[name] == pytest.approx(values, abs=0.2), name
        assert torch.isfinite(values).all()
    second = replace(hands.select(torch.tensor([1])), image=torch.tensor([0]))
    alone = picture_evidence(pictures[hands.image[1:2]], second)
    assert alone["picture_fault"] == pytest.approx(one["picture_fault"][1:2], abs=1e-3)


def test_features_are_of_maps_that_the_whole_network_has() -> None:
    graph = load_landmarks().graph
    crops, points = torch.rand(2, 3, 160, 160), torch.rand(2, 21, 2)
    with torch.no_grad():
        *whole, last = graph(crops, [*MAPS, graph.outputs[0]])
        part = graph(crops, list(MAPS))  # stops after the last of them
        seen = features(crops, points)
        again = features(*mirrored(*mirrored(crops, points)))
    assert last.shape[0] == 2 and all(torch.equal(a, b) for a, b in zip(whole, part))
    assert seen.shape == (2, FEATURES) and torch.allclose(seen, again, atol=1e-4)
    assert torch.equal(seen[:, : whole[0].shape[1]], whole[0].mean((2, 3)))


def test_no_hands_and_damaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = detect(torch.full((1, 3, 64, 64), 0.5), search="plain")
    assert {name: len(values) for name, values in picture_evidence(torch.rand(1, 3, 64, 64), none).items()} == {
        "picture_fault": 0, "picture_strange": 0,
    }  # fmt: skip
    (tmp_path / "picture.safetensors").write_bytes(b"nothing")
    monkeypatch.setattr(picture, "WEIGHTS", tmp_path / "picture.safetensors")
    load_picture.cache_clear()
    with pytest.raises(HandscopeError, match="install handscope again"):
        load_picture()
    load_picture.cache_clear()
