"""What a run folder holds after each stage, in a sentence read from its files."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from ..extract.estimate import Estimate
    from ..extract.store.check import StoreInfo
    from ..run.folder import Run

NAMED = 5
"""Samples that a summary names before it counts the rest."""
ALPHA = 0.05
"""False-discovery rate below which a cell counts as separable in a summary."""


def generated(run: "Run") -> str:
    """How many samples there are, of how many prompts."""
    samples = run.samples()
    return f"{len(samples)} samples of {samples['prompt'].nunique()} prompts in {run.samples_dir}"


def labelled(run: "Run") -> str:
    """How many samples have which verdict, and how many pairs of a bad and a good one of the same prompt there are."""
    from ..labeling.table import SUBSETS, sample_table

    table = sample_table(run)
    verdicts = table["verdict"].value_counts()
    counts = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
    sure = table[table["verdict"].isin(SUBSETS["sure"])]
    bad = sure.groupby("prompt")["bad"].agg(["sum", "count"])
    pairs = bad["sum"] * (bad["count"] - bad["sum"])
    return (
        f"{verdicts.sum()} labels in {run.labels_path}: {counts}; {int(pairs.sum()):,} pairs of a bad and a good one "
        f"in {int((pairs > 0).sum())} of {len(bad)} prompts"
    )


def extracted(run: "Run") -> str:
    """How many cells of how many samples are in the store, and which samples were set aside."""
    from ..extract.store.aside import set_aside
    from ..extract.store.store import ActivationStore

    store = ActivationStore(run.activations_dir)
    size = f"{len(store.tokens)} tokens of width {store.width}"
    said = f"{len(store.cells)} cells of {len(store.samples)} samples ({size}) in {run.activations_dir}"
    aside = set_aside(run.activations_dir)
    if aside.empty:
        return said
    named = ", ".join(f"{row.sample} ({row.reason}, {row.psnr:.1f} dB)" for row in aside.head(NAMED).itertuples())
    more = f" and {len(aside) - NAMED} more" if len(aside) > NAMED else ""
    return (
        f"{said}; set aside {named}{more}, which came out otherwise when generated again: their labels are not used "
        "(set_aside.csv)"
    )


def estimated(estimate: "Estimate", compression: str | None) -> str:
    """A short table of what an extraction would cost."""
    ready = estimate.samples - estimate.missing
    ways = ", ".join(f"{road.samples} {road.name}" for road in estimate.roads)
    most = "at most " if compression else ""
    rows = [
        ("samples", f"{estimate.missing} to extract" + (f" ({ways})" if ways else "") + f", {ready} there already"),
        ("cells", f"{estimate.cells} of width {estimate.width}"),
        ("tokens", f"{estimate.tokens}, {most}{size(estimate.activations)} of activations"),
        ("disk", f"{most}{size(estimate.shards)} of shards, and {size(estimate.store)} once consolidated"),
    ]
    if estimate.memory is not None:
        rows.append(("memory", f"{size(estimate.memory)} at the peak of one step on {estimate.device}"))
    rows.append(("", f"{size(estimate.held)} of activations at a time wait in the computer's memory to be written"))
    for road in estimate.roads:
        counts = f"{road.batches} batches of {road.batch_size}, {road.calls} calls each"
        rows.append(("step", f"{road.step_seconds:.3g} s ({road.name}: {counts})"))
    rows.append(("time", f"about {duration(estimate.seconds)}, measured on one step"))
    return "\n".join(f"{name:9} {text}" for name, text in rows)


def stored(info: "StoreInfo") -> str:
    """A short table of what a store holds."""
    plan = info.plan
    labels = ", ".join(f"{count} {label}" for label, count in info.labels.items())
    rows = [
        ("model", f"{info.model} {info.revision}".strip() + f", {info.model_dtype}, weights {info.weight_hash[:12]}"),
        ("read", f"{plan.stream} stream at each block's {plan.at}, {info.selection} tokens"),
        ("blocks", ", ".join(map(str, plan.blocks))),
        ("steps", f"{', '.join(map(str, plan.steps))} of {plan.of}"),
        ("cells", f"{info.cells} of width {info.width}"),
        ("samples", f"{info.samples}"),
        ("tokens", f"{info.tokens}: {labels}"),
        ("shards", f"{info.shards}, {size(info.shard_bytes)}"),
        ("store.h5", size(info.store_bytes) if info.store_bytes else "not there: store consolidate writes it"),
    ]
    return "\n".join(f"{name:9} {text}" for name, text in rows)


def size(count: float) -> str:
    """Bytes for a reader.

    >>> size(1234567)
    '1.23 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds for a reader.

    >>> duration(200)
    '3.3 minutes'
    """
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} seconds"


def analyzed(run: "Run") -> str:
    """In how many cells the difference-of-means direction separates held-out samples."""
    return _told(run, "cells", lambda _: "dom_", "the difference of means")


def probed(run: "Run") -> str:
    """In how many cells a linear probe separates held-out samples: by the AUC that the report's first page shows."""
    from .results import headline

    return _told(run, "probes", headline, "a linear probe")


