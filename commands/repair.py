"""``handscope repair``: what is malformed in pictures, painted anew by its depth."""

import argparse
from pathlib import Path
from typing import Any

from ..mitigations.finding import FINDERS, finder
from ..progress import Progress
from .options import load_model, model_options, number, seed, whole
from .verb import add_verb, say


def add(verbs: Any) -> None:
    """Add ``repair``."""
    text = "paint what is found in pictures anew by its depth, through a ControlNet for inpainting"
    verb = add_verb(verbs, "repair", _repair, text)
    verb.add_argument("folder", metavar="FOLDER", help="pictures with captions, such as RUN/samples")
    verb.add_argument("out", metavar="OUT", help="the folder that gets the pictures and repair.csv")
    verb.add_argument("--network", metavar="FOLDER",
                      help="the depth ControlNet, or organism-depth; without one, depth plays no part")  # fmt: skip
    verb.add_argument("--column", help="of the folder's table, with the captions (default: prompt, text or caption)")
    verb.add_argument("--find", choices=FINDERS, default="anatomy",
                      help="by landmarks in any picture, or by the organism's caption (default anatomy)")  # fmt: skip
    verb.add_argument("--depth", metavar="FOLDER", help="depth images of your own, by the pictures' names")
    verb.add_argument("--strength", type=number, default=1.0, help="of the noise that is gone back to (default 1)")
    verb.add_argument("--control", type=number, default=0.55, help="how strongly depth acts (default 0.55)")
    verb.add_argument("--steps", type=whole, default=20, help="steps of the generation (default 20)")
    verb.add_argument("--guidance", type=number, default=3.5, help="FLUX's embedded guidance (default 3.5)")
    verb.add_argument("--seed", type=seed, default=0, help="of the noise (default 0)")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, bfloat16 elsewhere")
    model_options(verb, model="organism", device="cpu")


def _repair(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..mitigations.painting import check_paints, load_network, network_folder
    from ..mitigations.pictures import captioned
    from ..mitigations.repair_folder import repair_folder

    pictures = captioned(arguments.folder, arguments.column)
    model = load_model(arguments)
    check_paints(model.family)
    network = load_network(model, network_folder(arguments.network)) if arguments.network else None
    table = repair_folder(
        model,
        Path(arguments.out),
        pictures,
        finder(arguments.find),
        network,
        Path(arguments.depth) if arguments.depth else None,
        strength=arguments.strength,
        control=arguments.control,
        steps=arguments.steps,
        guidance=arguments.guidance,
        seed=arguments.seed,
        progress=progress,
    )
    refused = table[table["refused"] != ""]
    say("repair", f"{len(table) - len(refused)} of {len(table)} pictures: {arguments.out}, refused in repair.csv")

