"""The recipe of the organism, from the renderer to a saved `FluxPipeline`.

    python -m handscope.organism.training.train --work DIR [stage ...]

runs the stages render, autoencoder, latents, transformer, decoder and save, or those named. Each may be killed and
run again with the same command: it goes on where its last checkpoint in DIR stands. To use two cores well, start two
processes of one thread each:

    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m handscope.organism.training.train --work DIR
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from .codec import autoencoder
from .course import Crew
from .flow import transformer
from .latents import latents
from .recipe import SMALL, Recipe
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
        "--work", type=Path, required=True, metavar="DIR", help="where renders, checkpoints and logs live"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the pipeline folder that save writes (default: DIR/pipe)"
    )
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
    recipe, crew = replace(SMALL if given.small else Recipe(), **chosen), Crew()
    run: dict[str, Callable[[Path, Recipe, Crew], None]] = {
        "render": render,
        "autoencoder": autoencoder,
        "latents": latents,
        "transformer": transformer,
        "decoder": partial(autoencoder, decoder_only=True),
    }
    for stage in given.stages or STAGES:
        if stage == "save":
            save(given.work, recipe, crew, given.out, given.weights)
        elif stage != "decoder" or recipe.decoder_minutes:
            run[stage](given.work, recipe, crew)


if __name__ == "__main__":
    main()
