"""What lies inside the blocks, measured and drawn: stages that draw with the model they read, and what they say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors import safe_open

from .. import figures
from ..figures import LEVEL
from ..inside.features_stage import features
from ..inside.heads_stage import heads
from ..inside.lens_stage import KINDS, Judge, lens
from ..labeling.database.labels import Labels
from ..labeling.subject import subject_of
from ..models.embedded import NAME, ORGANISMS, organism_of
from ..models.model import Model
from ..organism.judge import Judge as OrganismJudge
from ..organism.shape import features as outline
from ..organism.study.fit_judge import judges_by_prompt
from ..progress import Progress, quiet
from ..run.folder import Run
from ..stages import FEATURES, HEADS, Stage
from .words import CHANCE, number, percent, place

KIND_NAMES = {"own": "the model's own output layer", "fitted": "through a fitted translator"}


def judge_of(run: Run) -> Judge | None:
    """The judge that the subject of a run names, as scores of pictures; None where it names none.

    Of a prompt whose verdicts it was fitted to, it is fitted anew without them: see `judges_by_prompt`.
    """
    if subject_of(run).judge != "organism":
        return None
    organism = organism_of(run.settings)
    name = organism.name if organism else NAME
    others = OrganismJudge.of(name)
    own = judges_by_prompt(name) if ORGANISMS[name].judge == name else {}

    def scores(pictures: NDArray[np.uint8], prompts: Sequence[str]) -> NDArray[np.float64]:
        found = []
        for picture, prompt in zip(pictures, prompts, strict=True):
            judge, values = own.get(prompt, others), outline(picture, prompt)
            found.append(judge.probability(np.array([[values[name] for name in judge.names]]))[0])
        return np.array(found)

    return scores


def lens_and_draw(
    model: Model,
    run: Run,
    blocks: Sequence[str] = (),
    steps: Sequence[int] = (),
    samples: int = 200,
    permutations: int = 1000,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = quiet,
) -> None:
    """The lens stage, as `handscope.inside.lens_stage.lens` does it, with the run's judge; and its figures."""
    table = lens(model, run, judge_of(run), blocks, steps, samples, permutations, folds, seed, progress)
    with mpl.rc_context(figures.STYLE):
        for number_, kind in enumerate(KINDS):
            figures.save(_strip(run, number_), run.figures_dir, f"lens_{kind}")
        figures.save(_maps(table), run.figures_dir, "lens")


def _strip(run: Run, kind: int) -> Figure:
    with safe_open(run.analysis_dir / "lens.safetensors", "numpy") as file:
        told = {name: json.loads(value) for name, value in file.metadata().items()}
        steps = sorted(map(int, file.keys()), reverse=True)
        pictures = np.stack([file.get_tensor(str(step))[kind] for step in steps], axis=1)
    blocks, samples = told["blocks"], told["samples"]
    wide, high = 1.2 + 0.62 * len(steps), 0.8 + 0.62 * len(blocks)
    drawn = figures.figure(2 * wide, high)
    for ax, verdict, place_, sample in zip(drawn.subplots(1, 2), ("good", "bad"), range(2), samples):
        figures.mosaic(pictures[:, :, place_], blocks, [str(step) for step in steps], ax)
        ax.set_title(f"{verdict}: {sample}", fontsize=8)
    return drawn


def _maps(table: pd.DataFrame) -> Figure:
    """What blocks have of the model's word, and below it what a judge sees there, beside a probe."""
    judged = "auc" in table
    wide = 1.9 + 0.62 * max(table["step"].nunique(), 4)
    high = 1.5 + 0.42 * max(table["block"].nunique(), 4)
    drawn = figures.figure(2 * wide, (3 if judged else 1) * high)
    panels = np.reshape(drawn.subplots(3 if judged else 1, 2), (-1, 2))
    for column, kind in enumerate(KINDS):
        rows = table[table["kind"] == kind]
        shown = rows.assign(explained=rows["explained"].clip(lower=-1))
        figures.grid(shown, "explained", None, panels[0, column], label="share explained (−1: or less)")
        panels[0, column].set_title(f"Velocity, {KIND_NAMES[kind]}")
        if judged:
            figures.grid(rows, "within_auc", "within_q", panels[1, column], centre=0.5, label="AUC within prompts")
            panels[1, column].set_title("A judge of the block's picture")
            figures.grid(rows, "change", "change_q", panels[2, column], centre=0.0, label="AUC, less the block before")
            panels[2, column].set_title("What the block adds or takes")
    return drawn