def _told(run: "Run", name: str, prefix_of: "Callable[[pd.DataFrame], str]", what: str) -> str:
    """The finding that a table with a row a cell makes, in the words of the report."""
    from dataclasses import replace

    import pandas as pd

    from .claims import SCORE, claim_of
    from .results import counted

    path = run.analysis_dir / f"{name}.csv"
    rows = pd.read_csv(path)
    rows = rows[rows["subset"] == "sure"] if "subset" in rows else rows
    prefix = prefix_of(rows)
    order = run.analysis_dir / "samples.csv"
    n = counted(rows, pd.read_csv(order) if order.exists() else None, prefix)
    claim = claim_of("", what, f"{what} tells bad samples from good ones", n, rows, replace(SCORE, prefix=prefix))
    return f"{claim.brief} In {path}"


def surveyed(run: "Run") -> str:
    """In how many cells of a survey a probe separates held-out samples, and what its best cell is worth."""
    import pandas as pd

    from ..labeling.subject import subject_of

    table = pd.read_csv(run.analysis_dir / "survey.csv")
    best = json.loads((run.analysis_dir / "survey.json").read_text(encoding="utf-8"))["best"]
    called = int((table["ridge_q"] <= ALPHA).sum())
    counts = f"{table['n_bad'].iloc[0]} bad and {table['n_good'].iloc[0]} good samples"
    if not called:
        return f"no cell of {len(table)} is separable from chance (n = {counts}; false-discovery rate .05)"
    return (
        f"{called} of {len(table)} cells separable (n = {counts}; false-discovery rate .05); the best, {best['cell']}, "
        f"has an AUC of {best['auc_selected']:.2f} because it was selected (p = {best['p_of_the_largest']:.2g} for the "
        f"largest of all); cells chosen without the samples they are judged on have {best['auc_nested']:.2f} "
        f"({best['auc_nested_lo']:.2f} to {best['auc_nested_hi']:.2f}); at the first step, where pure noise goes in, "
        f"the largest is {best['auc_of_pure_noise']:.2f}, and the number of {subject_of(run).noun} tokens alone has "
        f"{best.get('auc_of_size', best.get('auc_of_hand_size')):.2f}"
    )


def triaged(run: "Run") -> str:
    """The rate of malformed samples without an early look, and with the look that lowers it most."""
    import pandas as pd

    path = run.analysis_dir / "triage.csv"
    table = pd.read_csv(path)
    looks, plain = table[table["way"] == "threshold"], table.iloc[0]
    if looks.empty:
        return f"plain: {plain.rate:.1%} malformed, in {path}"
    best = looks.sort_values("rate").iloc[0]
    return (
        f"plain: {plain.rate:.1%} malformed; {best.feature} at step {best.step:g}: {best.rate:.1%} at {best.cost:.2f} "
        f"times the cost, the best of {len(looks)} looks, in {path}"
    )


def scored(run: "Run") -> str:
    """How many hands that were found are implausible, and in how many samples none was found."""
    import pandas as pd

    path = run.path / "anatomy" / "scores.csv"
    counts = pd.read_csv(path)["outcome"].value_counts()
    bad, unknown, good, none = (
        int(counts.get(name, 0)) for name in ("implausible", "cannot tell", "plausible", "undetected")
    )
    untold = f" ({unknown} cannot be told)" if unknown else ""
    return f"{bad} of {bad + unknown + good} hands are implausible{untold}, {none} samples show none, in {path}"


def reported(run: "Run") -> str:
    """Where the report is."""
    return f"{run.report_path.resolve()}"

