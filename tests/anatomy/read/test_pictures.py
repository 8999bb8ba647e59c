"""Pictures of every kind are read upright as 8-bit RGB, or named with the reason; nothing in a file stops a folder."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from handscope.anatomy.read.boxes import read_boxes
from handscope.anatomy.read.pictures import DECODED, LONGEST, Picture, Skipped, find_pictures, read_picture, shown
from handscope.errors import HandscopeError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

RED, GREEN = (250, 10, 10), (10, 250, 10)


def left_red(width: int = 64, height: int = 48) -> Image.Image:
    """Red on the left, green on the right."""
    image = Image.new("RGB", (width, height), GREEN)
    image.paste(RED, (0, 0, width // 2, height))
    return image


def read(path: Path) -> Picture:
    picture = read_picture(path)
    assert isinstance(picture, Picture), picture
    return picture


def skipped(path: Path) -> str:
    picture = read_picture(path)
    assert isinstance(picture, Skipped), "it was read"
    return picture.reason


def near(pixel: np.ndarray, colour: tuple[int, int, int], by: int = 12) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= by)


def test_plain_picture(tmp_path: Path) -> None:
    left_red().save(tmp_path / "a.png")
    picture = read(tmp_path / "a.png")
    assert picture.pixels.shape == (48, 64, 3) and picture.pixels.dtype == np.uint8
    assert near(picture.pixels[5, 5], RED, 0) and near(picture.pixels[5, 60], GREEN, 0)
    assert (picture.scale, picture.notes) == (1.0, ())
    tensor = picture.tensor()
    assert tensor.shape == (3, 48, 64) and float(tensor[0, 5, 5]) == pytest.approx(250 / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_rotation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    undo = {
        1: (),
        2: (Image.Transpose.FLIP_LEFT_RIGHT,),
        3: (Image.Transpose.ROTATE_180,),
        4: (Image.Transpose.FLIP_TOP_BOTTOM,),
        5: (Image.Transpose.TRANSPOSE,),
        6: (Image.Transpose.ROTATE_90,),
        7: (Image.Transpose.TRANSVERSE,),
        8: (Image.Transpose.ROTATE_270,),
    }[orientation]
    stored = left_red()
    for turn in undo:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    stored.save(path, exif=exif)
    pixels = read(path).pixels
    assert pixels.shape == (48, 64, 3)
    assert near(pixels[24, 8], RED) and near(pixels[24, 56], GREEN)


def test_sixteen_bits_keep_their_greys(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (40, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray(ramp).save(tmp_path / "deep.tif")
    for name in ("deep.png", "deep.tif"):
        picture = read(tmp_path / name)
        expected = np.linspace(0, 255, 64)
        assert np.abs(picture.pixels[10, :, 0] - expected).max() <= 1
        assert "16 bits made 8" in picture.notes


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    import struct
    import zlib

    pixel = struct.pack(">HHH", 0xFA00, 0x0A00, 0x8000)
    rows = b"".join(b"\x00" + pixel * 40 for _ in range(40))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    assert near(read(tmp_path / "deep.png").pixels[3, 3], (250, 10, 128), 1)


def test_values_without_a_white_are_not_guessed(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40), 0.5, np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.full((40, 40), 10**6, np.int32)).save(tmp_path / "wide.tif")
    assert "floating-point" in skipped(tmp_path / "float.tif")
    assert "32 bits" in skipped(tmp_path / "wide.tif")


def test_cmyk(tmp_path: Path) -> None:
    left_red().convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    left_red().convert("CMYK").save(tmp_path / "print.tif")
    for name in ("print.jpg", "print.tif"):
        picture = read(tmp_path / name)
        assert near(picture.pixels[24, 8], RED, 20) and near(picture.pixels[24, 56], GREEN, 20)
        assert any("CMYK" in note for note in picture.notes)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white(tmp_path: Path, mode: str) -> None:
    if mode == "P":
        image = Image.new("P", (64, 48), 1)
        image.putpalette([*GREEN, *RED])
        image.paste(0, (32, 0, 64, 48))
        image.save(tmp_path / "clear.png", transparency=0)  # the green half
        shown = RED
    else:
        image = left_red().convert(mode)
        clear = Image.new("L", (64, 48), 255)
        clear.paste(0, (32, 0, 64, 48))
        image.putalpha(clear)
        image.save(tmp_path / "clear.png")
        shown = RED if mode == "RGBA" else (82, 82, 82)
    picture = read(tmp_path / "clear.png")
    assert near(picture.pixels[24, 8], shown, 1) and near(picture.pixels[24, 56], (255, 255, 255), 0)
    assert "transparent parts shown white" in picture.notes


def test_opaque_alpha_is_not_mentioned(tmp_path: Path) -> None:
    left_red().convert("RGBA").save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").notes == ()


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "LAB"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    grey = Image.new("RGB", (64, 48), (255, 255, 255))
    image = grey.convert("L").convert("LAB") if mode == "LAB" else grey.convert(mode)
    image.save(tmp_path / "a.tif")
    picture = read_picture(tmp_path / "a.tif")
    if isinstance(picture, Skipped):
        assert mode == "LAB" and "damaged" in picture.reason  # Pillow knows no way from it to RGB
    else:
        assert near(picture.pixels[24, 8], (255, 255, 255), 1)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in (RED, GREEN, RED)]
    path = tmp_path / f"moving.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    picture = read(path)
    assert near(picture.pixels[24, 8], RED, 20)
    assert "the first of 3 frames" in picture.notes


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (31, 200), (500, 2)])
def test_tiny_pictures_are_named(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "tiny.png")
    assert f"{size[0]} × {size[1]} pixels" in skipped(tmp_path / "tiny.png")


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    left_red(2 * LONGEST, 300).save(tmp_path / "wide.png")
    picture = read(tmp_path / "wide.png")
    assert picture.pixels.shape == (150, LONGEST, 3) and picture.scale == 0.5
    assert "made 2 times smaller, from 8,192 × 300 pixels" in picture.notes
    assert near(picture.pixels[75, 100], RED, 1) and near(picture.pixels[75, -100], GREEN, 1)
    left_red(60_000, 40).save(tmp_path / "thread.png")
    assert "too long and thin" in skipped(tmp_path / "thread.png")


@pytest.mark.process
@pytest.mark.slow
def test_twenty_thousand_pixels_a_side_in_bounded_memory(tmp_path: Path) -> None:
    """400 megapixels take 1.6 GB when they are decoded whole; a process that may have 1.2 GB more reads them."""
    import subprocess
    import sys

    for name, options in (("big.jpg", {}), ("big.png", {}), ("steps.jpg", {"progressive": True})):
        Image.new("L", (20_000, 20_000), 200).save(tmp_path / name, **options)
    code = """
