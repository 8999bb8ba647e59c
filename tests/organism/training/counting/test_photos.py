"""Crops of photographs: sorted by what they are for, cut with room to spare, and narrowed again for the head."""

import csv

import numpy as np
import pytest
import torch
from handscope.anatomy.measure.count import SIDE, count_region
from handscope.anatomy.read.regions import crop
from handscope.organism.training.counting import photos
from PIL import Image
from safetensors.torch import load_file


class Detected:
    """What detection finds: hands at these places."""

    def __init__(self, *regions: list[float]) -> None:
        self.region = torch.tensor(regions).reshape(-1, 4)


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Three photographs, one of each part, with two, one and no hands; and what is detected in each."""
    rng, rows, pictures = np.random.default_rng(0), [], []
    for name, hands, source in (("a", "2", "material-kit/1"), ("b", "1", "another"), ("c", "0", "another")):
        small = rng.integers(0, 256, (12, 16, 3), np.uint8)
        picture = Image.fromarray(small).resize((320, 240), Image.Resampling.BILINEAR)
        picture.save(tmp_path / f"{name}.png")
        pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255)
        rows.append({"path": tmp_path / f"{name}.png", "hands": hands, "source": source})
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "hands", "source"])
        writer.writeheader()
        writer.writerows(rows)
    regions = [[[100.0, 100, 60, 0.0], [220.0, 130, 50, 0.5]], [[160.0, 120, 70, -0.3]]]
    asked = iter(regions)

    def detect(images, search, max_hands):
        assert search == "plain" and max_hands == 8
        return Detected(*next(asked))

    monkeypatch.setattr(photos, "detect", detect)
    return tmp_path / "list.csv", pictures, regions


def test_photographs_are_parted_and_cut_around_each_hand(listed, tmp_path):
    path, pictures, regions = listed
    told = []
    photos.cut(path, tmp_path, lambda stage, done, total: told.append((done, total)))
    found = {part: load_file(tmp_path / f"photos-{part}.safetensors")["crops"] for part in ("learnt", "test", "none")}
    assert {part: tuple(crops.shape) for part, crops in found.items()} == {
        "learnt": (2, 3, photos.STORED, photos.STORED),
        "test": (1, 3, photos.STORED, photos.STORED),
        "none": (1, 3, photos.STORED, photos.STORED),
    }
    assert told == [(1, 3), (2, 3), (3, 3)]
    torch.testing.assert_close(photos.learnt(tmp_path), found["learnt"])
    assert photos.learnt(tmp_path / "elsewhere").shape == (0, 3, photos.STORED, photos.STORED)
    # What the head sees of a stored crop is what it would be given of the photograph itself.
    of_the_picture = crop([pictures[0]], count_region(torch.tensor(regions[0])), SIDE, torch.zeros(2, dtype=torch.long))
    assert (photos.narrowed(found["learnt"]) - of_the_picture).abs().mean() < 0.01
    # A photograph without a hand gives its middle, as wide as its shorter side.
    middle = crop([pictures[2]], torch.tensor([[160.0, 120, 240, 0]]), SIDE, torch.zeros(1, dtype=torch.long))
    assert (photos.narrowed(found["none"]) - middle).abs().mean() < 0.01


def test_jitter_moves_a_crop_a_little_and_mirrors_half():
    row, column = torch.meshgrid(*[torch.linspace(-1, 1, photos.STORED)] * 2, indexing="ij")
    crops = torch.stack([column, row, torch.ones_like(row)]).expand(200, 3, -1, -1)  # each pixel says where it was
    moved = photos.jittered(crops, torch.Generator().manual_seed(0))
    assert moved.shape == (200, 3, SIDE, SIDE)
    assert torch.equal(moved, photos.jittered(crops, torch.Generator().manual_seed(0)))
    across = moved[:, 0, SIDE // 2, SIDE * 3 // 4] - moved[:, 0, SIDE // 2, SIDE // 4]
    down = moved[:, 1, SIDE * 3 // 4, SIDE // 2] - moved[:, 1, SIDE // 4, SIDE // 2]
    assert 0.35 < (across < 0).float().mean() < 0.65 and (down > 0).all()
    assert across.abs().min() > 0.3 and across.abs().max() < 1.02 * 1.2 / photos.ROOM
    middle = moved[:, :2, SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1].mean((2, 3))
    assert middle.abs().max() < 0.1 and middle.std(0).min() > 0.02
