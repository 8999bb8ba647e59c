"""Options that several verbs share, and the types of their values."""

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import HandscopeError

if TYPE_CHECKING:
    from ..extract.models import Model
    from ..extract.run import Run


def model_options(verb: argparse.ArgumentParser, model: str | None = None, device: str | None = None) -> None:
    """Options that say which model is loaded and how; without a default they mean what the run was begun with."""
    verb.add_argument(
        "--model", default=model, help=f"organism, a FluxPipeline folder, or a hub id ({_default(model)})"
    )
    verb.add_argument("--revision", help="a commit, tag or branch of the hub")
    verb.add_argument("--device", default=device, help=f"cpu, cuda or cuda:1 ({_default(device)})")


def model_of(run: "Run", arguments: argparse.Namespace) -> "Model":
    """The model that the run was begun with, or the one that was named."""
    provenance = run.settings.get("provenance", {})
    name = arguments.model or provenance.get("name")
    if name is None:
        raise HandscopeError(f"{run.path / 'run.yaml'} does not say which model made the run: name it with --model.")
    from ..extract.models import load

    device = arguments.device or provenance.get("device", "cpu")
    dtype = run.settings.get("model", {}).get("dtype")
    return load(name, device, dtype, arguments.revision or provenance.get("revision"))


def statistics_options(verb: argparse.ArgumentParser, permutations: int) -> None:
    """Permutations, folds and the seed of both."""
    verb.add_argument(
        "--permutations",
        type=at_least(1),
        default=permutations,
        help=f"label permutations behind each null (default {permutations})",
    )
    verb.add_argument(
        "--folds", type=at_least(2), default=5, help="folds of the cross-validation, grouped by prompt (default 5)"
    )
    verb.add_argument("--seed", type=at_least(0), default=0, help="of folds, permutations and bootstrap (default 0)")


def at_least(least: int) -> Callable[[str], int]:
    """A type of whole numbers."""

    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
        return int(text)

    return whole


def names(text: str) -> list[str]:
    """Names with commas between them."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"expected names or numbers with commas between them, found {text!r}")
    return found


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    try:
        return [int(name) for name in names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected whole numbers such as 20,12,3, found {text!r}") from None


def seeds(text: str) -> list[range]:
    """Seeds and spans of seeds: ``0,1,2`` or ``0-11``."""
    spans = [re.fullmatch(r"(-?\d+)(?:-(\d+))?", part) for part in names(text)]
    ranges = [range(int(span[1]), int(span[2] or span[1]) + 1) for span in spans if span]
    if not spans or None in spans or not all(ranges):
        raise argparse.ArgumentTypeError(f"expected seeds such as 0,1,2 or 0-11, found {text!r}")
    return ranges


def _default(value: str | None) -> str:
    return "default: as the run was begun" if value is None else f"default {value}"
