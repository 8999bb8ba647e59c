"""``handscope anatomy``: score the hands of pictures, and measure how far a score can be trusted."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HandscopeError
from ..progress import Progress
from ..stages import ANATOMY
from .options import share
from .verb import add_verb, remark, say, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..anatomy.judge.calibrate import Calibrated
    from ..anatomy.judge.calibration import Calibration
    from ..anatomy.judge.labels import Labelled
    from ..anatomy.judge.scoring import Scores
    from ..anatomy.judge.stage import Read
    from ..anatomy.read.pictures import Found

METHODS = ("calibrated", "any-violation", "paper")
NAMED = 5  # skipped files, and groups, that are named on the terminal; all are in the tables


def add(verbs: Any) -> None:
    """Add ``anatomy score`` and ``anatomy calibrate``."""
    group: argparse.ArgumentParser = verbs.add_parser(
        ANATOMY.name, help=ANATOMY.help, description=f"{ANATOMY.name}: {ANATOMY.help}."
    )
    inner = group.add_subparsers(title="what to do", metavar="WHAT", required=True)

    verb = add_verb(inner, "score", _score, "a verdict with reasons on every hand, as tables and contact sheets")
    verb.add_argument(
        "pictures",
        nargs="+",
        metavar="FOLDER|IMAGE",
        help="pictures, or folders of them; prompts in a metadata.jsonl beside them, as in a run's samples, are read",
    )
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="where tables and sheets are written")
    verb.add_argument(
        "--method",
        choices=METHODS,
        default="calibrated",
        help="paper is the published score, which passes every single fault (default calibrated)",
    )
    verb.add_argument(
        "--calibration",
        metavar="FILE",
        help="of `anatomy calibrate`; or general, renders or organism, which are shipped (default general)",
    )
    _networks(verb)
    verb.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="a CSV with path, x0, y0, x1, y1 in pixels, a row a box: hands that another detector, or a person, found",
    )
    verb.add_argument(
        "--max-hands", type=int, default=2, metavar="N", help="most hands a picture; the surest are kept (default 2)"
    )
    verb.add_argument(
        "--fiftyone", action="store_true", help="also write fiftyone/data.json and labels.json, which FiftyOne imports"
    )

    text = "measure how far each method agrees with a person's labels, and fit `calibrated` to them"
    verb = add_verb(inner, "calibrate", _calibrate, text)
    verb.add_argument(
        "labels", type=Path, metavar="RUN|CSV", help="a labelled run, or a CSV with path, label and group"
    )
    verb.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where calibration.json, tables and a figure are written"
    )
    verb.add_argument(
        "--false-alarms",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="of the good hands that may be called implausible, which sets the threshold (default 0.05)",
    )
    _networks(verb)


def _networks(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--networks", choices=("full", "lite"), default="full", help="lite is faster and less exact (default full)"
    )
    verb.add_argument(
        "--search",
        choices=("thorough", "plain"),
        default="thorough",
        help="plain looks once, as MediaPipe does, and misses more malformed hands (default thorough)",
    )


def _score(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..anatomy.judge.calibration import Calibration
    from ..anatomy.judge.stage import score_files
    from ..anatomy.read.pictures import find_pictures
    from .anatomy_known import pixels_by_metadata, raised_by_prompts

    calibration = Calibration.load(arguments.calibration) if arguments.calibration else None
    found = find_pictures(arguments.pictures, besides=arguments.out)
    if arguments.max_hands < 1:
        raise HandscopeError(f"Expected --max-hands of 1 and more, found {arguments.max_hands}.")
    scores, read, _ = score_files(
        found.pictures,
        arguments.out,
        arguments.method,
        calibration=calibration,
        networks=arguments.networks,
        search=arguments.search,
        max_hands=arguments.max_hands,
        raised=raised_by_prompts(found.pictures),
        boxes=_boxes(arguments.boxes, found.pictures) if arguments.boxes else None,
        pixels=pixels_by_metadata(found.pictures),
        progress=progress,
    )
    if arguments.fiftyone:
        _write_fiftyone(arguments.out)
    if arguments.json:
        show("", **json.loads((arguments.out / "scores.json").read_text(encoding="utf-8")))
        return
    say("score", _summary(scores))
    if calibration is not None:
        say("rate", _corrected(scores, calibration))
    _say_skipped(found, read)
    say("", f"tables and sheets are in {arguments.out}")


def _write_fiftyone(out: Path) -> None:
    import json

    from ..anatomy.integrations.fiftyone import fiftyone_labels
    from ..files import atomic

    document = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    for name, part in zip(("data", "labels"), fiftyone_labels(document)):
        with atomic(out / "fiftyone" / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(part, indent=1) + "\n", "utf-8")


def _boxes(path: Path, pictures: "Sequence[Path]") -> dict[Path, list[list[float]]]:
    """The boxes of a file by the pictures that are looked at."""
    from ..anatomy.read.boxes import read_boxes

    given = read_boxes(path)
    boxes = {picture: given[picture.resolve()] for picture in pictures if picture.resolve() in given}
    if not boxes:
        raise HandscopeError(
            f"{path} has boxes for none of the {len(pictures)} pictures: its paths are read from its own folder."
        )
    return boxes


def _summary(scores: "Scores") -> str:
    said = [verdict.outcome for verdict in scores.verdicts]
    hands, bad, unknown = len(said), said.count("implausible"), said.count("cannot tell")
    pictures, outcomes = scores.examined.pictures, scores.outcomes()
    flagged, missed = outcomes.count("implausible"), outcomes.count("undetected")
    text = f"{bad} of {hands} hands are implausible by {scores.method}"
    text += f", of {unknown} it cannot tell; " if unknown else "; "
    if not missed:
        return text + f"{flagged} of {pictures} pictures hold one, and a hand was found in all of them"
    return text + (
        f"{flagged} of {pictures} pictures hold one; in {missed} no hand was found, so that the share of pictures with "
        f"an implausible hand is {flagged / pictures:.1%} if those are sound, and {(flagged + missed) / pictures:.1%} "
        "if they are not"
    )


def _corrected(scores: "Scores", calibration: "Calibration") -> str:
    import numpy as np

    from ..analysis.statistics.verdicts import Counts, corrected_rate

    known = calibration.trust.get(scores.method, {}).get("counts")
    hands, bad = len(scores.verdicts), sum(verdict.plausible is False for verdict in scores.verdicts)
    if not known or not hands:
        return "there is nothing to correct the share of flagged hands by"
    flagged = [verdict.plausible is False for verdict in scores.verdicts]
    rate, low, high = corrected_rate(flagged, scores.examined.hands.image.numpy(), Counts(np.array(known, float)))
    if rate != rate:
        return f"{scores.method} flags good hands as often as bad ones, so that its share cannot be corrected"
    return (
        f"{bad / hands:.1%} of the hands that were found are flagged; with the error of {scores.method} on the "
        f"labelled hands taken off, {rate:.1%} ({low:.1%} to {high:.1%}) are bad, if it errs as often on these"
    )


def _say_skipped(found: "Found", read: "Read") -> None:
    from ..anatomy.read.pictures import shown

    for one in read.skipped[:NAMED]:
        say("skipped", f"{shown(one.path)}: {one.reason}")
    if len(read.skipped) > NAMED:
        say("skipped", f"and {len(read.skipped) - NAMED} more, named in skipped.csv")
    if found.others:
        first = shown(found.others[0].name)
        say("others", f"{len(found.others)} files are not pictures by their names, {first} among them")


def _calibrate(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..anatomy.judge.calibrate import calibrate
    from ..anatomy.judge.stage import examine_files
    from ..anatomy.read.pictures import find_pictures, shown
    from ..files import atomic, sha256
    from .anatomy_known import labels_of, pixels_by_metadata

    labels = labels_of(arguments.labels)
    table = labels.table.set_index("path")
    found = find_pictures(table.index)
    boxes = labels.boxes()
    read = examine_files(
        found.pictures,
        arguments.out,
        networks=arguments.networks,
        search=arguments.search,
        raised=labels.raised(),
        boxes=boxes,
        pixels=pixels_by_metadata(found.pictures),
        progress=progress,
    )
    _say_skipped(found, read)
    known = table.loc[read.paths]
    source = arguments.labels / "labels.sqlite" if arguments.labels.is_dir() else arguments.labels
    result = calibrate(
        read.examined,
        known["bad"].to_numpy(bool),
        known["group"].to_numpy(str),
        boxes=[_scaled(boxes.get(path), entry["scale"]) for path, entry in zip(read.paths, read.entries, strict=True)],
        provenance={
            "labels": str(arguments.labels),
            "labels_sha256": sha256(source),
            "pictures": len(read.paths),
            "unsure_left_out": labels.unsure,
            "grouped": labels.grouped,
            "networks": arguments.networks,
            "search": arguments.search,
        },
        alarms=arguments.false_alarms,
    )
    result.calibration.save(arguments.out / "calibration.json")
    written = {"agreement": result.agreement, "reliability": result.curve, "rates": result.rates}
    for name, part in (written | {"groups": result.groups}).items():
        with atomic(arguments.out / f"{name}.csv") as temporary:
            part.to_csv(temporary, index=False)
    held_out = result.held_out.assign(path=[shown(read.paths[place]) for place in result.held_out["place"]])
    with atomic(arguments.out / "held_out.csv") as temporary:
        held_out.drop(columns="place").to_csv(temporary, index=False)
    _draw_reliability(result, arguments.out)
    _say_agreement(result, labels)
    _say_groups(result)
    if result.warning:
        say("warning", result.warning)
    say("", f"calibration.json, tables and reliability.png are in {arguments.out}; to use it, run")
    remark(f"handscope anatomy score FOLDER --calibration {arguments.out / 'calibration.json'} --out DIR")


def _say_groups(result: "Calibrated") -> None:
    """The largest groups, as generators are; prompts are too many and too small to be read here."""
    for row in result.groups.head(NAMED).itertuples():
        parts = [f"{row.flagged:.0%} flagged", f"{row.bad} bad"]
        parts += [f"sensitivity {row.sensitivity:.2f}"] if row.bad else []
        parts += [f"specificity {row.specificity:.2f}"] if row.bad < row.n else []
        say("group", f"{row.group}: {row.n} hands, {', '.join(parts)}")
    if len(result.groups) > NAMED:
        say("group", f"and {len(result.groups) - NAMED} smaller ones, in groups.csv")


def _scaled(box: "Sequence[float] | None", scale: float) -> "list[float] | None":
    return None if box is None else [side * scale for side in box]


def _draw_reliability(result: "Calibrated", folder: Path) -> None:
    import matplotlib as mpl

    from ..figures import STYLE, figure, reliability, save

    with mpl.rc_context(STYLE):
        drawn = figure(4.6, 4.6)
        note = f"calibration error {result.error:.3f}, held out (n = {len(result.held_out)})"
        reliability(result.curve, drawn.add_subplot(), note=note)
        save(drawn, folder, "reliability")


def _say_agreement(result: "Calibrated", labels: "Labelled") -> None:
    for row in result.agreement.itertuples():
        if row.undetected != "left out":
            continue
        if row.method == "calibrated":
            groups = f"{row.groups} groups" if labels.grouped else "pictures as their own groups, since none are given"
            say(
                "hands",
                f"{row.bad} bad and {row.good} good ones found, in {groups}; not found: {row.undetected_bad:.1%} of "
                f"the bad and {row.undetected_good:.1%} of the good; {labels.unsure} unsure ones left out",
            )
        say(
            row.method,
            f"kappa {row.kappa:.2f} ({row.kappa_lo:.2f} to {row.kappa_hi:.2f}), sensitivity {row.sensitivity:.2f} "
            f"({row.sensitivity_lo:.2f} to {row.sensitivity_hi:.2f}), specificity {row.specificity:.2f} "
            f"({row.specificity_lo:.2f} to {row.specificity_hi:.2f})"
            + (f", AUC {row.auc:.2f} ({row.auc_lo:.2f} to {row.auc_hi:.2f}), held out" if row.auc == row.auc else ""),
        )
    for row in result.rates.itertuples():
        fixed = f"{row.corrected:.1%}" if row.corrected == row.corrected else f"none, since {row.why}"
        say("rate", f"labelled bad {row.labelled:.1%}; flagged by {row.method} {row.flagged:.1%}, corrected {fixed}")
