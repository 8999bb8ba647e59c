"""Pictures from files: whatever a folder holds is read upright as 8-bit RGB, or named with the reason why not.

What is done to a picture on the way stands in its notes: which frame, which background under transparency, how much
smaller. Colour profiles are not applied.
"""

import hashlib
import io
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor

from ...errors import HandscopeError

SUFFIXES = frozenset(".avif .bmp .gif .heic .heif .jfif .jpeg .jpg .jp2 .pgm .png .ppm .tif .tiff .webp".split())
SMALLEST = 32  # pixels of the shorter side: below it no hand can be told from a blot
LONGEST = 4096  # pixels of the longer side that are kept
DECODED = 64 * 2**20  # pixels that are decoded at most, 256 MB in Pillow's memory
FILE_BYTES = 512 * 2**20
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands of the files that phones call HEIC: at bytes 8 to 12, after the word ftyp."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it is scored.

    Attributes
    ----------
    path : Path
    sha256 : hash of the file.
    pixels : uint8 array of shape (height, width, 3), upright as EXIF says.
    scale : pixels of `pixels` to one of the file; below 1 where the picture was too large.
    notes : what was done to it, in words.
    """

    path: Path
    sha256: str
    pixels: NDArray[np.uint8]
    scale: float = 1.0
    notes: tuple[str, ...] = ()

    def tensor(self) -> Tensor:
        """Float tensor of shape (3, height, width), in 0..1."""
        return torch.from_numpy(self.pixels).permute(2, 0, 1).float() / 255


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read as a picture, and why, as a phrase that follows its name and a colon."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Found:
    """Files of a search: `pictures` by their names' ends, sorted in each folder, and `others`, which are not opened."""

    pictures: list[Path]
    others: list[Path]


def find_pictures(paths: Iterable[str | os.PathLike[str]], besides: Path | None = None) -> Found:
    """The pictures of files and folders, and of folders below; a file that is named is opened whatever its name.

    Hidden files and folders are left out, and so is everything in the folder `besides`, where results are written.

    Raises
    ------
    HandscopeError
        A path does not exist, or there is no picture at all.
    """
    pictures: dict[Path, Path] = {}
    others: list[Path] = []
    given = [Path(path) for path in paths]
    for path in given:
        if not path.exists():
            raise HandscopeError(f"There is no picture or folder {path}: check its name.")
        for file in _below(path, besides) if path.is_dir() else [path]:
            if path.is_dir() and file.suffix.lower() not in SUFFIXES:
                others.append(file)
            else:
                pictures.setdefault(file.resolve(), file)
    if not pictures:
        ends = ", ".join(sorted(SUFFIXES))
        raise HandscopeError(
            f"There are no pictures in {', '.join(map(str, given[:3]))} ({len(others)} other files): expected names "
            f"that end in {ends}."
        )
    return Found(list(pictures.values()), others)


def _below(folder: Path, besides: Path | None) -> Iterable[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (besides is None or (Path(parent) / name).resolve() != besides.resolve())
        )
        yield from (Path(parent) / name for name in sorted(files) if not name.startswith("."))


def read_picture(path: str | os.PathLike[str]) -> Picture | Skipped:
    """Read one file.

    Returns
    -------
    Picture, or Skipped for anything that cannot be read: it never raises on what a file holds.

    Notes
    -----
    A JPEG of more than 64 megapixels is made 2, 4 or 8 times smaller while it is decoded, which bounds the memory;
    other kinds, progressive JPEGs among them, must be decoded whole and are skipped at that size. What is left is made
    at most 4096 pixels long.
    """
    path = Path(path)
    try:
        if not path.is_file():
            return Skipped(path, "it is not a file")
        if path.stat().st_size > FILE_BYTES:
            return Skipped(path, f"{path.stat().st_size / 2**20:,.0f} MB are more than the {FILE_BYTES >> 20} MB read")
        data = path.read_bytes()
    except OSError as error:
        return Skipped(path, f"it could not be read ({error.strerror})")
    if not data:
        return Skipped(path, "the file is empty")
    if data[4:8] == b"ftyp" and data[8:12] in HEIC and not _reads_heic():
        return Skipped(path, "it is HEIC, which needs pillow-heif: pip install 'handscope[heic]'")
    try:
        with warnings.catch_warnings():
            # Pillow warns of sizes, which are looked at below, and of damaged EXIF, which then turns nothing.
            warnings.simplefilter("ignore")
            pixels, scale, notes = _decode(data)
    except _TooMuch as error:
        return Skipped(path, str(error))
    except UnidentifiedImageError:
        return Skipped(path, "it is damaged, or of a kind that is not known")
    except Exception as error:  # decoders raise nearly everything on damaged data: a file must not stop a folder
        return Skipped(path, f"it is damaged ({type(error).__name__}: {str(error)[:120]})")
    return Picture(path, hashlib.sha256(data).hexdigest(), pixels, scale, tuple(notes))


