"""``handscope watch``: what a run's probes say of every token while an image is being drawn."""

import argparse
from typing import Any

from ..progress import Progress
from .options import model_of, model_options, names, seed
from .verb import add_verb, open_run, say


def add(verbs: Any) -> None:
    """Add ``watch``."""
    verb = add_verb(verbs, "watch", _watch, "a run's probes on every token, while an image is being drawn", run=True)
    verb.add_argument("--prompt", required=True, metavar="TEXT", help="what to draw")
    verb.add_argument("--seed", type=seed, default=0, help="of the initial noise (default 0)")
    verb.add_argument("--blocks", type=names, metavar="LIST", help="double.1,single.3 (default: the best of the run)")
    model_options(verb)


def _watch(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    from ..figures import save
    from ..probes.choose import saved_probes
    from ..probes.watch import watch
    from ..run.folder import sample_id
    from ..run.prompts import check_prompts

    check_prompts([arguments.prompt])
    probes = saved_probes(run.probes_dir, arguments.blocks)
    model = model_of(run, arguments)
    kept = ("steps", "guidance", "height", "width")
    settings = {key: value for key, value in run.settings.get("generation", {}).items() if key in kept}
    seen = watch(model, probes, arguments.prompt, arguments.seed, **settings, progress=progress)
    name = f"watch_{sample_id(arguments.prompt, arguments.seed)}"
    path = save(seen.figure(), run.figures_dir, name)
    seen.gif(path.with_suffix(".gif"))
    say("watch", f"{', '.join(seen.blocks)} at {len(seen.steps)} steps in {path} and .gif")
