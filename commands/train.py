"""``handscope train``: a LoRA, a textual inversion or all weights, from a folder of pictures with captions."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import Progress
from .options import at_least, load_model, model_options, names, number, seed, whole
from .verb import add_verb, say

if TYPE_CHECKING:
    from ..mitigations.learners import Learner

COUNTS = {
    "steps": (1000, "of the optimiser"),
    "batch": (4, "pictures in one forward of one process"),
    "accumulate": (1, "forwards in one step"),
    "save_every": (250, "steps between checkpoints"),
}
NUMBERS = {
    "rate": (1e-4, "AdamW's learning rate"),
    "decay": (1e-4, "AdamW's weight decay"),
    "guidance": (3.5, "strength that a model with embedded guidance is told"),
    "dropout": (0.0, "share of captions that are left out"),
    "prior_weight": (1.0, "how much the loss on --prior counts"),
    "average": (0.0, "decay of a moving average of what is learnt, which is then what is saved; 0 for none"),
}


def add(verbs: Any) -> None:
    """Add ``train`` and what it can train."""
    text = "learn a mitigation from pictures with captions: lora, textual-inversion or dreambooth"
    train = add_verb(verbs, "train", _which, text)
    inner = train.add_subparsers(title="what to train", metavar="WHAT", required=True)

    verb = add_verb(inner, "lora", _train, "low-rank changes of the transformer, for load_lora_weights")
    verb.add_argument("--rank", type=at_least(1), default=16, help="of the changes (default 16)")
    verb.add_argument("--alpha", type=at_least(1), help="a layer changes by alpha / rank times B A (default: the rank)")
    layers = "attn.to_q,ff.net.2: ends of the names of linear layers (default: all of the blocks but norms)"
    verb.add_argument("--targets", type=names, metavar="LIST", help=layers)
    _options(verb)

    verb = add_verb(inner, "textual-inversion", _train, "a new word's vectors, for load_textual_inversion")
    verb.add_argument("--token", required=True, help="the new word, such as <good>; put before captions without it")
    verb.add_argument("--initial", required=True, metavar="WORD", help="the word that it begins as")
    verb.add_argument("--vectors", type=at_least(1), default=1, help="tokens that it stands for (default 1)")
    _options(verb)

    verb = add_verb(inner, "dreambooth", _train, "all weights of the transformer, with --prior so that a class is kept")
    _options(verb)


def _options(verb: argparse.ArgumentParser) -> None:
    """What all trainings have."""
    verb.add_argument("folder", metavar="FOLDER", help="pictures with captions: metadata.jsonl or .csv, or a .txt each")
    verb.add_argument("out", metavar="OUT", help="the folder that gets what is learnt, losses.csv and checkpoints")
    verb.add_argument("--column", help="of the folder's table, with the captions (default: prompt, text or caption)")
    verb.add_argument("--prior", metavar="FOLDER", help="pictures of the class, also with captions, to preserve it")
    for name, (usual, text) in COUNTS.items():
        verb.add_argument(_flag(name), type=at_least(1), default=usual, help=f"{text} (default {usual})")
    for name, (strength, text) in NUMBERS.items():
        verb.add_argument(_flag(name), type=number, default=strength, help=f"{text} (default {strength:g})")
    verb.add_argument("--schedule", default="constant", help="of the rate: constant, linear, cosine (default constant)")
    verb.add_argument("--warm-up", type=whole, default=0, help="steps in which the rate rises (default 0)")
    verb.add_argument("--weighting", default="logit_normal", metavar="WAY",
                      help="of times: logit_normal, mode, sigma_sqrt, cosmap, none (default logit_normal)")  # fmt: skip
    verb.add_argument("--precision", default="float32", help="of forwards: float32 or bfloat16 (default float32)")
    verb.add_argument("--checkpointing", action="store_true", help="compute activations again: slower, less memory")
    verb.add_argument("--seed", type=seed, default=0, help="of all random numbers (default 0)")
    verb.add_argument("--height", type=whole, help="in pixels (default: what the model was trained for)")
    verb.add_argument("--width", type=whole, help="in pixels (default: what the model was trained for)")
    verb.add_argument("--sample", action="append", default=[], metavar="PROMPT", help="draw it at the end")
    verb.add_argument("--sample-every", type=whole, default=0, help="steps between samples (default: the last only)")
    verb.add_argument("--sample-steps", type=at_least(1), default=20, help="steps that a sample takes (default 20)")
    verb.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights that are not learnt")
    model_options(verb, model="organism", device="cpu")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _which(arguments: argparse.Namespace, progress: Progress) -> None:
    """Never called: what is trained has to be named."""


def _train(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..mitigations.pictures import captioned
    from ..mitigations.settings import Training
    from ..mitigations.settings import names as settings

    training = Training(**{name: getattr(arguments, name) for name in settings()})
    pictures = captioned(arguments.folder, arguments.column)
    prior = captioned(arguments.prior, arguments.column) if arguments.prior else []
    from ..mitigations.train import LOSSES, Samples, own_device, train

    arguments.device = own_device(arguments.device)
    learner = _learner(arguments)
    samples = Samples(tuple(arguments.sample), arguments.sample_steps)
    out = Path(arguments.out)
    saved = train(
        learner,
        out,
        pictures,
        training,
        prior,
        samples,
        arguments.height,
        arguments.width,
        progress,
    )
    if saved:
        say("train", f"{training.steps} steps on {len(pictures)} pictures: {saved}; losses in {out / LOSSES}")


def _learner(arguments: argparse.Namespace) -> "Learner":
    """What the verb's name says, on a model that is loaded for it."""
    from ..mitigations.learners import DreamBooth, LoRA, TextualInversion

    if hasattr(arguments, "rank"):
        return LoRA(load_model(arguments), arguments.rank, arguments.alpha, arguments.targets, arguments.seed)
    if hasattr(arguments, "token"):
        return TextualInversion(load_model(arguments), arguments.token, arguments.initial, arguments.vectors)
    arguments.dtype = arguments.dtype or "float32"
    return DreamBooth(load_model(arguments))