@cache
def _reads_heic() -> bool:
    """Whether pillow-heif is installed, which then reads it for Pillow."""
    try:
        import pillow_heif  # type: ignore[import-not-found]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def shown(path: str | os.PathLike[str]) -> str:
    r"""A path as text that every file and terminal takes: a byte of its name that is no UTF-8 is written ``\xe9``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class _TooMuch(HandscopeError):
    """A picture of a size or kind that is not read; a phrase that follows its name and a colon."""


def _decode(data: bytes) -> tuple[NDArray[np.uint8], float, list[str]]:
    file, notes = io.BytesIO(data), []
    try:
        # A JPEG is opened by its own class: it can be decoded smaller, so that Pillow's limit does not apply.
        image: Image.Image = JpegImagePlugin.JpegImageFile(file) if data[:2] == b"\xff\xd8" else Image.open(file)
    except Image.DecompressionBombError:
        raise _TooMuch(f"it has more than the {DECODED >> 20} megapixels that are read: make it smaller") from None
    with image:
        width, height = image.size
        if min(width, height) < SMALLEST:
            raise _TooMuch(f"{width} × {height} pixels; a hand needs at least {SMALLEST} × {SMALLEST}")
        if isinstance(image, JpegImagePlugin.JpegImageFile) and not image.info.get("progressive"):
            smaller = next((n for n in (1, 2, 4, 8) if width * height <= DECODED * n * n), 8)
            image.draft(None, (width // smaller, height // smaller))
        if image.width * image.height > DECODED:
            raise _TooMuch(
                f"{width:,} × {height:,} pixels are more than the {DECODED >> 20} megapixels that are read: make it "
                "smaller"
            )
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            notes.append(f"the first of {frames} frames")
            image.seek(0)
        image.load()
        rgb = upright(image, notes)
    if max(rgb.size) > LONGEST:
        rgb.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX, reducing_gap=2.0)
    if min(rgb.size) < SMALLEST:
        raise _TooMuch(f"{width:,} × {height:,} pixels are too long and thin: a hand in it cannot be read")
    # EXIF may have turned it: the longer side is the longer side either way.
    scale = max(rgb.size) / max(width, height)
    if scale < 1:
        notes.append(f"made {1 / scale:.3g} times smaller, from {width:,} × {height:,} pixels")
    return np.array(rgb), scale, notes  # a copy: Pillow's own is read-only, which torch warns of


def upright(image: Image.Image, notes: list[str] | None = None) -> Image.Image:
    """A PIL picture of any mode as RGB, turned as its EXIF says; what was done to it is added to `notes`.

    Raises HandscopeError for values whose white is not known, as a phrase that follows its name and a colon.
    """
    return _rgb(ImageOps.exif_transpose(image), [] if notes is None else notes)


def _rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Any mode as RGB; 16 bits are scaled to 8, and what is transparent shows white."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise _TooMuch("it has 32 bits a value, whose white is not known")
        notes.append("16 bits made 8")
        return Image.fromarray((values // 256).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise _TooMuch("its values are floating-point numbers, whose white is not known")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            notes.append("transparent parts shown white")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode == "CMYK":
        notes.append("CMYK made RGB without its profile")
    return image.convert("RGB")