import resource, sys
from handscope.anatomy.read.pictures import Skipped, read_picture
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 1_200_000_000,) * 2)
for name in sys.argv[1:]:
    picture = read_picture(name)
    print(picture.reason if isinstance(picture, Skipped) else (picture.pixels.shape, picture.notes))
"""
    names = [str(tmp_path / name) for name in ("big.jpg", "big.png", "steps.jpg")]
    out = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    jpg, png, steps = out.stdout.splitlines()
    assert "(4096, 4096, 3)" in jpg and "from 20,000 × 20,000 pixels" in jpg
    assert "megapixels" in png and "megapixels" in steps
    assert DECODED * 4 < 300e6


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    left_red(400, 400).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    left_red(400, 400).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    assert skipped(tmp_path / "empty.png") == "the file is empty"
    assert "not known" in skipped(tmp_path / "text.png")
    assert skipped(tmp_path / "folder.png") == "it is not a file"
    assert "damaged" in skipped(tmp_path / "half.jpg")
    assert "damaged" in skipped(tmp_path / "half.png")
    assert skipped(tmp_path / "gone.png") == "it is not a file"
    os.mkfifo(tmp_path / "pipe.png")
    assert skipped(tmp_path / "pipe.png") == "it is not a file"  # to open it would wait forever


def _formats() -> list[bytes]:
    out = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        file = io.BytesIO()
        left_red().save(file, kind)
        out.append(file.getvalue())
    return out


FORMATS = _formats()


@settings(max_examples=150)
@given(
    which=st.integers(0, len(FORMATS) - 1),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 3000),
)
def test_damaged_bytes_never_raise(
    tmp_path_factory: pytest.TempPathFactory, which: int, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(FORMATS[which])
    for at, value in changes:
        data[at % len(data)] = value
    if cut < len(data):
        data = data[:cut]
    path = tmp_path_factory.getbasetemp() / "fuzz.png"
    path.write_bytes(bytes(data))
    picture = read_picture(path)
    if isinstance(picture, Skipped):
        assert picture.reason
    else:
        assert picture.pixels.dtype == np.uint8 and picture.pixels.shape[2] == 3
        assert max(picture.pixels.shape) <= LONGEST and min(picture.pixels.shape[:2]) >= 32


def test_folders(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deeper/c.webp", ".hidden/d.png", "out/sheets/e.png", "deeper/.f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        left_red().save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "again.png").symlink_to(tmp_path / "b.png")
    found = find_pictures([tmp_path, tmp_path / "b.png"], besides=tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in found.pictures] == ["a.JPG", "again.png", "deeper/c.webp"]
    assert [path.name for path in found.others] == ["notes.txt"]
    named = find_pictures([tmp_path / "notes.txt"])  # what is named is opened, and then says that it is none
    assert named.pictures == [tmp_path / "notes.txt"]


def test_nothing_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(HandscopeError, match="no pictures in .*1 other files"):
        find_pictures([tmp_path])
    with pytest.raises(HandscopeError, match="no picture or folder"):
        find_pictures([tmp_path / "gone"])


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"hevc"])
def test_heic_is_named_for_what_it_is(tmp_path: Path, brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handscope.anatomy.read.pictures._reads_heic", lambda: False)
    for name in ("phone.heic", "renamed.jpg"):
        (tmp_path / name).write_bytes(b"\x00\x00\x00\x18ftyp" + brand + bytes(100))
        assert skipped(tmp_path / name) == "it is HEIC, which needs pillow-heif: pip install 'handscope[heic]'"
    assert [path.name for path in find_pictures([tmp_path]).pictures] == ["phone.heic", "renamed.jpg"]


def test_heic_is_read_where_pillow_heif_is(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    left_red().save(tmp_path / "phone.heic", quality=95)
    assert near(read(tmp_path / "phone.heic").pixels[24, 8], RED, 20)


def test_a_path_is_shown_as_text() -> None:
    assert shown("café.png") == "café.png"
    assert shown(Path(os.fsdecode(b"caf\xe9.png"))) == "caf\\xe9.png"


def test_boxes_of_a_table(tmp_path: Path) -> None:
    table = tmp_path / "boxes.csv"
    table.write_text("path,x0,y0,x1,y1,score\na.png,1,2,3.5,4,.9\na.png,5,5,9,9,.5\ndeeper/b.png,0,0,1,1,\n")
    assert read_boxes(table) == {
        tmp_path / "a.png": [[1, 2, 3.5, 4], [5, 5, 9, 9]],
        tmp_path / "deeper" / "b.png": [[0, 0, 1, 1]],
    }
    for text, said in (
        ("path,x0,y0,x1\n", "y1 is missing"),
        ("path,x0,y0,x1,y1\na.png,1,1,2,2\na.png,3,1,2,2\n", "line 3 has 3, 1, 2, 2"),
        ("path,x0,y0,x1,y1\na.png,one,1,2,2\n", "line 2 has one"),
        ("path,x0,y0,x1,y1\na.png,1,1,nan,2\n", "line 2"),
    ):
        table.write_text(text)
        with pytest.raises(HandscopeError, match=said):
            read_boxes(table)
    with pytest.raises(HandscopeError, match="There are no boxes"):
        read_boxes(tmp_path / "gone.csv")
