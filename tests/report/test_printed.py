"""A page that a reader prints from a dark screen is dark ink on white, and nothing of it lies beyond the sheet."""

from pathlib import Path

import pytest
from handscope import report

TEMPLATES = sorted(Path(report.__file__).parent.glob("*.html"))


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_dark_colours_and_narrow_widths_are_of_screens(template: Path) -> None:
    text = template.read_text(encoding="utf-8")
    assert text.count("@media") == text.count("@media screen and") + text.count("@media print") > 1
    assert "prefers-color-scheme: dark" in text and "@media print { :root { color-scheme: light; }" in text
