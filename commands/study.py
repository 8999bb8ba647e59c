"""``handscope study``: every stage from one YAML file; ``init`` begins such a file."""

import argparse
import re
from pathlib import Path
from typing import Any

from ..errors import HandscopeError
from ..progress import Progress
from ..stages import STAGES
from .options import crew_options, part
from .verb import add_verb, remark, say

TEMPLATE = Path(__file__).parent.parent / "datasets" / "template.yaml"
SUBJECT_TEMPLATE = TEMPLATE.with_name("template_subject.yaml")


def add(verbs: Any) -> None:
    """Add ``study`` and ``init``."""
    verb = add_verb(verbs, "study", _study, "run every stage of a study, and only what is missing of it")
    verb.add_argument("file", metavar="FILE.yaml", help="the study; datasets/demo.yaml is one, and init begins one")
    verb.add_argument(
        "--set", type=setting, action="append", default=[], metavar="KEY=VALUE", help="a key of the file, otherwise"
    )
    verb.add_argument("--dry-run", action="store_true", help="say what there is to do, and do nothing")
    names = [stage.name for stage in STAGES]
    verb.add_argument("--until", choices=names, metavar="STAGE", help="the last stage to run")
    verb.add_argument(
        "--part",
        nargs=2,
        metavar=("STAGE", "I/N"),
        help="one machine's part of one stage, generate 1/8 to 8/8, and nothing else; see handscope submit",
    )
    crew_options(verb)

    verb = add_verb(verbs, "init", _init, "write a study file to begin with, every key explained")
    verb.add_argument("file", metavar="FILE.yaml", help="the file to write")
    verb.add_argument("--model", default="organism", help="organism, a pipeline folder or a hub id (default organism)")
    verb.add_argument("--prompts", default="study", metavar="FILE", help="a text file with one prompt a line")
    verb.add_argument("--run", metavar="RUN", help="the run folder (default runs/NAME of the file)")
    verb.add_argument(
        "--subject",
        metavar="FILE",
        help="what is labelled: one that handscope brings, or a YAML file that says it, begun where it is missing",
    )


def _study(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..study import Study

    study = Study.from_yaml(arguments.file, dict(arguments.set))
    if arguments.dry_run:
        _say_left(study)
        return
    if arguments.part:
        name, shard = arguments.part
        try:
            study.part(name, part(shard), progress)
        except argparse.ArgumentTypeError as error:
            raise HandscopeError(f"--part {name} {shard}: {error}.") from None
        say(name, f"part {shard} is done")
        return
    ran = []
    for result in study.stages(progress, arguments.until):
        ran.append(result.ran)
        say(result.stage, result.summary if result.ran else f"complete: {result.summary}")
    if not any(ran):
        remark(f"Nothing to do: every stage of {study.folder} is complete.")
    if arguments.until is None:
        remark(f"The report is {(study.folder / 'report.html').resolve()}")


def _say_left(study: Any) -> None:
    study.check_size()
    begun = False
    for stage, todo in study.left():
        # What a stage reads is about to change where one before it has something to do.
        begun = begun or todo
        say(stage.name, f"to do: {stage.help}" if begun else "complete")


def _init(arguments: argparse.Namespace, progress: Progress) -> None:
    path = Path(arguments.file)
    if path.exists():
        raise HandscopeError(f"{path} is there already, and is left as it is: give another name.")
    import yaml

    from ..labeling.subject import DEFAULT
    from ..models.embedded import ORGANISMS

    subject = arguments.subject or DEFAULT
    begun = _begin_subject(subject, path.parent)
    automatic = arguments.model in ORGANISMS and subject == DEFAULT
    said = {
        "run": arguments.run or f"runs/{path.stem}",
        "model": arguments.model,
        "prompts": arguments.prompts,
        "subject": subject,
        "labels": "auto" if automatic else "existing",
    }
    lines = TEMPLATE.read_text(encoding="utf-8").splitlines(keepends=True)
    for place, line in enumerate(lines):
        key = line.partition(":")[0]
        if key in said:
            comment = line[line.index(" #") :] if " #" in line else "\n"
            lines[place] = yaml.safe_dump({key: said[key]}, allow_unicode=True, width=1000).rstrip("\n") + comment
    path.parent.mkdir(parents=True, exist_ok=True)
    if begun is not None:
        (path.parent / subject).write_text(begun, encoding="utf-8")
        say("init", f"{path.parent / subject}; say in it what is labelled, and how its verdicts are called")
    with path.open("x", encoding="utf-8") as file:
        file.writelines(lines)
    if subject != DEFAULT and arguments.prompts == "study":
        remark(f"Its prompts are the captions that handscope brings, which are not of {subject}: give your own there.")
    say("init", f"{path}; look through it, then: handscope study {path}")


def _begin_subject(subject: str, folder: Path) -> str | None:
    """What to write into a subject's file that is not there yet, beside the study; None where the subject is there.

    Raises
    ------
    HandscopeError
        There is no such subject, and `subject` is no name of a file of the same folder.
    """
    from ..labeling.subject import load_subject

    name = Path(subject)
    if (folder / name).is_file():
        load_subject(folder / name)
        return None
    if name.suffix not in (".yaml", ".yml") or len(name.parts) > 1:
        load_subject(subject)
        return None
    noun = re.sub(r"[^a-z0-9]+", " ", name.stem.lower()).strip() or "thing"
    text = SUBJECT_TEMPLATE.read_text(encoding="utf-8")
    return text.replace("NAME", re.sub(r"^[^a-z]+", "", noun.replace(" ", "_")) or "thing").replace("NOUN", noun)


def setting(text: str) -> tuple[str, Any]:
    import yaml

    from ..plain_yaml import PlainLoader

    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"expected a key and its value such as device=cuda, found {text!r}")
    try:
        return key.strip(), yaml.load(value, PlainLoader)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"expected a value as in the file behind {key}=, found {value!r}") from None
