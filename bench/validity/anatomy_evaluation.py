"""How good the plausibility score is, and the calibration that ships: fitted, measured and written by this script.

    python bench/validity/anatomy_evaluation.py CACHE --photographs photos.csv [--write]

Sources: renders with planted faults (480 sound and 480 faulty to fit to; 240 and 240 with other seeds to measure on),
the organism's 640 hand-labelled pictures (folds by prompt), and photographs of normal hands (a CSV with path, hands,
source; folds by source), which are not shipped. Two calibrations are fitted: one to renders and photographs (renders),
and one to the organism's pictures. The hands that were found are cached in the folder CACHE, which is to be removed
when detection changes; it can be killed and started again. ``--write`` writes the calibrations that ship. Tables are
printed as markdown.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from anatomy_sources import FITTED, MEASURED, RENDERS, SIDE, Source, organism, photographs, renders, source, untold
from anatomy_tables import flags, limit, print_organism, print_photographs, print_renders, print_undetected
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.verdicts import Counts, sensitivity, specificity
from handscope.anatomy.judge.calibrate import PENALTIES
from handscope.anatomy.judge.calibration import SHIPPED, Calibration, fit
from handscope.anatomy.judge.stage import weights_hash
from handscope.files import sha256
from handscope.organism.study.shipped import DATASETS
from scipy.special import expit, logit
from sklearn.model_selection import GroupKFold

# What the general calibration weighs: the finger counter, the soft subscores, and what parts or webs a silhouette has.
# With all of the evidence it does better on renders and far worse on a generator that it never saw.
GENERAL = ("count_", "raised_", "joints_sum", "ratio_sum", "web_most", "sil_second", "sil_missing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, metavar="CACHE")
    parser.add_argument("--photographs", type=Path, required=True, metavar="CSV")
    parser.add_argument("--write", action="store_true", help="write the calibrations renders and organism")
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
        write(general, fits, held, l2, "renders")
        write(generator, own, own_held, own_l2, "organism")


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


def write(shipped: Calibration, fits: dict[str, Source], held: dict[str, np.ndarray], l2: float, name: str) -> None:
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
        "script": "bench/validity/anatomy_evaluation.py",
        "fitted_to": {key: sources[key] for key in fits if key in sources},
        "raised": "pictures with a prompt count twice: told how many digits should be raised, and not told",
        "l2": l2,
        "weights": weights_hash(),
    }
    replace(shipped, trust={"held_out": trust}, provenance=provenance).save(SHIPPED[name])


if __name__ == "__main__":
    main()
