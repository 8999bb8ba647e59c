"""Which samples would teach a run's probes most: those of which they are least sure, spread over prompts."""

from typing import Any

import numpy as np

from ...errors import HandscopeError
from ...extract.address import Block
from ...extract.store.store import ActivationStore
from ...probes.choose import saved_probes
from ...run.folder import Run


def by_doubt(run: Run, labelled: set[str], seed: int = 0) -> tuple[list[str], dict[str, Any]]:
    """Samples by how near to zero the log-odds are that the run's best probes give them.

    Parameters
    ----------
    labelled : set of str
        Samples that a person has labelled: they come last, since the probes have learnt from them.

    Returns
    -------
    samples : list of str
        First those with a log-odds, then those without activations, at random; then the labelled ones, likewise.
    described : dict
        The probes that were asked, how many samples they could be asked of, and each one's log-odds.

    Raises
    ------
    HandscopeError
        The run has no probes, or no activations in a cell of theirs.

    Notes
    -----
    Uncertainty sampling (Lewis and Gale 1994). The most uncertain samples are often seeds of one prompt, which teach
    much the same: so they come in rounds, each with the most uncertain sample left of every prompt.
    """
    scores, asked = log_odds(run)
    rows = run.metadata()
    random = np.random.default_rng(seed)
    groups = [[s for s in rows if s not in labelled], [s for s in rows if s in labelled]]
    ordered: list[str] = []
    for group in groups:
        known = _in_rounds({sample: scores[sample] for sample in group if sample in scores}, rows)
        unknown = sorted(sample for sample in group if sample not in scores)
        ordered += known + [unknown[i] for i in random.permutation(len(unknown))]
    return ordered, {"probes": asked, "scored": len(scores), "log_odds": {s: round(v, 4) for s, v in scores.items()}}


def log_odds(run: Run) -> tuple[dict[str, float], list[str]]:
    """Log-odds of bad of every sample with activations, and the names of the probes that gave them.

    The mean over the probes of the run's best block, each on the mean over a sample's labelled instances; over all its
    stored tokens where no instance is marked.
    """
    probes = saved_probes(run.probes_dir)
    try:
        store = ActivationStore(run.activations_dir)
    except HandscopeError as error:
        raise HandscopeError(
            f"Samples cannot be ordered by what a probe is unsure of: {error} Extract with --tokens all, or label in "
            "random order."
        ) from error
    cells = {(str(cell.block), cell.step) for cell in store.cells}
    asked = [p for p in probes if (str(p.metadata_["block"]), int(p.metadata_["step"])) in cells]
    if not asked:
        raise HandscopeError(
            f"The probes in {run.probes_dir} are of {probes[0].metadata_['block']}, of which {run.activations_dir} has "
            "no step that they were fitted at: extract that block, or label in random order."
        )
    rows = run.metadata()
    sample, subject = store.records["sample"], store.records["instance"] > 0
    marked = np.bincount(sample, subject, len(store.samples)) > 0
    counted = subject | ~marked[sample]
    totals = np.zeros(len(store.samples))
    for probe in asked:
        block, step = Block.parse(str(probe.metadata_["block"])), int(probe.metadata_["step"])
        for x, index in store.chunks(block, step, where=counted):
            given = x @ probe.coef_.astype(np.float32) + np.float32(probe.intercept_)
            totals += np.bincount(sample[index], given, len(totals))
    means = totals / np.bincount(sample, counted, len(totals)) / len(asked)
    images = {part.sample: part.head["image_sha256"] for part in store.parts}
    found = {
        name: float(mean)
        for name, mean in zip(store.samples, means)
        if name in rows and images[name] == rows[name]["image_sha256"] and np.isfinite(mean)
    }
    return found, [f"{probe.metadata_['block']} at step {probe.metadata_['step']}" for probe in asked]


def _in_rounds(scores: dict[str, float], rows: dict[str, dict[str, Any]]) -> list[str]:
    """The least sure sample of each prompt, then the next of each, in each round the least sure first."""
    seen: dict[str, int] = {}
    places = []
    for sample in sorted(scores, key=lambda sample: (abs(scores[sample]), sample)):
        prompt = rows[sample]["prompt"]
        seen[prompt] = seen.get(prompt, -1) + 1
        places.append((seen[prompt], abs(scores[sample]), sample))
    return [sample for *_, sample in sorted(places)]
