"""Whether what is rare in training is drawn wrong: two organisms, of which one saw little of one gesture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student
from scipy.stats import ttest_ind

from ..errors import HandscopeError
from ..extract.generate import generate
from ..files import atomic
from ..models.model import load
from ..organism.captions import CAPTIONS, Caption
from ..organism.judge import Judge
from ..progress import Progress, quiet
from ..run.folder import Run

SIDES = ("balanced", "imbalanced")


def thin(work: Path, out: Path, gesture: str, keep: float = 0.05, shards: int | None = None, seed: int = 0) -> None:
    """Two work folders for the recipe of training, `out` / balanced and / imbalanced, from one whose renders are drawn.

    In the imbalanced one all but the share `keep` of the renders of `gesture` are left out; in the balanced one as many
    renders of each shard, of any gesture. So both have as many renders, and differ in what they show. Where the renders
    are encoded already (``latents/NNNN.npy``), their latents are thinned alike.

    Parameters
    ----------
    work : with ``renders/NNNN.npy`` and ``.json``, as the stage render leaves them
    shards : how many are taken; all by default

    Raises
    ------
    HandscopeError
        There are no renders, none is of the gesture, or `out` holds others already.
    """
    paths = sorted((work / "renders").glob("[0-9]*.json"))[:shards]
    if not paths:
        raise HandscopeError(f"There are no renders in {work / 'renders'}: run the stage render of the training first.")
    said = json.dumps({"gesture": gesture, "keep": keep, "seed": seed, "shards": [path.name for path in paths]})
    mark = out / "thinned.json"
    if mark.exists() and mark.read_text(encoding="utf-8") != said:
        raise HandscopeError(f"{out} holds renders that were thinned otherwise: give another folder, or move it away.")
    if not any(Caption.parse(one).gesture == gesture for one in json.loads(paths[0].read_text())):
        raise HandscopeError(f"No render of {paths[0]} shows the gesture {gesture!r}.")
    out.mkdir(parents=True, exist_ok=True)
    with atomic(mark) as temporary:
        temporary.write_text(said, encoding="utf-8")
    for number, path in enumerate(paths):
        captions = json.loads(path.read_text())
        random = np.random.default_rng([seed, number])
        shown = np.array([Caption.parse(one).gesture == gesture for one in captions])
        rare = ~shown | (random.random(len(shown)) < keep)
        fewer = np.zeros(len(shown), bool)
        fewer[random.choice(len(shown), int(rare.sum()), replace=False)] = True
        for side, chosen in zip(SIDES, (fewer, rare)):
            _taken(work, out / side, path, captions, chosen)
    for side in SIDES:
        for other in [*(work / "latents").glob("*.txt"), *(work / "latents").glob("*.json"), *work.glob("*.pt")]:
            target = out / side / other.relative_to(work)
            if other.name != "transformer.pt" and not target.exists():
                with atomic(target) as temporary:
                    temporary.write_bytes(other.read_bytes())


def _taken(work: Path, out: Path, path: Path, captions: Sequence[str], chosen: NDArray[np.bool_]) -> None:
    """The chosen renders of one shard, their latents and those of their mirrors; the captions last."""
    target = out / "renders" / path.name
    if target.exists():
        return
    encoded = work / "latents" / path.with_suffix(".npy").name
    for source, rows in ((path.with_suffix(".npy"), chosen), (encoded, np.concatenate([chosen, chosen]))):
        if source.exists():
            place = out / source.relative_to(work)
            place.parent.mkdir(parents=True, exist_ok=True)
            with atomic(place) as temporary, open(temporary, "wb") as file:
                np.save(file, np.load(source)[rows])
    with atomic(target) as temporary:
        temporary.write_text(json.dumps([one for one, kept in zip(captions, chosen) if kept]), encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Imbalance:
    """What rarity did.

    Attributes
    ----------
    rates : DataFrame, a row a gesture: gesture, n, balanced, imbalanced (mean probability of "bad" by the judge), added
        (their difference), lo, hi (95%, prompts as units)
    beyond, lo, hi, p : how much more was added to the rare gesture than to the others, its 95% interval and two-sided
        p, by Welch's t over prompts
    gesture : the rare one
    """

    rates: pd.DataFrame
    beyond: float
    lo: float
    hi: float
    p: float
    gesture: str


def compare(
    models: dict[str, str], out: Path, gesture: str, seeds: int = 2, steps: int = 20, progress: Progress = quiet
) -> Imbalance:
    """Draw every caption with both models from the same noises, judge, and compare gesture by gesture.

    Parameters
    ----------
    models : the pipeline folders of `SIDES`
    out : where the pictures are kept, a run folder each; what is there is not drawn again

    Notes
    -----
    The judge learnt from pictures of the first organism: on others its probabilities are a score, and no rate. It is
    the same for both sides, and the question is of a difference of differences.
    """
    judge, tables = Judge.load(), []
    prompts = [str(caption) for caption in CAPTIONS]
    for side in SIDES:
        run = Run(out / side)
        generate(load(models[side]), run, prompts, range(seeds), steps, trajectories=False, progress=progress)
        samples = run.samples()
        bad = [judge.verdict(run.image(row.sample), row.prompt)[1] for row in samples.itertuples()]
        tables.append(samples.assign(bad=bad).set_index("sample"))
    table = tables[0][["prompt"]].assign(balanced=tables[0]["bad"], imbalanced=tables[1]["bad"])
    return of_table(table, gesture)


def of_table(table: pd.DataFrame, gesture: str) -> Imbalance:
    """From a table with a row a sample: prompt, balanced, imbalanced."""
    table = table.assign(added=table["imbalanced"] - table["balanced"])
    by_prompt = table.groupby("prompt")[[*SIDES, "added"]].mean()
    of = np.array([Caption.parse(str(prompt)).gesture for prompt in by_prompt.index])
    rows: list[dict[str, Any]] = []
    for one in dict.fromkeys(caption.gesture for caption in CAPTIONS):
        part = by_prompt[of == one]
        half = student.ppf(0.975, len(part) - 1) * part["added"].std() / np.sqrt(len(part))
        mean = part.mean()
        n = int(table["prompt"].isin(part.index).sum())
        row = {"gesture": one, "n": n} | {side: mean[side] for side in SIDES} | {"added": mean["added"]}
        rows.append(row | {"lo": mean["added"] - half, "hi": mean["added"] + half})
    rare, others = (by_prompt["added"].to_numpy()[of == gesture], by_prompt["added"].to_numpy()[of != gesture])
    test = ttest_ind(rare, others, equal_var=False)
    low, high = test.confidence_interval(0.95)
    beyond = float(rare.mean() - others.mean())
    return Imbalance(pd.DataFrame(rows), beyond, float(low), float(high), float(test.pvalue), gesture)
