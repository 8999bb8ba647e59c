"""The general calibration: how the picture head joins the older evidence, and from where a verdict is given.

    python bench/validity/anatomy_thresholds.py FOLDER CSV WORK [--cache DIR] [--write]

FOLDER and CSV are pictures as for `anatomy_outside.py`, WORK is the folder of `handscope.anatomy.planted.train`. Every
number is of heads that did not learn from a picture's source. False alarms are held on the sound hands of all pictures.
Faults are planted in hands of at least 80 pixels and looked for by the whole
score; among these the share that passes is held. ``--write`` writes anatomy/judge/calibrated.json.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from anatomy_outside import GENERATED, SOUND, listed, say
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.rates import wilson
from handscope.anatomy.judge.calibrate import threshold_at
from handscope.anatomy.judge.calibration import SHIPPED, Calibration
from handscope.anatomy.judge.reasons import outside_limits
from handscope.anatomy.judge.stage import examine_files, weights_hash
from handscope.anatomy.measure.examine import Examined, examine
from handscope.anatomy.measure.picture import PictureHead, picture_features
from handscope.anatomy.planted.canvas import Canvas
from handscope.anatomy.planted.faults import elsewhere, plant, unharmed
from handscope.anatomy.planted.rank import fit, folds_of_sources
from handscope.anatomy.planted.train import FOLDS, L2, learnt
from handscope.anatomy.read.detect import detect
from handscope.anatomy.read.pictures import Picture, read_picture
from handscope.files import atomic

PICTURE, OLDER, ASKED = 4.0, 0.3, 1.0  # how much the picture head's log-odds count, and the older evidence's: what a
# hand shows, and how it differs from the raised digits that were asked for
COUNTED = 1.0  # log-odds of more than five digits against five from which a hand is implausible
PASSING = 0.25  # the probability below which a hand passes; log-odds are scaled so that it is this
ALARMS = 0.05  # of sound hands that are called implausible, at most
PASSES = 0.2  # of planted faults that are called plausible, at most
PLANTED = ("six", "missing", "fused", "bent", "melted", "tangled")
STRANGE = 0.02  # of sound hands that are said to be unlike those learnt from
LARGE, RAISED, OF_SOURCE = 80.0, 3, 8  # pixels, digits, hands of one source in which faults are planted


class Heads:
    """Heads that did not see a source, by its name; for a source that none has seen, all of them together."""

    def __init__(self, work: Path) -> None:
        pairs = learnt(work, work, work, 100 * len(list(work.glob("pairs_*.pt"))), 0)
        folds = folds_of_sources(pairs.source, FOLDS)
        kept = work / "heads.pt"
        if not kept.exists():
            made = [vars(fit(pairs, np.flatnonzero(folds != fold), L2)) for fold in range(FOLDS)]
            with atomic(kept) as temporary:
                torch.save(made, temporary)
        self.heads = [PictureHead(**one) for one in torch.load(kept, weights_only=True)]
        self.fold = dict(zip(pairs.source, folds.tolist()))

    def of(self, source: str) -> list[PictureHead]:
        return [self.heads[self.fold[source]]] if source in self.fold else self.heads

    def __call__(self, seen: torch.Tensor, source: str) -> np.ndarray:
        """Log-odds of features (2, m, d)."""
        return torch.stack([head(seen)[0].mean(0) for head in self.of(source)]).mean(0).double().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("csv", type=Path, metavar="CSV")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--cache", type=Path, default=Path("outside"), metavar="DIR")
    parser.add_argument("--write", action="store_true", help="write anatomy/judge/calibrated.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    old, heads = weakened(Calibration.load("renders")), Heads(options.work)
    table = listed(options.folder, options.csv, GENERATED)
    real = of_pictures(table, heads, old, options.cache)
    made = of_planted(table, heads, old, options.cache)
    kinds, fault = real["kind"], made["fault"]
    logit = PICTURE * real["picture"] + real["older"]
    planted = PICTURE * made["picture"] + made["older"]
    sound = np.isin(kinds, SOUND)
    strange = threshold_at(real["strange"][sound], STRANGE)
    for one in (real, made):
        one["told"] = one["readable"] & (one["strange"] <= strange)
    able = np.where(real["counted"], np.inf, logit)
    high = max(alarm(np.where(real["told"], able, -np.inf)[kinds == kind]) for kind in SOUND)
    low = min(lowest(planted[(fault != "") & made["told"]]), high)
    # As `calibrated` does: what is counted is flagged, and what cannot be told is brought between the two.
    logit, planted = (
        np.where(one["told"], np.where(one["counted"], np.maximum(x, high), x), np.clip(x, low, high - 1e-6))
        for one, x in ((real, logit), (made, planted))
    )
    print(f"threshold {high:.2f}, passes below {low:.2f}")
    print("| | n | implausible | cannot tell | plausible | AUC of all | of the picture head | of the older evidence |")
    print("|---" * 8 + "|")
    same = fault == ""
    for name in ("", *PLANTED):
        areas = [(one[same], one[fault == name]) for one in (planted, made["picture"], made["older"])] if name else []
        row(f"planted: {name}" if name else "the same hands, no fault", planted[fault == name], low, high, areas)
    everything = [logit, real["picture"], real["older"]]
    for kind in (*SOUND, "malformed"):
        own = kinds == kind
        areas = [(part[sound], part[own]) for part in everything] if kind == "malformed" else []
        row(kind, logit[own], low, high, areas)
    for edge in ((0, 40), (40, 60), (60, 80), (80, 120), (120, 1e9)):
        own = (real["size"] >= edge[0]) & (real["size"] < edge[1]) & sound
        row(f"sound, {edge[0]:.0f} to {edge[1]:.0f} pixels", logit[own], low, high, [])
    if options.write:
        write(old, high, low, strange, {"pictures": real, "planted": made}, len(heads.fold))


def lowest(faulty: np.ndarray) -> float:
    """The log-odds below which a new planted fault lies with a chance of at most `PASSES`, if it is like these."""
    return -threshold_at(-faulty, PASSES)


def alarm(sound: np.ndarray) -> float:
    """The log-odds that no more than `ALARMS` of these sound hands reach."""
    return float(np.nextafter(np.sort(sound)[::-1][int(ALARMS * len(sound))], np.inf))


def row(name: str, logit: np.ndarray, low: float, high: float, areas: list) -> None:
    n = len(logit)
    if not n:
        return
    cells = []
    for part in (logit >= high, (logit >= low) & (logit < high), logit < low):
        ends = wilson(int(part.sum()), n)
        cells.append(f"{part.mean():.0%} ({float(ends[0]):.0%}–{float(ends[1]):.0%})")
    said = [f"{float(auc(np.r_[a, b], np.r_[np.zeros(len(a)), np.ones(len(b))])):.2f}" for a, b in areas] or [""] * 3
    print(f"| {name} | {n} | {' | '.join(cells)} | {' | '.join(said)} |")


def weakened(old: Calibration) -> Calibration:
    """The older evidence with the weight that it has beside the picture head."""
    scale = [ASKED if name.startswith("raised_") else OLDER for name in old.names]
    weights = tuple(part * weight for part, weight in zip(scale, old.weights))
    return replace(old, weights=weights, intercept=OLDER * old.intercept)


def older(read: Examined, old: Calibration) -> np.ndarray:
    return old.shares(read.matrix(old.names).numpy()).sum(1) + old.intercept


def of_pictures(table, heads: Heads, old: Calibration, cache: Path) -> dict[str, np.ndarray]:
    """Kind, size and log-odds of every hand of the pictures."""
    read = examine_files(table["path"].tolist(), cache / "original", progress=say)
    table = table.set_index("path").loc[read.paths].reset_index()
    hands, out = read.examined.hands, []
    for i in sorted(set(hands.image.tolist())):
        picture = read_picture(read.paths[i])
        assert isinstance(picture, Picture)
        own = hands.select(hands.image == i)
        own = replace(own, image=torch.zeros_like(own.image))
        out.append(heads(picture_features([picture.tensor()], own), table["repository"][i]))
    order = torch.argsort(hands.image, stable=True).numpy()
    return {
        "kind": table["kind"].to_numpy(str)[hands.image.numpy()][order],
        "size": hands.region[:, 2].numpy()[order],
        "picture": np.concatenate(out),
        "older": older(read.examined, old)[order],
        **{name: values[order] for name, values in told(read.examined).items()},
    }


def of_planted(table, heads: Heads, old: Calibration, cache: Path) -> dict[str, np.ndarray]:
    """Log-odds of hands of the sound pictures, as they are and with each fault of `PLANTED`, where one is found."""
    random = torch.Generator().manual_seed(5)
    kept = cache / "planted.pt"
    if not kept.exists():
        rows: list[tuple[str, str, torch.Tensor, dict]] = []
        for source, own in table[table["label"] == "normal"].groupby("repository"):
            number = 0
            for path in own["path"].sample(frac=1, random_state=0):
                picture = read_picture(path)
                assert isinstance(picture, Picture)
                image = picture.tensor()
                found = detect([image], search="plain")
                for region, points in zip(found.region, found.points):
                    canvas = Canvas.of(image, region, points)
                    if float(region[2]) < LARGE or len(canvas.raised()) < RAISED or number >= OF_SOURCE:
                        continue
                    number += 1
                    ways = {"": canvas} | {name: plant(canvas, name, random) for name in PLANTED}
                    shown = {name: elsewhere(unharmed(one, random), random).image for name, one in ways.items() if one}
                    seen = examine(list(shown.values()), search="plain", max_hands=1)
                    looked = picture_features(list(shown.values()), seen.hands)
                    for k, i in enumerate(seen.hands.image.tolist()):
                        rows.append((str(source), list(shown)[i], looked[:, k].half(), seen.records()[k]))
                if number >= OF_SOURCE:
                    break
            print(source, number, flush=True)
        with atomic(kept) as temporary:
            torch.save(rows, temporary)
    rows = torch.load(kept, weights_only=True)
    read = Examined.of_records([[record] for *_, record in rows])
    picture = [heads(seen[:, None].float(), source)[0] for source, _, seen, _ in rows]
    fault = np.array([name for _, name, _, _ in rows])
    return {"fault": fault, "picture": np.array(picture), "older": older(read, old), **told(read)}


def told(read: Examined) -> dict[str, np.ndarray]:
    """What says of each hand whether anything can be told of it, and whether more than five digits are counted."""
    within = [not said for said in outside_limits(read, {k: v for k, v in LIMITS.items() if k != "count_more"})]
    strange, more = (read.evidence[name].numpy() for name in ("picture_strange", "count_more"))
    return {"readable": np.array(within), "strange": strange, "counted": more > COUNTED}


def write(old: Calibration, high: float, low: float, strange: float, parts: dict, sources: int) -> None:
    """The picture head beside the older weights, and one half where hands are called implausible."""
    unit = float(np.log(1 / PASSING - 1)) / (high - low)
    shipped = replace(
        old,
        names=(*old.names, "picture_fault"),
        mean=(*old.mean, 0.0),
        scale=(*old.scale, 1.0),
        weights=tuple(unit * weight for weight in (*old.weights, PICTURE)),
        intercept=unit * (old.intercept - high),
        threshold=0.5,
        passes=PASSING,
        flags={"count_more": (None, COUNTED)},
        limits=LIMITS | {"picture_strange": (None, strange)},
        trust={"held_out": {name: {"n": len(one["picture"])} for name, one in parts.items()}},
        provenance={
            "script": "bench/validity/anatomy_thresholds.py",
            "fitted_to": {
                "picture_fault": "pairs of photographs with planted faults (anatomy/picture_card.md)",
                "the rest": f"as the calibration renders, times {OLDER} (raised_: times {ASKED})",
            },
            "false_alarms": ALARMS,
            "false_passes": PASSES,
            "sources": sources,
            "weights": weights_hash(),
        },
    )
    shipped.save(SHIPPED["general"])


LIMITS = {"points_size": (float(np.log(0.6)), None), "presence": (0.6, None), "straight_digits": (1.0, None)}
LIMITS |= {"count_more": (None, 0.0)}

if __name__ == "__main__":
    main()
