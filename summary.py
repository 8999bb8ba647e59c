"""What a run folder holds after each stage, in a sentence read from its files."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from .extract.run import Run

ALPHA = 0.05
"""False-discovery rate below which a cell counts as separable in a summary."""


def generated(run: "Run") -> str:
    """How many samples there are, of how many prompts."""
    samples = run.samples()
    return f"{len(samples)} samples of {samples['prompt'].nunique()} prompts in {run.samples_dir}"


def labelled(run: "Run") -> str:
    """How many samples have which verdict."""
    from .extract.labels import Labels

    verdicts = Labels(run.labels_path).table()["verdict"].value_counts()
    counts = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
    return f"{verdicts.sum()} labels in {run.labels_path}: {counts}"


def extracted(run: "Run") -> str:
    """How many cells of how many samples are in the store."""
    from .extract.store import ActivationStore

    store = ActivationStore(run.activations_dir)
    size = f"{len(store.tokens)} tokens of width {store.width}"
    return f"{len(store.cells)} cells of {len(store.samples)} samples ({size}) in {run.activations_dir}"


def analyzed(run: "Run") -> str:
    """In how many cells the difference-of-means direction separates held-out samples."""
    import pandas as pd

    path = run.analysis_dir / "cells.csv"
    cells = pd.read_csv(path)
    return f"{_separable(cells['dom_auc'], cells['dom_q'])} by the difference of means, in {path}"


def probed(run: "Run") -> str:
    """In how many cells a linear probe separates held-out samples."""
    import pandas as pd

    path = run.analysis_dir / "probes.csv"
    probes = pd.read_csv(path)
    probes = probes[probes["subset"] == "sure"]
    return f"{_separable(probes['auc'], probes['q'])} by a linear probe, in {path}"


def reported(run: "Run") -> str:
    """Where the report is."""
    return f"{run.report_path.resolve()}"


def _separable(auc: "pd.Series", q: "pd.Series") -> str:
    separable = f"{(q < ALPHA).sum()} of {len(auc)} cells separable (q < {ALPHA})"
    return f"held-out AUC {auc.min():.2f} to {auc.max():.2f}; {separable}"
