"""``handscope models``: which models can be read, and whether one is read right."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import HandscopeError
from ..progress import Progress
from .options import number, whole
from .verb import add_verb, say, show

TESTED = "diffusers 0.42.1"
"""On which versions the tests run the tiny models of every family (constraints.txt)."""


def add(verbs: Any) -> None:
    """Add ``models`` and ``models check``."""
    models = add_verb(verbs, "models", _list, "which models can be read, and how far; check tries one")
    inner = models.add_subparsers(title="what to do", metavar="WHAT")
    text = "draw a few steps with a model, and hold all that is said of its blocks against it; status 1 if any is wrong"
    verb = add_verb(inner, "check", _check, text)
    verb.add_argument("folder", metavar="FOLDER", help="a pipeline's folder, a hub id, or organism")
    verb.add_argument("--height", type=whole, help="in pixels; not the width (default: two thirds of it)")
    verb.add_argument("--width", type=whole, help="in pixels (default: what the model was trained for)")
    verb.add_argument("--steps", type=whole, default=3, help="steps that are drawn (default 3)")
    verb.add_argument("--guidance", type=number, default=3.5, help="as the model has it (default 3.5)")
    verb.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1 (default cpu)")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, bfloat16 elsewhere")


def _list(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..models.registry import families

    rows = [("family", "transformer", "blocks", "what is supported")]
    for family in families():
        kinds = ", ".join(f"{blocks.kind}.N" for blocks in family.lists)
        rows.append((family.name, family.transformer, kinds, "all stages" if family.pipelines else "capture and edits"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[3]]) for row in rows]
    show("\n".join(lines), families=[dict(zip(rows[0], row)) for row in rows[1:]])
    say("models", f"{_tested()}; handscope models check FOLDER tries a model of your own")


def _tested() -> str:
    import diffusers
    import torch

    here = f"here are diffusers {diffusers.__version__} and torch {torch.__version__}"
    return f"tested on tiny models of random weights with {TESTED}, {here}"


def _check(arguments: argparse.Namespace, progress: Progress) -> int:
    size = (arguments.height, arguments.width)
    if (size[0] is None) != (size[1] is None):
        raise HandscopeError("Expected both --height and --width, or neither, found one.")
    from ..extract.family_check import check_model, check_pipeline
    from ..models.checkpoints import find, open_any
    from ..models.model import load
    from ..models.registry import families, pipeline_name

    asked = {"steps": arguments.steps, "size": None if size[0] is None else size}
    name = pipeline_name(find(arguments.folder, None, None).folder)
    loaded = any(name in family.pipelines for family in families())
    if loaded:
        model = load(arguments.folder, arguments.device, arguments.dtype)
        checked = check_model(model, guidance=arguments.guidance, **asked)
    else:
        checked = check_pipeline(open_any(Path(find(arguments.folder, None, None).folder)), **asked)
    show(str(checked), **asdict(checked), passed=checked.passed)
    return 0 if checked.passed else 1
