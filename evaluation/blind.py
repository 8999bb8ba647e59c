"""A blind look: pairs of arms, shuffled under names that say nothing, as a run that the labelling page rates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..analysis.statistics.paired import Paired, paired_rates
from ..errors import HandscopeError
from ..files import atomic
from ..labeling.database.labels import Labels
from ..labeling.table import as_seen
from ..run.folder import Run
from .arms import arm_run

KEY = "key.json"


def blind(
    folder: Path,
    arms: Sequence[str],
    n: int = 100,
    seed: int = 0,
    samples: Mapping[str, Sequence[str]] | None = None,
) -> Run:
    """Make ``folder/blind``, a run of `n` samples from every arm, the same prompts and seeds of each, in random order.

    Which arm and sample a picture is of stands in ``key.json`` beside it, for `unblind`; do not look before.

    Parameters
    ----------
    folder : the experiment's
    arms : names, the baseline first
    samples : of each arm, those to choose from, where arms have others; by default the first arm's

    Raises
    ------
    HandscopeError
        An arm was not drawn, has fewer samples, or there is a blind look already.
    """
    target = folder / "blind"
    if (target / KEY).exists():
        raise HandscopeError(f"There is a blind look in {target} already: finish it, or move it away.")
    runs = {arm: arm_run(folder, arm) for arm in arms}
    shown, lines = [], {}
    for arm, run in runs.items():
        lines[arm] = run.metadata()
        some = runs[arms[0]].metadata() if samples is None else samples[arm]
        if not set(some) <= set(lines[arm]):
            raise HandscopeError(f"The arm {arm!r} lacks samples of {arms[0]!r}: draw it whole first.")
        # Evenly over prompts: one seed of every prompt, then the next.
        order = sorted(some, key=lambda name: (lines[arm][name]["seed"], lines[arm][name]["prompt"]))  # noqa: B023
        shown += [(arm, name) for name in order[:n]]
    random = np.random.default_rng(seed)
    run, rows, key = Run(target), {}, {}
    run.samples_dir.mkdir(exist_ok=True)
    for number, place in enumerate(random.permutation(len(shown))):
        arm, name = shown[place]
        image = runs[arm].image(name)
        opaque = f"look-{number:05d}"
        key[opaque] = [arm, name]
        taken = {k: v for k, v in lines[arm][name].items() if k not in ("calls", "seconds", "share", "seed_taken")}
        rows[opaque] = taken | {
            "sample": opaque,
            "seed": number,
            "file_name": f"{opaque}.png",
            "image_sha256": hashlib.sha256(image.tobytes()).hexdigest(),
            "noise_sha256": "",
            "batch_size": 1,
        }
        with atomic(run.image_path(opaque)) as temporary:
            Image.fromarray(image).save(temporary)
    run.write_metadata(rows)
    with atomic(target / KEY) as temporary:
        temporary.write_text(json.dumps({"arms": list(arms), "pictures": key}, indent=1), encoding="utf-8")
    return run


def unblind(folder: Path, seed: int = 0) -> dict[str, Paired]:
    """Compare the arms of a blind look by the labels of its run, each with the first; unsure pictures are left out.

    Raises
    ------
    HandscopeError
        There is no blind look, or nothing of it is labelled.
    """
    key = verdicts_of(folder)
    arms = list(dict.fromkeys(key["arm"]))
    wide = key.pivot(index="sample", columns="arm", values="bad")
    prompts = key.drop_duplicates("sample").set_index("sample")["prompt"].loc[wide.index]
    return {arm: paired_rates(wide[arms[0]], wide[arm], prompts, seed=seed) for arm in arms[1:]}


def verdicts_of(folder: Path) -> pd.DataFrame:
    """The labels of a blind look: arm, sample, prompt, verdict, kinds and bad, a row a picture, NaN without one.

    Raises
    ------
    HandscopeError
        There is no blind look.
    """
    run = Run(folder / "blind")
    path = run.path / KEY
    if not path.exists():
        raise HandscopeError(f"There is no blind look in {run.path}: make one first.")
    said = json.loads(path.read_text(encoding="utf-8"))
    key = pd.DataFrame.from_dict(said["pictures"], orient="index", columns=["arm", "sample"])
    labels = Labels(run.labels_path).table().set_index("sample")
    for name in ("verdict", "kinds", "bad"):
        key[name] = labels[name]
    key["prompt"] = as_seen(run).set_index("sample")["prompt"]
    return key.sort_values("arm", key=lambda arm: arm.map(said["arms"].index), kind="stable", ignore_index=True)
