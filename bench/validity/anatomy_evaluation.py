"""How good the plausibility score is, and the calibration that ships: fitted, measured and written by this script.

    python bench/anatomy_evaluation.py CACHE --photographs photos.csv [--write]

Sources: renders with planted faults (480 sound and 480 faulty to fit to; 240 and 240 with other seeds to measure on),
the organism's 640 hand-labelled pictures (folds by prompt), and photographs of normal hands (a CSV with path, hands,
source; folds by source), which are not shipped. Two calibrations are fitted: a general one to renders and photographs,
and one to the organism's pictures. The hands that were found are cached in the folder CACHE, which is to be removed
when detection changes; it can be killed and started again. ``--write`` writes the calibrations that ship. Tables are
printed as markdown.
"""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.intervals import percentile_auc
from handscope.analysis.statistics.rates import wilson
from handscope.analysis.statistics.verdicts import Counts, kappa, sensitivity, specificity, with_interval
from handscope.anatomy.judge.calibrate import PENALTIES, chosen_hands
from handscope.anatomy.judge.calibration import SHIPPED, Calibration, fit
from handscope.anatomy.judge.scoring import judge
from handscope.anatomy.judge.stage import weights_hash
from handscope.anatomy.measure.examine import GEOMETRY, Examined, examine_hands
from handscope.anatomy.read.detect import detect
from handscope.anatomy.read.hands import TENSORS, Hands
from handscope.anatomy.read.networks import Size
from handscope.anatomy.read.pictures import Picture, read_picture
from handscope.files import sha256
from handscope.organism.captions import GESTURES, Caption
from handscope.organism.hands import FAULTS
from handscope.organism.render import render_dataset
from handscope.organism.silhouette import silhouette
from handscope.organism.study.fit_judge import majority
from handscope.organism.study.shipped import DATASETS, ShippedLabels
from scipy.special import expit, logit
from sklearn.model_selection import GroupKFold

FITTED = (970_001, 971_001)  # seeds of the renders that are fitted to,
MEASURED = (980_001,)  # and of those that are measured on; each makes so many sound and so many faulty ones
RENDERS, SIDE = 240, 192
KINDS = {"six": "count", "four": "count", "fused": "fused", "backward": "joint", "proportion": "proportion"}
KINDS |= {"detached": "missing"}
ALARMS = 0.05
# What the general calibration weighs: the finger counter, the soft subscores, and what parts or webs a silhouette has.
# With all of the evidence it does better on renders and far worse on a generator that it never saw.
GENERAL = ("count_", "raised_", "joints_sum", "ratio_sum", "web_most", "sil_second", "sil_missing")
SEEN = ("soft-ui-design-system", "material-kit")  # packages whose photographs the finger counter learnt from


def raised_of(caption: str) -> int:
    """How many digits a prompt of the organism asks for."""
    return sum(GESTURES[Caption.parse(caption).gesture])


