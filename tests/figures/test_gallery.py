"""The gallery shows every figure, as it is drawn today: from small stored results, against its own pictures.

Letters differ between versions of freetype, and with their widths the layout: what is drawn may lie three pixels away.
The changes below make 0.24 at least on matplotlib 3.11. Version 3.10 lays seven of the pictures out otherwise, by up to
a few pixels (0.34 to 1.0; the others 0.06 at most), so that nothing is compared there.
"""

import inspect
import runpy
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from handscope import figures
from packaging.version import Version
from PIL import Image
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter, uniform_filter

GALLERY = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "make_gallery.py"))
PLATES = {plate.name: plate for plate in GALLERY["PLATES"]}
ADVICE = "look at the figure, and if it is meant to be so: python docs/make_gallery.py"
OF_3_11 = pytest.mark.skipif(Version(matplotlib.__version__) < Version("3.11"), reason="another layout")
SHIFT, WINDOW, TOLERANCE = 3, 5, 0.1


def difference(drawn: Image.Image, stored: Image.Image) -> float:
    """What one picture shows and the other does not, 0 to 1, in the window of 5 × 5 pixels where that is most.

    A pixel of the one is held against all values of the other within three pixels, and the other way round.
    """
    if drawn.size != stored.size:
        return 1.0
    a, b = (gaussian_filter(np.asarray(one.convert("RGB"), float) / 255, (1, 1, 0)) for one in (drawn, stored))
    around = (2 * SHIFT + 1, 2 * SHIFT + 1, 1)
    worst = 0.0
    for one, other in ((a, b), (b, a)):
        beyond = np.maximum(one - maximum_filter(other, around), minimum_filter(other, around) - one).clip(0)
        worst = max(worst, float(uniform_filter(beyond.max(-1), WINDOW).max()))
    return worst


def now(name: str, change: tuple[str, str] = ("", ""), **settings: object) -> Image.Image:
    """A picture as it is drawn now, with a change of its code, or with other settings of matplotlib."""
    plate = PLATES[name]
    assert change[0] in plate.code
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "STYLE", figures.STYLE | settings)
        changed = type(plate)(plate.name, "", "", plate.code.replace(*change), plate.size, plate.panels)
        return GALLERY["picture"](GALLERY["drawn"](changed))


def stored(name: str) -> Image.Image:
    return Image.open(GALLERY["FOLDER"] / f"{name}.webp")


def test_every_figure_is_in_the_gallery() -> None:
    public = {name for name in figures.__all__ if inspect.isfunction(getattr(figures, name))}
    shown = {name for name in public if any(f"figures.{name}(" in plate.code for plate in PLATES.values())}
    assert public - shown == {"figure", "paper", "save"}  # these draw nothing


def test_the_page_is_that_of_the_plates() -> None:
    assert GALLERY["PAGE"].read_text(encoding="utf-8") == GALLERY["page"](), "run python docs/make_gallery.py"
    pictures = {path.stem: path for path in GALLERY["FOLDER"].iterdir()}
    assert set(pictures) == set(PLATES)
    assert sum(path.stat().st_size for path in pictures.values()) < 1_500_000


@OF_3_11
@pytest.mark.parametrize("name", PLATES)
def test_a_figure_is_drawn_as_it_is_shown(name: str) -> None:
    assert difference(now(name), stored(name)) < TOLERANCE, ADVICE


CHANGES = {
    "another colour": ("grid", ("label=", 'cmap="RdBu", label=')),
    "a value": ("grid", ("figures.grid(", "table.loc[table.index[0], 'within_auc'] += 0.1\nfigures.grid(")),
    "no hatching": ("grid", ('"within_q"', "None")),
    "a line less": ("curves", ('("x0", "image", "position")', '("x0", "image")')),
    "another label": ("curves", ("AUC within prompts", "AUC")),
    "a point moved": ("effects", ("figures.effects(", "table.loc[3, 'dz'] *= 0.7\nfigures.effects(")),
    "a mark less": ("power_curve", (", at=[256]", "")),
}


@OF_3_11
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_figure_is_seen(change: str) -> None:
    name, code = CHANGES[change]
    assert difference(now(name, code), stored(name)) > TOLERANCE


@OF_3_11
@pytest.mark.parametrize("name", ["grid", "effects"])
def test_letters_a_little_wider_are_not_seen(name: str) -> None:
    assert difference(now(name, **{"font.size": 1.01 * figures.STYLE["font.size"]}), stored(name)) < TOLERANCE
