"""What `anatomy_evaluation.py` prints: shares, agreement and areas of each source, as tables in markdown."""

import numpy as np
from anatomy_sources import Source, lost
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.intervals import bootstrap_auc
from handscope.analysis.statistics.rates import wilson
from handscope.analysis.statistics.verdicts import Counts, kappa, sensitivity, specificity, with_interval
from handscope.anatomy.judge.scoring import judge
from handscope.organism.hands import FAULTS
from sklearn.model_selection import GroupKFold

KINDS = {"six": "count", "four": "count", "fused": "fused", "backward": "joint", "proportion": "proportion"}
KINDS |= {"detached": "missing"}
ALARMS = 0.05
SEEN = ("soft-ui-design-system", "material-kit")  # packages whose photographs the finger counter learnt from


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
    low, high = bootstrap_auc(p, bad, group)
    return f"{float(auc(p, bad)):.3f} ({low:.3f}–{high:.3f})"


def flags(one: Source, method: str) -> np.ndarray:
    """Whether a method without weights flags each hand."""
    verdicts = judge(one.read, method).verdicts  # type: ignore[arg-type]
    return np.array([not verdicts[hand].plausible for hand in one.hand])


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