def renders(seeds: Sequence[int], cache: Path) -> tuple[list[torch.Tensor], pd.DataFrame]:
    """Sound and faulty renders with their captions and faults."""
    images: list[torch.Tensor] = []
    tables = []
    for seed in seeds:
        path = cache / f"renders_{seed}_{RENDERS}_{SIDE}.pt"
        if not path.exists():
            parts = [render_dataset(RENDERS, seed + faulty, SIDE, corrupt=bool(faulty)) for faulty in (0, 1)]
            made = {"images": torch.cat([part.images for part in parts])}
            made |= {name: [one for part in parts for one in getattr(part, name)] for name in ("fault", "captions")}
            torch.save(made, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        made = torch.load(path, weights_only=True)
        images += [image.float() / 255 for image in made["images"]]
        tables.append(pd.DataFrame({"fault": made["fault"], "group": made["captions"]}))
    table = pd.concat(tables, ignore_index=True)
    table["raised"], table["bad"] = table["group"].map(raised_of), table["fault"] != ""
    return images, table


def organism() -> tuple[list[torch.Tensor], pd.DataFrame]:
    """The shipped hand-labelled pictures; an unsure one has the side that most looks took, as for the judge."""
    shipped = ShippedLabels.load()
    table = shipped.table.reset_index()
    table["bad"], table["group"] = majority(table).astype(bool), table["prompt"]
    table["raised"] = table["prompt"].map(raised_of)
    images = [torch.from_numpy(shipped.reference(sample).copy()) for sample in table["sample"]]
    return [image.permute(2, 0, 1).float() / 255 for image in images], table


def photographs(path: Path) -> tuple[list[torch.Tensor], pd.DataFrame]:
    """Photographs with at least one normal hand."""
    table = pd.read_csv(path)
    table = table[table["hands"].astype(str) != "0"].reset_index(drop=True)
    read = [read_picture(path.parent / name) for name in table["path"]]
    keep = [isinstance(one, Picture) for one in read]
    table = table[keep].reset_index(drop=True)
    table["bad"], table["group"], table["raised"] = False, table["source"], None
    return [one.tensor() for one in read if isinstance(one, Picture)], table


def found(name: str, images: list[torch.Tensor], cache: Path, boxed: bool, networks: Size = "full") -> Hands:
    """Hands of the pictures as `detect` finds them: the plain pass, and, where that finds none, the search, or a box
    about the silhouette, which is plain in pictures of one hand before one colour.

    Kept 16 pictures at a time.
    """
    plain = _kept(f"{name}_{networks}_plain", images, list(range(len(images))), cache, networks, "plain")
    left = sorted(set(range(len(images))) - set(plain.image.tolist()))
    way = "box" if boxed else "thorough"
    searched = _kept(f"{name}_{networks}_{way}", images, left, cache, networks, way)
    hands = Hands.cat([plain, searched])
    return hands.select(hands.image.argsort(stable=True))


def _kept(
    name: str, images: list[torch.Tensor], which: list[int], cache: Path, networks: Size, way: str
) -> Hands:
    parts = [_none(networks)]
    for start in range(0, len(which), 16):
        chosen = which[start : start + 16]
        batch = [images[i] for i in chosen]
        pixels = hashlib.sha256(b"".join((255 * image).byte().numpy().tobytes() for image in batch)).hexdigest()[:12]
        path = cache / f"{name}_{pixels}.pt"
        if not path.exists():
            if way == "box":
                hands = detect(batch, networks=networks, search="plain", boxes=[box_about(image) for image in batch])
            else:
                hands = detect(batch, networks=networks, search="plain" if way == "plain" else "thorough")
            made: dict[str, Any] = {one: getattr(hands, one) for one in TENSORS} | {"found_by": hands.found_by}
            torch.save(made, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        saved = torch.load(path, weights_only=True)
        saved["image"] = torch.tensor([chosen[i] for i in saved["image"].tolist()], dtype=torch.long)
        parts.append(Hands(**saved))
        print(f"\r{name}: {min(start + 16, len(which))} of {len(which)}", end="", flush=True)
    print()
    return Hands.cat(parts)


def box_about(image: torch.Tensor) -> torch.Tensor:
    """The box (1, 4) about the hand of a picture before one colour."""
    rows, columns = np.nonzero(silhouette((image.permute(1, 2, 0) * 255).round().byte().numpy()))
    return torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], dtype=torch.float32)


def _none(networks: Size) -> Hands:
    tensors = {one: torch.zeros((0, *shape)) for one, shape in GEOMETRY.items()}
    embedding = torch.zeros(0, 1152 if networks == "full" else 672)
    return Hands(**tensors, image=torch.zeros(0, dtype=torch.long), embedding=embedding, found_by=[])


@dataclass(frozen=True, eq=False)
class Source:
    """Labelled hands of one kind: their evidence, label, group and what else is known, a row a hand.

    Attributes
    ----------
    read : the pictures. hand : (m,) places in ``read.hands``. table : m rows with bad, group and more. pictures : all
        of the labelled pictures, found or not.
    """

    read: Examined
    hand: np.ndarray
    table: pd.DataFrame
    pictures: pd.DataFrame

    def x(self, names: list[str]) -> np.ndarray:
        return self.read.matrix(names).numpy()[self.hand]

    @property
    def bad(self) -> np.ndarray:
        return self.table["bad"].to_numpy(bool)

    @property
    def group(self) -> np.ndarray:
        return self.table["group"].to_numpy(str)


def source(name: str, made: tuple[list[torch.Tensor], pd.DataFrame], cache: Path, boxed: bool = False) -> Source:
    """Hands and evidence of a source, with the number of raised digits that each prompt asks for, where it does."""
    images, table = made
    hands = found(name, images, cache, boxed)
    parts = []
    for start in range(0, len(images), 32):
        chosen = hands.select((hands.image >= start) & (hands.image < start + 32))
        chosen.image.sub_(start)
        read = examine_hands(images[start : start + 32], chosen, table["raised"][start : start + 32].tolist())
        records: list[list[dict]] = [[] for _ in range(read.pictures)]
        for i, record in zip(read.hands.image.tolist(), read.records(), strict=True):
            records[i].append(record)
        parts += records
    read = Examined.of_records(parts)
    if table["bad"].any():
        hand = chosen_hands(read)
        hand = hand[hand >= 0]
    else:  # every hand of a photograph is a normal one
        hand = np.arange(len(read.hands))
    rows = table.iloc[read.hands.image.numpy()[hand]].reset_index(drop=True)
    return Source(read, hand, rows, table)


