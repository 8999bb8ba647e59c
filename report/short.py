"""A page of findings, some figures and some tables: shorter than the report of a run, and as whole in one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from .. import __version__
from ..files import atomic


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn to a file, what it shows for who cannot see it, and what stands below it."""

    path: Path
    alt: str
    caption: str

    @property
    def picture(self) -> str:
        return embedded(self.path)


@dataclass(frozen=True)
class Shown:
    """A table of texts."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def write_page(
    path: Path,
    title: str,
    made: str,
    findings: Sequence[Any],
    figures: Sequence[Picture],
    tables: Sequence[Shown],
    provenance: Sequence[tuple[str, str]],
    organism: bool,
) -> None:
    """Write a page, whole or not at all.

    Parameters
    ----------
    findings : with question, brief, detail and mark
    made : what it is made from, in words
    organism : whether what is said holds for the organism
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("short.html").render(
        title=title, made=made, findings=findings, figures=figures, tables=tables, provenance=provenance,
        organism=organism, version=__version__,
    )  # fmt: skip
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def embedded(file: Path | io.BytesIO) -> str:
    """A picture for a page that stands alone: WebP without loss, half of what PNG takes."""
    small = io.BytesIO()
    with Image.open(file) as image:
        image.convert("RGB").save(small, "WEBP", lossless=True, method=2)
    return f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"


def flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines of a table: ``{"a": {"b": 1}}`` is ``[("a.b", "1")]``."""
    lines: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            lines += flat(value, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", "–" if value is None else str(value)))
    return lines
