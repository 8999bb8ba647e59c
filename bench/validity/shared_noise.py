"""What prompts that share their noises do to a held-out AUC: ``python bench/validity/shared_noise.py FOLDER``.

The organism draws the study's 32 prompts from 20 noises that all of them share, and again from noises of each prompt's
own; hand labels say which hands are bad where they ship, else the judge. Ridge probes (one penalty, settled here) of a
block with its places, of the predicted clean latents and of the noisy ones are tested on prompts that they were not
fitted to; where noises are shared also on noises, and on both, that they were not fitted to. AUCs are within prompts.
About four minutes of a core; FOLDER keeps the two runs.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.folds import grouped_folds
from handscope.analysis.statistics.intervals import bootstrap_auc
from handscope.evaluation.early_looks import features_of
from handscope.extract.generate import generate
from handscope.labeling.table import sample_table
from handscope.models.model import Model, load
from handscope.organism.study.auto import label_auto
from handscope.probes.ridge import RidgeProbe
from handscope.progress import Progress, bars
from handscope.run.folder import Run
from handscope.run.prompts import read_prompts
from handscope.study_file import STUDY_PROMPTS

BLOCK, STEPS, COUNT, L2, FOLDS = "single.3", (18, 14, 8), 20, 1000.0, 5


def held_out(x: np.ndarray, bad: np.ndarray, prompts: np.ndarray, seeds: np.ndarray, left_out: str) -> np.ndarray:
    """Scores (n,) by probes that were fitted without a sample's prompt, its noise, or both."""
    prompt, noise = grouped_folds(prompts, FOLDS), grouped_folds(seeds, FOLDS)
    score = np.empty(len(bad))
    for f, g in np.unique(np.stack([prompt, noise]), axis=1).T:
        test = (prompt == f) & (noise == g)
        kept = {"prompt": prompt != f, "noise": noise != g, "both": (prompt != f) & (noise != g)}[left_out]
        probe = RidgeProbe(L2).fit(x[kept], bad[kept])
        score[test] = x[test] @ probe.coef_ + probe.intercept_
    return score


def of_run(model: Model, run: Run, shared: bool, progress: Progress) -> pd.DataFrame:
    """One row a feature and step."""
    design = "crossed" if shared else "own"
    generate(model, run, read_prompts(STUDY_PROMPTS), range(COUNT), design=design, progress=progress)
    label_auto(run, progress=progress)
    table = sample_table(run)
    table = table[table["verdict"].isin(("good", "bad"))].reset_index(drop=True)
    bad, prompts, seeds = (table[name].to_numpy() for name in ("bad", "prompt", "seed"))
    rows = []
    for (name, step), x in features_of(model, run, table, STEPS, [BLOCK], progress).items():
        row = {"noises": "shared" if shared else "own", "feature": name, "step": step, "n": len(bad)}
        for left_out in ("prompt", "noise", "both") if shared else ("prompt",):
            score = held_out(x, bad.astype(float), prompts, seeds, left_out)
            low, high = bootstrap_auc(score, bad, prompts, draws=300, within=True)
            row[f"without its {left_out}"] = f"{auc(score, bad, prompts):.2f} ({low:.2f}-{high:.2f})"
        rows.append(row)
    return pd.DataFrame(rows)


def main(folder: Path) -> None:
    model = load("organism")
    with bars() as progress:
        tables = [of_run(model, Run(folder / name), name == "shared", progress) for name in ("shared", "own")]
    print(pd.concat(tables).fillna("").to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    main(parser.parse_args().folder)