def untold(one: Source) -> Source:
    """The same where nobody said how many digits should be raised."""
    evidence = {
        name: torch.full_like(values, float(name == "raised_missing")) if name.startswith("raised_") else values
        for name, values in one.read.evidence.items()
    }
    return replace(one, read=replace(one.read, evidence=evidence))


def together(fits: dict[str, Source], names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Evidence, labels, groups and weights of several sources, each of which counts as much as any other.

    Within a source good and bad hands count the same, since the share of planted faults means nothing; photographs,
    which are all good, count as the good half of one. The same hands with and without the number of raised digits that
    was asked for are of one group. The organism's shares are its own, and stay.
    """
    x = np.concatenate([one.x(names) for one in fits.values()])
    bad = np.concatenate([one.bad for one in fits.values()])
    group = np.concatenate([np.char.add(f"{name.split()[0]}:", one.group) for name, one in fits.items()])
    weight = np.concatenate(
        [
            np.ones(len(one.bad))
            if name.startswith("organism")
            else np.where(one.bad, 0.5 / max(one.bad.sum(), 1), 0.5 / (~one.bad).sum())
            for name, one in fits.items()
        ]
    )
    return x, bad, group, weight * len(bad) / weight.sum()


def held_out_by(fits: dict[str, Source], names: list[str], l2: float) -> dict[str, np.ndarray]:
    """Probabilities of the hands of each source, from fits to all sources that saw no hand of their group."""
    x, bad, group, weight = together(fits, names)
    p = np.empty(len(bad))
    for train, test in GroupKFold(5, shuffle=True, random_state=0).split(x, bad, group):
        p[test] = fit(x[train], bad[train], names, l2=l2, weight=weight[train]).probability(x[test])
    ends = np.cumsum([len(one.bad) for one in fits.values()])
    return dict(zip(fits, np.split(p, ends[:-1]), strict=True))


def choose_penalty(fits: dict[str, Source], names: list[str]) -> float:
    """The penalty with the least weighted log loss on held-out groups."""
    _, bad, _, weight = together(fits, names)
    losses = []
    for l2 in PENALTIES:
        p = np.clip(np.concatenate(list(held_out_by(fits, names, l2).values())), 1e-6, 1 - 1e-6)
        losses.append(-(weight * np.log(np.where(bad, p, 1 - p))).sum())
    return PENALTIES[int(np.argmin(losses))]


def limit(*good: np.ndarray) -> float:
    """The probability that at most 5% of the sound hands of each kind exceed."""
    return max(float(np.quantile(p, 1 - ALARMS, method="higher")) for p in good) + 1e-9


def share(part: np.ndarray) -> str:
    """A share with Wilson's interval and its counts, for a table."""
    n, k = len(part), int(part.sum())
    if not n:
        return "–"
    low, high = wilson(k, n)
    return f"{k / n:.0%} ({low:.0%}–{high:.0%}; {k} of {n})"


def agreed(flagged: np.ndarray, bad: np.ndarray, group: np.ndarray) -> str:
    """Kappa with its interval over groups, sensitivity and specificity, as cells of a table."""
    counts = Counts.of(flagged, bad, group)
    value, low, high = with_interval(kappa, counts)
    total = counts.total()
    return f"{value:.2f} ({low:.2f}–{high:.2f}) | {sensitivity(total):.2f} | {specificity(total):.2f}"


def area(p: np.ndarray, bad: np.ndarray, group: np.ndarray) -> str:
    """AUC with its interval over groups."""
    low, high = percentile_auc(p, bad, group)
    return f"{float(auc(p, bad)):.3f} ({low:.3f}–{high:.3f})"


def flags(one: Source, method: str) -> np.ndarray:
    """Whether a method without weights flags each hand."""
    verdicts = judge(one.read, method).verdicts  # type: ignore[arg-type]
    return np.array([not verdicts[hand].plausible for hand in one.hand])


def lost(one: Source) -> np.ndarray:
    """Which labelled pictures no hand was found in: (n,) bool."""
    gone = np.zeros(len(one.pictures), bool)
    gone[one.read.undetected] = True
    return gone


def print_undetected(sources: dict[str, Source]) -> None:
    print("\n## Undetected: share of pictures in which no hand was found\n\n| | sound | faulty |\n|---|---|---|")
    for name, one in sources.items():
        bad, gone = one.pictures["bad"].to_numpy(bool), lost(one)
        print(f"| {name} | {share(gone[~bad])} | {share(gone[bad])} |")


def print_renders(how: str, one: Source, p: np.ndarray, q: np.ndarray | None, threshold: float) -> None:
    print(f"\n## Renders that were not fitted to, {how}: {len(p)} of {len(one.pictures)} found\n")
    told = "" if q is None else f"; told the raised digits {area(q, one.bad, one.group)}"
    print(f"AUC of calibrated {area(p, one.bad, one.group)}{told}.\n")
    columns = {"calibrated, 5% false alarms": p > limit(p[~one.bad])}
    if q is not None:
        columns["told the raised digits"] = q > limit(q[~one.bad])
    columns["calibrated, as shipped"] = p >= threshold
    columns |= {method: flags(one, method) for method in ("any-violation", "paper")}
    fault, gone = one.table["fault"], lost(one)
    print(f"| fault | AUC | {' | '.join(columns)} | undetected |\n|{'---|' * (len(columns) + 3)}")
    for name in ("", *FAULTS):
        rows = (fault == name).to_numpy()
        against = "" if name == "" else f"{float(auc(p[rows | ~one.bad], one.bad[rows | ~one.bad])):.2f}"
        missed = share(gone[(one.pictures["fault"] == name).to_numpy()])
        label = "none: false alarms" if name == "" else f"{name} ({KINDS[name]})"
        print(f"| {label} | {against} | {' | '.join(share(flag[rows]) for flag in columns.values())} | {missed} |")


def print_organism(rows: dict[str, tuple[np.ndarray, np.ndarray]], boxed: Source, searched: Source) -> None:
    """Agreement on hands that a box gives, on those that the search finds, and with the others counted both ways."""
    bad, group = boxed.pictures["bad"].to_numpy(bool), boxed.pictures["group"].to_numpy(str)
    place = boxed.read.hands.image.numpy()[boxed.hand]
    gone = lost(searched)
    print(f"\n## The organism's {len(bad)} labelled pictures of {len(set(group))} prompts: {len(place)} found with a")
    print(f"box, {(~gone).sum()} without\n")
    measures = "kappa | sensitivity | specificity"
    print(f"| | AUC, with boxes | {measures} | without: {measures} | undetected flagged: {measures} | "
          f"undetected passed: {measures} |\n|{'---|' * 14}")  # fmt: skip
    for name, (p, flagged) in rows.items():
        cells = [area(p, boxed.bad, boxed.group) if len(p) else "", agreed(flagged, boxed.bad, boxed.group)]
        keep = ~gone[place]
        cells.append(agreed(flagged[keep], boxed.bad[keep], boxed.group[keep]))
        for counted in (True, False):
            every = np.zeros(len(bad), bool)
            every[place] = flagged
            cells.append(agreed(np.where(gone, counted, every), bad, group))
        print(f"| {name} | {' | '.join(cells)} |")


def print_photographs(one: Source, p: np.ndarray, threshold: float, of_renders: float) -> None:
    """`of_renders` is the threshold that renders alone ask for, below which a held-out one never falls."""
    seen = one.table["source"].str.startswith(SEEN).to_numpy()
    folds = list(GroupKFold(5, shuffle=True, random_state=0).split(p, groups=one.group))
    nested = np.zeros(len(p), bool)
    for train, test in folds:
        nested[test] = p[test] > max(limit(p[train]), of_renders)
    print(f"\n## False alarms on photographs of normal hands, {len(p)} hands of {len(set(one.group))} packages\n")
    print("| | all | of packages that the finger counter did not learn from |\n|---|---|---|")
    ways = {"calibrated, held out": p > threshold, "calibrated, its threshold held out too": nested}
    for name, flag in (ways | {method: flags(one, method) for method in ("any-violation", "paper")}).items():
        print(f"| {name} | {share(flag)} | {share(flag[~seen])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, metavar="CACHE")
    parser.add_argument("--photographs", type=Path, required=True, metavar="CSV")
    parser.add_argument("--write", action="store_true", help="write anatomy/calibrated.json")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    made = {name: renders(seed, options.cache) for name, seed in (("measured", MEASURED), ("fitted", FITTED))}
    made["organism"] = organism()
    asked = {name: source(name, one, options.cache, boxed=True) for name, one in made.items()}
    plain = {name: untold(one) for name, one in asked.items()}
    plain["photographs"] = source("photographs", photographs(options.photographs), options.cache)
    searched = {name: untold(source(name, made[name], options.cache)) for name in ("measured", "organism")}
    print_undetected({**searched, "photographs": plain["photographs"]})

    everything = list(plain["fitted"].read.evidence)
    chosen = [name for name in everything if name.startswith(GENERAL)]
    fits = {"renders": plain["fitted"], "renders asked": asked["fitted"], "photographs": plain["photographs"]}
    l2 = choose_penalty(fits, chosen)
    held = held_out_by(fits, chosen, l2)
    threshold = limit(held["photographs"], held["renders"][~plain["fitted"].bad])
    x, bad, _, weight = together(fits, chosen)
    # The share of faults among renders means nothing, so that the intercept is free: one half is the threshold.
    moved = logit(threshold)
    general = fit(x, bad, chosen, l2=l2, weight=weight)
    general = replace(general, intercept=general.intercept - moved)
    held = {name: expit(logit(p) - moved) for name, p in held.items()}
    threshold = general.threshold
    print(f"\nGeneral: penalty {l2}, log-odds moved by {-moved:.2f}, {len(chosen)} columns: {', '.join(chosen)}")
    own = {"organism": plain["organism"], "organism asked": asked["organism"]}
    own_l2 = choose_penalty(own, everything)
    own_held = held_out_by(own, everything, own_l2)
    x, bad, _, weight = together(own, everything)
    generator = fit(x, bad, everything, l2=own_l2, weight=weight)
    print(f"Organism: penalty {own_l2}, {len(everything)} columns")

    for how, one in (("a box where needed", plain["measured"]), ("searched", searched["measured"])):
        told = asked["measured"] if one is plain["measured"] else None
        p = general.probability(one.x(chosen))
        print_renders(how, one, p, None if told is None else general.probability(told.x(chosen)), threshold)
    rows = {}
    for key, told_so in (("organism asked", ", told the raised digits"), ("organism", "")):
        rows[f"organism's calibration{told_so}"] = (own_held[key], own_held[key] >= generator.threshold)
        new = general.probability(own[key].x(chosen))
        rows[f"general, which never saw this generator{told_so}"] = (new, new >= threshold)
    for method in ("any-violation", "paper"):
        rows[method] = (np.array([]), flags(plain["organism"], method))
    print_organism(rows, plain["organism"], searched["organism"])
    of_renders = limit(held["renders"][~plain["fitted"].bad])
    print_photographs(plain["photographs"], held["photographs"], threshold, of_renders)
    if options.write:
        write(general, fits, held, l2, "general")
        write(generator, own, own_held, own_l2, "organism")


def write(
    shipped: Calibration, fits: dict[str, Source], held: dict[str, np.ndarray], l2: float, name: str
) -> None:
    """A calibration that ships, with what it was fitted to and what it did on held-out groups of each source."""
    trust = {}
    for key, one in fits.items():
        flagged = held[key] >= shipped.threshold
        counts = Counts.of(flagged, one.bad, one.group).total()
        trust[key] = {
            "n": len(one.bad),
            "bad": int(one.bad.sum()),
            "groups": len(set(one.group)),
            "false_alarms": round(1 - float(specificity(counts)), 4),
        } | ({"sensitivity": round(float(sensitivity(counts)), 4), "auc": round(float(auc(held[key], one.bad)), 4)}
             if one.bad.any() else {})  # fmt: skip
    sources = {
        "renders": f"seeds {FITTED} (sound; faulty: 1 more), {RENDERS} each, {SIDE} pixels, as far as found plainly",
        "photographs": "normal hands, not shipped",
        "organism": f"datasets/hand_labels.csv, sha256 {sha256(DATASETS / 'hand_labels.csv')}",
    }
    provenance = {
        "script": "bench/anatomy_evaluation.py",
        "fitted_to": {key: sources[key] for key in fits if key in sources},
        "raised": "pictures with a prompt count twice: told how many digits should be raised, and not told",
        "l2": l2,
        "weights": weights_hash(),
    }
    replace(shipped, trust={"held_out": trust}, provenance=provenance).save(SHIPPED[name])


if __name__ == "__main__":
    main()
