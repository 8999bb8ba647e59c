"""The recipe of an organism, from the renderer to a saved pipeline.

    python -m handscope.organism.training.train --organism NAME [--work DIR] [stage ...]

runs the stages render, autoencoder, latents, transformer, decoder and save, or those named. All organisms but the
first take the autoencoder that ships and train none. The pipeline goes where `handscope.load(NAME)` looks for it, if
the organism does not ship, else to DIR/NAME/pipe. Organisms trained in one DIR share renders and latents.

Each stage may be killed and run again with the same command: it goes on where its last checkpoint in DIR stands. To use
two cores well, start two processes of one thread each:

    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m handscope.organism.training.train --work DIR
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...models.embedded import NAME, ORGANISMS, made_in
from .codec import autoencoder
from .course import Crew
from .flow import transformer
from .folders import Folders
from .latents import latents
from .recipe import Recipe, recipe_of
from .save import save
from .shards import render

STAGES = ("render", "autoencoder", "latents", "transformer", "decoder", "save")


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m handscope.organism.training.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"any of {', '.join(STAGES)}; all by default")
    parser.add_argument(
        "--organism", choices=ORGANISMS, default=NAME, metavar="NAME", help=f"one of {', '.join(ORGANISMS)}"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=made_in() / "training",
        metavar="DIR",
        help="where renders, checkpoints and logs live (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the pipeline folder that save writes")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="the snapshot that save takes (default: the last checkpoint)"
    )
    parser.add_argument(
        "--small", action="store_true", help="seconds instead of hours: to test the recipe, not to draw hands"
    )
    settings = {name: kind for name, kind in Recipe.__annotations__.items() if kind in (int, float, bool)}
    for name, kind in settings.items():
        flag = "--" + name.replace("_", "-")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(flag, type=kind, metavar="N", help=f"default {getattr(Recipe(), name):g}")
    given = parser.parse_args(arguments)
    if unknown := [stage for stage in given.stages if stage not in STAGES]:
        parser.error(f"there is no stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    chosen = {name: getattr(given, name) for name in settings if getattr(given, name) is not None}
    organism = ORGANISMS[given.organism]
    recipe, crew = replace(recipe_of(organism, given.small), **chosen), Crew()
    work, out = Folders(given.work, organism), given.out
    if out is None and not (organism.ships or given.small):
        out = organism.folder
    run: dict[str, Callable[[Folders, Recipe, Crew], None]] = {
        "render": render,
        "autoencoder": autoencoder,
        "latents": latents,
        "transformer": transformer,
        "decoder": partial(autoencoder, decoder_only=True),
        "save": partial(save, out=out, weights=given.weights),
    }
    for stage in given.stages or STAGES:
        if stage in ("autoencoder", "decoder") and not work.trains_codec:
            continue
        if stage != "decoder" or recipe.decoder_steps:
            run[stage](work, recipe, crew)


if __name__ == "__main__":
    main()