def seen_through(run: Run) -> str:
    """What the lens shows, in a sentence."""
    path = run.analysis_dir / "lens.csv"
    return f"{lens_sentences(pd.read_csv(path))[0]}, in {path}"


def lens_sentences(table: pd.DataFrame) -> list[str]:
    """What the table of the stage allows to be said."""
    row = table.iloc[0]
    n = f"n = {row['n_good'] + row['n_bad']} of {row['n_prompts']} prompts"
    said = []
    for kind, words in KIND_NAMES.items():
        rows = table[table["kind"] == kind]
        half = [
            f"{step}: {next(iter(some.loc[some['explained'] >= 0.5, 'block']), 'none')}"
            for step, some in rows.groupby("step", sort=False)
        ]
        said.append(f"the first block that has half of the model's velocity, {words}, by step ({n}): {'; '.join(half)}")
        if "auc" in table:
            said += _judged(rows, words, n)
    return said


def _judged(rows: pd.DataFrame, words: str, n: str) -> list[str]:
    if rows["within_auc"].isna().all():
        return [f"{words}: no prompt has both a good and a bad sample to compare ({n})"]
    known = rows["within_q"] <= LEVEL
    if not known.any():
        return [f"{words}: a judge of the blocks' pictures tells nothing, {CHANCE} in {len(rows)} cells ({n})"]
    best = rows.loc[rows.loc[known, "within_auc"].idxmax()]
    said = [
        f"{words}: a judge tells bad from good in {known.sum()} of {len(rows)} cells, most in {place(best)}: AUC "
        f"within prompts {number(best['within_auc'])} ({number(best['within_lo'])} to {number(best['within_hi'])}; {n})"
    ]
    called = rows[rows["change_q"] <= LEVEL]
    for sign, verb in ((1, "appears"), (-1, "goes again")):
        some = called[np.sign(called["change"]) == sign]
        where = "; ".join(f"{place(one)} ({number(one['change'], '+')})" for _, one in some.iterrows())
        said.append(f"{words}: what tells them apart {verb} in {where or 'no block'} (q <= {LEVEL})")
    fewer, more = rows["beyond_probe_hi"] < 0, rows["beyond_probe_lo"] > 0
    said.append(
        f"{words}: the judge's AUC is above that of a linear probe of the block in {more.sum()} cells and below it in "
        f"{fewer.sum()} of {len(rows)} (95% intervals, each by itself)"
    )
    return said


