"""Options that several verbs share, and the types of their values."""

import argparse
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import HandscopeError
from ..models.quantise import QUANTISATIONS
from ..parallel import workers
from ..run.prompts import LAST_SEED

if TYPE_CHECKING:
    from ..models.model import Model
    from ..run.folder import Run


def model_options(verb: argparse.ArgumentParser, model: str | None = None, device: str | None = None) -> None:
    """Options that say which model is loaded and how; without a default they mean what the run was begun with."""
    group = verb.add_argument_group("model")
    group.add_argument(
        "--model", default=model, help=f"organism, a pipeline folder, a hub id, or a file ({_default(model)})"
    )
    group.add_argument("--revision", help="a commit, tag or branch of the hub")
    group.add_argument("--base", help="for a single-file transformer: the folder or hub id of the rest of the pipeline")
    group.add_argument("--device", default=device, help=f"cpu, cuda or cuda:1 ({_default(device)})")
    group.add_argument(
        "--offload",
        choices=("none", "model", "sequential"),
        default="none" if model else None,
        help=f"keep weights on the CPU: a model, or a layer, at a time on the device ({_default(model and 'none')})",
    )
    group.add_argument(
        "--quantisation",
        choices=QUANTISATIONS,
        help=f"the transformer's weights in fewer bits ({_default(model and 'as they are saved')})",
    )


def load_model(arguments: argparse.Namespace) -> "Model":
    """The model that the options name."""
    from ..models.model import load

    return load(
        arguments.model,
        arguments.device,
        arguments.dtype,
        arguments.revision,
        offload=None if arguments.offload == "none" else arguments.offload,
        quantisation=arguments.quantisation,
        base=arguments.base,
    )


def model_of(run: "Run", arguments: argparse.Namespace) -> "Model":
    """The model that the run was begun with, loaded in the same way, or the one that was named."""
    begun = run.settings.get("provenance", {})
    if arguments.model is None and begun.get("name") is None:
        raise HandscopeError(f"{run.path / 'run.yaml'} does not say which model made the run: name it with --model.")
    # A revision and a base are of the model that the run names, and of no other.
    for option in ("model", "revision", "base") if arguments.model is None else ():
        if getattr(arguments, option) is None:
            setattr(arguments, option, begun.get("name" if option == "model" else option))
    arguments.dtype = run.settings.get("model", {}).get("dtype")
    arguments.quantisation = arguments.quantisation or begun.get("quantisation")
    arguments.device = arguments.device or begun.get("device", "cpu")
    if not arguments.device.startswith("cpu"):
        arguments.offload = arguments.offload or begun.get("offload")
    return load_model(arguments)


def crew_options(verb: argparse.ArgumentParser, ray: bool = True) -> None:
    """Options that say who does the work; results are the same whoever does."""
    verb.add_argument(
        "--workers",
        type=at_least(1),
        metavar="N",
        help="processes that work at a time (default: one a core; one for a model on a GPU, or one of several GB)",
    )
    if ray:
        verb.add_argument(
            "--ray",
            metavar="auto|ADDRESS",
            help="let a Ray cluster do it: the one of this machine, or the one at an address (see docs/scale.md)",
        )
        verb.add_argument(
            "--per-gpu", type=at_least(1), default=1, metavar="N", help="workers of a cluster on one GPU (default 1)"
        )


@contextmanager
def crew_of(arguments: argparse.Namespace) -> Iterator[None]:
    """Those who do the work of the block."""
    number, address = getattr(arguments, "workers", None), getattr(arguments, "ray", None)
    if address is not None:
        from ..cluster.on_ray import ray_cluster

        with ray_cluster(address, number, arguments.per_gpu) as cluster, workers(cluster):
            yield
    elif number is not None:
        with workers(number):
            yield
    else:
        yield


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
    verb.add_argument("--seed", type=seed, default=0, help="of folds, permutations and bootstrap (default 0)")


def at_least(least: int) -> Callable[[str], int]:
    """A type of whole numbers."""

    def read(text: str) -> int:
        number = whole(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, found {text!r}")
        return number

    return read


def seed(text: str) -> int:
    """A seed."""
    number = whole(text)
    if not 0 <= number <= LAST_SEED:
        raise argparse.ArgumentTypeError(f"expected a seed from 0 to {LAST_SEED}, found {text!r}")
    return number


def whole(text: str) -> int:
    """A whole number, written in digits: `int` takes 1_000 for a thousand."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text.strip()):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {text!r}")
    return int(text)


def number(text: str) -> float:
    """A number, written in digits: `float` takes 3_5 for thirty-five, and nan for a number."""
    if not re.fullmatch(r"-?[0-9]+(\.[0-9]*)?(e-?[0-9]{1,2})?", text.strip().lower()):
        raise argparse.ArgumentTypeError(f"expected a number such as 3.5, found {text!r}")
    return float(text)


def share(text: str) -> float:
    """A share between 0 and 1, neither of them."""
    value = number(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"a share between 0 and 1, such as 0.05, not {text}")
    return value


def names(text: str) -> list[str]:
    """Names with commas between them."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"expected names or numbers with commas between them, found {text!r}")
    return found


def numbers(text: str) -> list[int]:
    """Whole numbers and spans of them, either way, with commas between: ``20,12,3`` or ``20-15,1``."""
    found: list[int] = []
    for name in names(text):
        span = re.fullmatch(r"([0-9]{1,4})-([0-9]{1,4})", name)
        try:
            first, last = map(int, span.groups()) if span else [whole(name)] * 2
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(
                f"expected whole numbers such as 20,12,3 or 20-15, found {text!r}"
            ) from None
        found += range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return found


def part_option(verb: argparse.ArgumentParser) -> None:
    """The option that divides a stage between machines."""
    verb.add_argument(
        "--shard",
        type=part,
        metavar="I/N",
        help="this machine's part, 1/8 to 8/8: every machine divides the samples alike, by their names",
    )


def part(text: str) -> tuple[int, int]:
    """A part of a division, ``1/8`` to ``8/8``."""
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"expected a part such as 1/8, the first of eight, found {text!r}")
    return int(found[1]), int(found[2])


def seeds(text: str) -> list[range]:
    """Seeds and spans of seeds: ``0,1,2`` or ``0-11``."""
    spans = [re.fullmatch(r"(-?[0-9]+)(?:-([0-9]+))?", part) for part in names(text)]
    ranges = [range(int(span[1]), int(span[2] or span[1]) + 1) for span in spans if span]
    if not spans or None in spans or not all(ranges):
        raise argparse.ArgumentTypeError(f"expected seeds such as 0,1,2 or 0-11, found {text!r}")
    return ranges


def _default(value: str | None) -> str:
    return "default: as the run was begun" if value is None else f"default {value}"
