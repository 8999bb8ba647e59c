"""``handscope generate``: prompts and seeds to images."""

import argparse
from typing import Any

from ..errors import HandscopeError
from ..progress import Progress
from ..run.design import DESIGNS
from ..stages import GENERATE
from .options import crew_options, load_model, model_options, number, part_option, seeds, whole
from .verb import add_stage, open_run, perform, say


def add(verbs: Any) -> None:
    """Add ``generate``."""
    verb = add_stage(verbs, GENERATE, _generate)
    verb.add_argument("--prompts", metavar="FILE", help="a text file with one prompt a line")
    verb.add_argument("--prompt", action="append", metavar="TEXT", help="one prompt; may be given more than once")
    verb.add_argument(
        "--seeds",
        type=seeds,
        default=[range(4)],
        metavar="LIST",
        help="0,1,2 or 0-11: samples of every prompt, each prompt from noises of its own (default 0-3)",
    )
    verb.add_argument(
        "--design",
        choices=DESIGNS,
        help="noises of each prompt's own, the same for the two prompts of a pair, or the same for all (default own)",
    )
    verb.add_argument(
        "--pair",
        action="append",
        nargs=2,
        default=[],
        metavar=("FIRST", "SECOND"),
        help="two prompts at the same noises, a paired design; may be given more than once",
    )
    verb.add_argument("--steps", type=whole, default=20, help="steps of the generation (default 20)")
    verb.add_argument("--guidance", type=number, default=3.5, help="FLUX's embedded guidance (default 3.5)")
    verb.add_argument("--height", type=whole, help="in pixels (default: what the model was trained for)")
    verb.add_argument("--width", type=whole, help="in pixels (default: what the model was trained for)")
    verb.add_argument("--batch-size", type=whole, default=16, help="samples in one call of the pipeline (default 16)")
    verb.add_argument(
        "--no-trajectories",
        action="store_true",
        help="keep images only: 11 MB less for each of FLUX's, and extract generates again",
    )
    verb.add_argument(
        "--subject",
        metavar="NAME",
        help="what will be labelled: a subject that handscope brings, or the path of its YAML file",
    )
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, bfloat16 elsewhere")
    part_option(verb)
    crew_options(verb)
    model_options(verb, model="organism", device="cpu")


def _generate(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..run.prompts import check_prompts, check_seeds, read_prompts

    prompts = [*(arguments.prompt or []), *(read_prompts(arguments.prompts) if arguments.prompts else [])]
    prompts = prompts or [prompt for pair in arguments.pair for prompt in pair]
    if not prompts:
        raise HandscopeError("Expected at least one prompt: give --prompts FILE, --prompt TEXT or --pair.")
    check_prompts(prompts)
    check_seeds(seed for span in arguments.seeds for seed in (span[0], span[-1]))
    settings = {name: getattr(arguments, name) for name in ("steps", "guidance", "height", "width", "batch_size")}
    settings |= {"prompts": prompts, "seeds": [seed for span in arguments.seeds for seed in span]}
    settings |= {"design": arguments.design or ("paired" if arguments.pair else None), "pairs": arguments.pair}
    if arguments.no_trajectories:
        settings |= {"trajectories": False}
    from ..labeling.subject import load_subject, set_subject

    subject = load_subject(arguments.subject) if arguments.subject else None
    model = load_model(arguments)
    run = open_run(arguments)
    if subject is not None:
        set_subject(run, subject)
    if arguments.shard is not None:  # a part is not the stage, and is not entered as one
        GENERATE.do()(model, run, **settings, shard=arguments.shard, progress=progress)
        say("generate", GENERATE.describe(run))
        return
    perform(GENERATE, run, settings, lambda: GENERATE.do()(model, run, **settings, progress=progress), arguments)