def lens_rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Rows of the page: the last step at which cells differ most, block by block."""
    step = int(table["step"].median())
    rows = table[table["step"] == min(table["step"], key=lambda one: abs(one - step))]
    return [
        (
            row.kind,
            f"{row.block} at step {row.step}",
            f"{number(row.explained)} ({number(row.explained_lo)} to {number(row.explained_hi)})",
            *(
                (f"{number(row.within_auc)} ({number(row.within_lo)} to {number(row.within_hi)})",
                 f"{row.within_q:.2g}", number(row.probe_within_auc))
                if "auc" in table
                else ("", "", "")
            ),
        )
        for row in rows.itertuples()
    ]


def features_and_draw(
    model: Model,
    run: Run,
    block: str | None = None,
    steps: Sequence[int] = (),
    wide: int = 4,
    k: int = 16,
    passes: int = 10,
    samples: int = 64,
    permutations: int = 1000,
    seed: int = 0,
    progress: Progress = quiet,
) -> None:
    """The features stage, as `handscope.inside.features_stage.features` does it, with the run's judge; and its figures.
    """
    settings = (block, steps, wide, k, passes, samples, permutations, seed)
    table = features(model, run, judge_of(run), *settings, progress=progress)
    with mpl.rc_context(figures.STYLE):
        figures.save(_patches(run), run.figures_dir, "feature_patches")
        figures.save(_told(table), run.figures_dir, "features")


AROUND = 1
"""Tokens on each side of the one that is shown."""


def _patches(run: Run) -> Figure:
    """Crops of pictures around the tokens at which features are most active."""
    table = pd.read_csv(run.analysis_dir / "feature_patches.csv")
    side = token_pixels(run)
    rows, names = [], []
    for feature, some in table.groupby("feature", sort=False):
        crops = [_crop(run.image(one.sample), one.row, one.col, side) for one in some.itertuples()]
        blank = np.full_like(crops[0], 255)
        rows.append(np.stack([*crops, *[blank] * (table["rank"].max() + 1 - len(crops))]))
        bad = int(some["bad"].sum())
        names.append(f"{feature} ({bad} of {len(some)} bad)")
    drawn = figures.figure(1.9 + 0.75 * rows[0].shape[0], 0.7 + 0.75 * len(rows))
    ranks = [str(rank + 1) for rank in range(rows[0].shape[0])]
    figures.mosaic(np.stack(rows), names, ranks, drawn.subplots(), label="held-out samples, the most active first")
    return drawn


def token_pixels(run: Run) -> int:
    """Pixels a side of a token, from the grid of the labels."""
    sample = next(iter(current := Labels(run.labels_path).current()))
    return int(run.image(sample).shape[0] // current[sample].labels.shape[0])


def _crop(image: NDArray[np.uint8], row: int, column: int, side: int) -> NDArray[np.uint8]:
    """The tokens around one, which is framed; white outside the picture."""
    edge = AROUND * side
    padded = np.pad(image, ((edge, edge), (edge, edge), (0, 0)), constant_values=255)
    crop = padded[row * side : row * side + side + 2 * edge, column * side : column * side + side + 2 * edge].copy()
    inner = slice(edge - 1, edge + side + 1)
    frame = np.zeros(crop.shape[:2], bool)
    frame[inner, inner] = True
    frame[edge : edge + side, edge : edge + side] = False
    crop[frame] = (213, 94, 0)
    return crop


def _told(table: pd.DataFrame) -> Figure:
    """Held-out AUC of each feature over how often it fires."""
    drawn = figures.figure(6.0, 3.8)
    ax = drawn.subplots()
    known = table["q"] <= LEVEL
    for some, label, fill in ((table[~known], CHANCE, "none"), (table[known], f"q ≤ {LEVEL}", figures.BAD)):
        if len(some):
            ax.scatter(some["fires"], some["auc"], s=22, facecolors=fill, edgecolors=figures.BAD,
                       label=f"{label} ({len(some)} features)")  # fmt: skip
    ax.axhline(0.5, color="#8A8A8A", linewidth=0.8, linestyle=":")
    ax.set_xscale("log")
    ax.set_xlabel("share of held-out tokens that activate it")
    ax.set_ylabel("held-out AUC of its mean activity")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, columnspacing=1)
    return drawn


def taken_apart(run: Run) -> str:
    """What the features show, in a sentence."""
    path = run.analysis_dir / "features.csv"
    return f"{feature_sentences(run_tables(run, FEATURES))[0]}, in {path}"


def run_tables(run: Run, stage: Stage) -> dict[str, pd.DataFrame]:
    """The tables of a stage that a run has, by name."""
    paths = {table.name: run.path / table.path for table in stage.tables}
    return {name: pd.read_csv(path) for name, path in paths.items() if path.exists()}


def feature_sentences(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """What the tables of the stage allow to be said."""
    said = []
    for kind, rows in tables["feature_models"].groupby("kind", sort=False):
        row, worst = rows.iloc[0], rows.loc[rows["lost"].idxmax()]
        said.append(
            f"{kind}: {row['features']} features, {row['active']:.1f} active in a token, explain "
            f"{percent(row['explained'])} of the variance of {row['block']} at {row['n_tokens']:,} tokens of prompts "
            f"that were held out, and {percent(row['dead'])} are dead there; the velocity loses "
            f"{percent(rows['lost'].min())} to {percent(worst['lost'])} of what it loses with the mean in their place "
            f"({row['n_samples']} samples, most at step {worst['step']})"
        )
    said += [_firing(tables["features"])]
    effects = tables.get("feature_effects", pd.DataFrame())
    if len(effects):
        said.append(_steered(effects))
    return said


def _firing(table: pd.DataFrame) -> str:
    row = table.iloc[0]
    n = f"{row['n_good'] + row['n_bad']:.0f} samples of {row['n_prompts']:.0f} held-out prompts"
    known, inside = table["q"] <= LEVEL, table["within_q"] <= LEVEL
    if not known.any() and not inside.any():
        return f"no feature of {len(table)} fires otherwise on bad samples: {CHANCE} ({n})"
    prefix = "" if known.any() else "within_"
    best = table.loc[(known if known.any() else inside).mul(table[f"{prefix}auc"]).idxmax()]
    more = "more" if best["direction"] > 0 else "less"
    return (
        f"{known.sum()} of {len(table)} features fire otherwise on bad samples, and {inside.sum()} within prompts "
        f"(q <= {LEVEL}; {n}); most of all feature {best['feature']:.0f}, {more} active on bad ones: held-out AUC "
        f"{number(best[f'{prefix}auc'])} ({number(best[f'{prefix}lo'])} to {number(best[f'{prefix}hi'])})"
    )


def _steered(table: pd.DataFrame) -> str:
    own, controls = table[~table["control"]], table[table["control"]]
    parts = []
    for row in own.itertuples():
        other = controls[controls["what"] == row.what]
        parts.append(
            f"{row.what} {number(100 * row.difference, '+')} points ({number(100 * row.lo, '+')} to "
            f"{number(100 * row.hi, '+')}; p against its controls at most {row.control_p:.2g}), controls "
            f"{number(100 * other['difference'].min(), '+')} to {number(100 * other['difference'].max(), '+')}"
        )
    first = own.iloc[0]
    return (
        f"feature {first['feature']}, which told most on the prompts it was fitted to, changes the malformed rate of "
        f"{first['n']} held-out samples from {percent(first['before'])}: {'; '.join(parts)}"
    )


def feature_rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Rows of the page: the features that tell most."""
    return [
        (
            str(row.feature),
            "bad" if row.direction > 0 else "good",
            percent(row.fires),
            f"{number(row.auc)} ({number(row.lo)} to {number(row.hi)})",
            f"{row.q:.2g}",
            f"{row.p_family:.2g}",
            f"{number(row.within_auc)} ({number(row.within_lo)} to {number(row.within_hi)})",
            f"{row.within_q:.2g}",
        )
        for row in table.sort_values(["p", "auc"], ascending=[True, False]).head(6).itertuples()
    ]


