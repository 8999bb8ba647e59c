"""Pictures however they are held are the same pictures, and the score does not look at torch's default dtype."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from handscope.anatomy import score
from handscope.anatomy.read.given import as_pictures, single_precision
from handscope.errors import HandscopeError
from made_hands import open_hands
from PIL import Image

BYTES = torch.arange(2 * 3 * 5 * 4, dtype=torch.uint8).reshape(2, 3, 5, 4)
FLOATS = BYTES.float() / 255


@pytest.fixture
def default_dtype() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


def big() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 36, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "given", "near"),
    [
        ("float32", FLOATS, 0),
        ("bytes", BYTES, 0),
        ("float64", FLOATS.double(), 1e-7),
        ("half", FLOATS.half(), 1e-3),
        ("bfloat16", FLOATS.bfloat16(), 4e-3),
        ("channels last", FLOATS.permute(0, 2, 3, 1), 0),
        ("array of bytes, channels last", BYTES.permute(0, 2, 3, 1).numpy(), 0),
        ("array of bytes, channels first", BYTES.numpy(), 0),
        ("array of float64", FLOATS.double().numpy(), 1e-7),
        ("array of float16", FLOATS.half().numpy(), 1e-3),
        ("reversed array", np.ascontiguousarray(BYTES.numpy()[:, :, ::-1])[:, :, ::-1], 0),
        ("list of several kinds", [BYTES[0], FLOATS[1].double().permute(1, 2, 0).numpy()], 1e-7),
        ("tuple of PIL pictures", tuple(Image.fromarray(one) for one in BYTES.permute(0, 2, 3, 1).numpy()), 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_is_the_same_picture(name: str, given: object, near: float) -> None:
    pictures = as_pictures(given)
    assert [one.dtype for one in pictures] == [torch.float32] * 2
    torch.testing.assert_close(torch.stack(pictures), FLOATS, atol=near, rtol=0)


def test_one_picture_needs_no_list(tmp_path: Path) -> None:
    Image.fromarray(big()).save(tmp_path / "a.png")
    expected = torch.from_numpy(big()).permute(2, 0, 1).float() / 255
    for one in (big(), Image.fromarray(big()), tmp_path / "a.png", str(tmp_path / "a.png"), expected):
        (picture,) = as_pictures(one)
        torch.testing.assert_close(picture, expected, atol=0, rtol=0)


def test_pil_pictures_are_turned_and_made_rgb() -> None:
    image = Image.fromarray(big())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.getexif().update(exif)
    assert as_pictures(image)[0].shape == (3, 36, 40)
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert float(as_pictures(clear)[0].min()) == 1.0
    with pytest.raises(HandscopeError, match="number 0 cannot be looked at: .*floating-point"):
        as_pictures(Image.fromarray(np.zeros((40, 40), np.float32)))


def test_three_by_three_is_read_as_its_kind_has_it() -> None:
    values = np.linspace(0, 1, 27, dtype=np.float32).reshape(3, 3, 3)
    torch.testing.assert_close(as_pictures(torch.from_numpy(values))[0], torch.from_numpy(values))
    torch.testing.assert_close(as_pictures(values)[0], torch.from_numpy(values).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "no pictures"),
        (np.zeros((0, 3, 8, 8)), "no pictures"),
        ([None], "number 0 is a NoneType"),
        ([np.zeros((8, 8, 3), np.int64)], "number 0 is an array of int64"),
        ([np.zeros((8, 8, 3), np.uint16)], "number 0 is uint16"),
        ([np.zeros((8, 8, 4), np.uint8)], r"number 0 is uint8 \(8, 8, 4\)"),
        ([np.zeros((8, 8), np.uint8)], r"number 0 is uint8 \(8, 8\)"),
        ([np.full((8, 8, 3), 255.0)], "number 0 go from 255 to 255"),
        (["gone.png"], "gone.png cannot be looked at: it is not a file"),
    ],
)
def test_what_is_no_picture_is_named(given: object, said: str) -> None:
    with pytest.raises(HandscopeError, match=said):
        as_pictures(given)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_default_dtype_changes_nothing(default_dtype: None, dtype: torch.dtype) -> None:
    pictures = open_hands(1, 1)
    expected = score(pictures).table()
    assert len(expected) == 1 and expected["hand"][0] == 1
    torch.set_default_dtype(dtype)
    assert score(pictures).table().equals(expected)
    assert torch.get_default_dtype() == dtype


def test_single_precision_ends_with_an_error(default_dtype: None) -> None:
    torch.set_default_dtype(torch.float64)
    with pytest.raises(ValueError), single_precision():
        assert torch.zeros(1).dtype == torch.float32
        raise ValueError
    assert torch.zeros(1).dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"search": "fast"}, "no search 'fast': choose one of thorough, plain"),
        ({"networks": "tiny"}, "'full' and 'lite'; 'tiny'"),
        ({"raised": 9}, "each of 1 pictures .* as a list, found 9"),
        ({"raised": [9]}, "raises 0 to 5 digits.*found 9"),
        ({"raised": [-1]}, "found -1"),
        ({"raised": [2.5]}, "found 2.5"),
        ({"raised": [5, 5]}, "each of 1 pictures .* found 2"),
        ({"method": "best"}, "no method 'best'"),
    ],
)
def test_options_that_there_are_not_are_refused(options: dict, said: str) -> None:
    with pytest.raises(HandscopeError, match=said):
        score(torch.zeros(1, 3, 40, 40), **options)
