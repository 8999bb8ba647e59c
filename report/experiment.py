"""The experiment on mending: made and drawn, as a forest of rates, and pictures before and after, unselected."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from .. import figures
from ..errors import HandscopeError
from ..evaluation.arms import arm_run
from ..labeling.subject import subject_of
from ..models.model import Model
from ..organism.study.mend import mend
from ..progress import Progress, quiet
from ..run.folder import Run
from ..run.part import Part
from .outcomes import mended

COLOURS = {"plain": "#555555", "triage": "#009E73", "steering": "#4B2A7B", "guidance": "#0072B2", "control": "#B07D00"}


def mend_and_draw(
    model: Model,
    run: Run,
    seeds: int,
    pilot_seeds: int,
    blocks: Sequence[str],
    window: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    shard: Part | None = None,
    progress: Progress = quiet,
) -> None:
    """Make the experiment, as `mend` does, and draw it into ``figures/mend``, ``mend_pairs`` and ``mend_doses``."""
    table = mend(model, run, seeds, pilot_seeds, blocks, window, names=names, shard=shard, progress=progress)
    if len(table) < 2:
        raise HandscopeError("Only the baseline was drawn: there is nothing to compare it with.")
    folder = run.path / "mend"
    figures.save(forest_plate(table), run.figures_dir, "mend")
    figures.save(pairs_plate(folder, ["baseline", *leading(table)["arm"]]), run.figures_dir, "mend_pairs")
    doses = folder / "pilot" / "doses.csv"
    if doses.exists():
        figures.save(doses_plate(pd.read_csv(doses)), run.figures_dir, "mend_doses")


def leading(table: pd.DataFrame, n: int = 5) -> pd.DataFrame:
    """The rows of the arms after which the fewest are malformed, controls left out."""
    return table[table["family"] != "control"].iloc[1:].sort_values("after").head(n)


def summary(run: Run) -> str:
    """What the arms showed, and where the rest is."""
    path = run.path / "mend" / "arms.csv"
    return f"{mended(pd.read_csv(path), subject_of(run)).brief} In {path}"


def forest_plate(table: pd.DataFrame) -> Figure:
    """The change of the malformed rate of each arm, with its interval over prompts, beside what else it moved.

    Parameters
    ----------
    table : as of `handscope.evaluation.experiment.compared`
    """
    rows = table.iloc[1:].iloc[::-1]
    base = table.iloc[0]
    with rc_context(figures.STYLE):
        drawn = figures.figure(11.0, 1.4 + 0.24 * len(rows))
        left, middle, right = drawn.subplots(1, 3, sharey=True, width_ratios=[3, 1, 1])
        place = np.arange(len(rows))
        colours = [COLOURS[family] for family in rows["family"]]
        left.hlines(place, 100 * rows["low"], 100 * rows["high"], colors=colours, linewidth=2)
        known = (rows["q"] <= figures.LEVEL).to_numpy()
        faces = [colour if one else "white" for colour, one in zip(colours, known)]
        left.scatter(100 * rows["difference"], place, c=faces, edgecolors=colours, s=34, zorder=3)
        left.axvline(0, color="#222222", linewidth=0.9)
        left.axvline(-50 * base["before"], color="#8A8A8A", linewidth=0.9, linestyle="--")
        left.annotate("half the baseline's", (-50 * base["before"], 1), xycoords=("data", "axes fraction"),
                      xytext=(3, 2), textcoords="offset points", fontsize=8, color="#555555")  # fmt: skip
        left.set_yticks(place, rows["arm"])
        left.set_xlabel(f"change of the malformed rate, points (baseline {base['before']:.1%}, n = {base['n']})\n"
                        "filled: q ≤ 0.05")  # fmt: skip
        middle.scatter(rows["kd_ratio"], place, c=colours, s=22)
        middle.axvspan(0.9, 1.1, color="#DDDDDD", zorder=0)
        middle.set_xlabel("distance to renders,\nover the baseline's")
        right.scatter(rows["calls"] / base["calls"], place, c=colours, s=22)
        right.set_xlabel("calls a picture,\nover the baseline's")
        for panel in (left, middle, right):
            panel.tick_params(axis="y", length=0)
            panel.grid(axis="x", color="#EEEEEE")
            panel.set_axisbelow(True)
        for family in dict.fromkeys(rows["family"].iloc[::-1]):
            left.plot([], [], "o", color=COLOURS[family], label=family)
        left.legend(loc="upper left", bbox_to_anchor=(0, -0.12), ncols=5)
    return drawn


def doses_plate(table: pd.DataFrame) -> Figure:
    """Dose and response: the malformed rate and the distance to renders over strength, each group beside its controls.

    Parameters
    ----------
    table : as of `handscope.organism.study.pilot.pilot`
    """
    base = table.iloc[0]
    counts = table[table["family"] != "control"].groupby("group", sort=False)["dose"].nunique()
    groups = [group for group, doses in counts.items() if doses > 1]
    with rc_context(figures.STYLE):
        drawn = figures.figure(2.9 * len(groups) + 0.6, 5.6)
        panels = drawn.subplots(2, len(groups), sharex=True, sharey="row", squeeze=False)
        for column, group in zip(panels.T, groups):
            own = table[table["group"] == group]
            beside = "random" if own["family"].iloc[0] == "steering" else "contrast"
            own = pd.concat([own, table[table["group"] == beside]])
            for (way, rows), (colour, marker) in zip(own.groupby("way", sort=False), cycle(figures.SERIES)):
                control = rows["family"].iloc[0] == "control"
                line = {"color": COLOURS["control"] if control else colour, "linestyle": ":" if control else "-"}
                column[0].plot(rows["dose"], 100 * rows["after"], marker=marker, markersize=4, label=way, **line)
                column[1].plot(rows["dose"], rows["kd_ratio"], marker=marker, markersize=4, **line)
            column[0].axhline(100 * base["after"], color="#222222", linewidth=0.9)
            column[1].axhline(1, color="#222222", linewidth=0.9)
            column[1].axhspan(0.9, 1.1, color="#DDDDDD", zorder=0)
            column[0].set_title(group)
            column[0].legend(fontsize=7)
            column[1].set_xlabel("strength")
        panels[0, 0].set_ylabel(f"malformed, % of {base['n']}\n(line: baseline)")
        panels[1, 0].set_ylabel("distance to renders,\nover the baseline's")
    return drawn


def pairs_plate(folder: Path, arms: list[str], n: int = 10) -> Figure:
    """The first `n` pairs of the baseline and some arms: whatever they show.

    Parameters
    ----------
    folder : the experiment's
    arms : names; the baseline first
    """
    runs = [arm_run(folder, name) for name in arms]
    names = runs[0].samples()["sample"].head(n)
    with rc_context(figures.STYLE):
        drawn = figures.figure(1.1 * n + 1.6, 1.15 * len(arms) + 0.2)
        panels = drawn.subplots(len(arms), n, squeeze=False)
        for line, name, run in zip(panels, arms, runs):
            for panel, sample in zip(line, names):
                panel.imshow(run.image(sample), interpolation="nearest")
                panel.set_xticks([])
                panel.set_yticks([])
                panel.spines[:].set_visible(False)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return drawn