def heads_and_draw(
    model: Model,
    run: Run,
    blocks: Sequence[str] = (),
    steps: Sequence[int] = (),
    samples: int = 200,
    permutations: int = 1000,
    folds: int = 5,
    seed: int = 0,
    progress: Progress = quiet,
) -> None:
    """The heads stage, as `handscope.inside.heads_stage.heads` does it; and its figure."""
    table = heads(model, run, blocks, steps, samples, permutations, folds, seed, progress)
    with mpl.rc_context(figures.STYLE):
        figures.save(_heads(table), run.figures_dir, "heads")


GROUP_NAMES = {
    "count": "count words", "words": "other words", "padding": "the rest of the text", "text": "text",
    "subject": "other tokens of the subject", "rest": "the rest of the picture",
}  # fmt: skip


def _heads(table: pd.DataFrame) -> Figure:
    """For each group, heads × steps: what tells samples apart, hatched where it cannot be told from chance."""
    paired = "dz" in table
    value, centre, label = ("dz", 0.0, "d_z, held out") if paired else ("auc", 0.5, "held-out AUC, bad from good")
    names = list(dict.fromkeys(table["group"]))
    table = table.assign(head=table["head"].astype(str), block=table["block"] + " head " + table["head"].astype(str))
    wide = 2.6 + 0.62 * max(table["step"].nunique(), 4)
    many = -(-len(names) // 2)
    drawn = figures.figure(2 * wide, (1.4 + 0.3 * table["block"].nunique()) * many)
    panels = drawn.subplots(many, 2).ravel()
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(panels, names):
        rows = table[table["group"] == name]
        figures.grid(rows, value, "q", ax, centre=centre, label=label)
        ax.set_title(GROUP_NAMES[name].capitalize())
    return drawn


def looked_at(run: Run) -> str:
    """What heads look at, in a sentence."""
    name, table = next(iter(run_tables(run, HEADS).items()))
    return f"{head_sentences(table)[0]}, in {run.analysis_dir / name}.csv"


def head_sentences(table: pd.DataFrame) -> list[str]:
    """What a table of the stage allows to be said."""
    paired, first = "dz" in table, table.iloc[0]
    n = (
        f"n = {first['n_pairs']} pairs"
        if paired
        else f"n = {first['n_good'] + first['n_bad']} of {first['n_prompts']} prompts"
    )
    what = "the two prompts of a pair" if paired else "bad and good samples"
    known, discovered = table["p_family"] <= LEVEL, table["q"] <= LEVEL
    inside = "" if paired else f"; within prompts {(table['within_q'] <= LEVEL).sum()} do (q <= {LEVEL})"
    value, low, high = ("dz", "dz_lo", "dz_hi") if paired else ("auc", "lo", "hi")
    best = table.loc[(table[discovered] if discovered.any() else table)[value].idxmax()]
    effect = (
        f"{best['block']} head {best['head']} at step {best['step']}, its attention to {GROUP_NAMES[best['group']]}: "
        f"{'d_z' if paired else 'held-out AUC'} {number(best[value])} ({number(best[low])} to {number(best[high])})"
    )
    if not discovered.any():
        said = [
            f"no head looks otherwise at anything between {what}: {CHANCE} in {len(table)}{inside} ({n}); "
            f"largest {effect}"
        ]
    else:
        said = [
            f"{discovered.sum()} of {len(table)} heads, steps and groups differ between {what} (q <= {LEVEL}), "
            f"{known.sum()} with any error among all at {percent(LEVEL)}{inside} ({n}); most of all {effect}"
        ]
    means = table.groupby("group", sort=False)["mean_first" if paired else "mean"].mean()
    shares = ", ".join(f"{GROUP_NAMES[str(name)]} {percent(share)}" for name, share in means.items())
    return [*said, f"tokens of the subject give, in the mean over heads and steps, {shares}; the rest to themselves"]


def head_rows(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Rows of the page: what differs most."""
    paired = "dz" in table
    value, low, high = ("dz", "dz_lo", "dz_hi") if paired else ("auc", "lo", "hi")
    means = ("mean_first", "mean_second") if paired else ("mean_good", "mean_bad")
    return [
        (
            f"{row['block']} head {row['head']} at step {row['step']}",
            GROUP_NAMES[row["group"]],
            *(f"{100 * row[name]:.1f}%" for name in means),
            f"{number(row[value])} ({number(row[low])} to {number(row[high])})",
            f"{row['q']:.2g}",
            f"{row['p_family']:.2g}",
        )
        for _, row in table.sort_values(["p", value], ascending=[True, False]).head(6).iterrows()
    ]
