"""Interchange on a run: made, tested and drawn, as a causal map beside the probe's, and strips of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from .. import figures
from ..errors import HandscopeError
from ..evaluation.causal_map import agreements, causal_map, effects_of, first_order_map, probe_map
from ..evaluation.patch_donors import drawn_pairs
from ..evaluation.patch_pairs import stored_pairs
from ..evaluation.patching import CONTROLS, LATENTS, MAIN, WINDOWS, Samples, Settings, missing_parts, patch_parts
from ..extract.store.shard import shards
from ..extract.store.store import ActivationStore
from ..files import write_csv
from ..guidance.interchange import Interchange
from ..models.embedded import organism_of
from ..models.model import Model
from ..organism.silhouette import foreground
from ..organism.study.looks import organism_look
from ..progress import Progress, quiet
from ..run.folder import Run
from .outcomes import patched

STORED = "noise"
"""Donors of the same prompt and another noise, among the samples of the run."""


def patch_and_draw(
    model: Model,
    run: Run,
    pairs: int = 200,
    controls: int = 200,
    windows: int = 0,
    blocks: Sequence[str] | None = None,
    steps: Sequence[int] | None = None,
    batch_size: int = 20,
    seed: int = 0,
    kind: str = STORED,
    shard: tuple[int, int] | None = None,
    progress: Progress = quiet,
) -> None:
    """Exchange activations between samples of a run at every block and step, and say what that changes.

    Parameters
    ----------
    pairs : int
        How many at most; of them, `controls` get the controls and `windows` the windows, in whole batches.
    blocks : sequence of str, optional
        Blocks, or sites such as ``double.1:attn.gated``; those that were extracted by default, else all.
    steps : sequence of int, optional
        Likewise.
    kind : str
        Whose the donors are: `STORED`, other samples of the run; or one of `handscope.evaluation.patch_donors.DRAWN`,
        drawn for their recipients. Tables and figures of these lie in ``patch/KIND``.
    shard : (int, int), optional
        This machine's part, counted from 1; tables and figures are made by the one that finds all parts there.

    Raises
    ------
    HandscopeError
        The run is no organism's, whose pictures the judge knows; or as in `patch_parts` and `stored_pairs`.
    """
    if (organism := organism_of(run.settings)) is None:
        raise HandscopeError(
            f"The judge of this experiment knows the organisms' pictures only, and {run.path} is of another model: "
            "call handscope.evaluation.patching.patch_parts with a judge of its own."
        )
    plan = ActivationStore(run.activations_dir).plan if shards(run.activations_dir) else None
    settings = Settings(
        blocks=tuple(blocks or (map(str, plan.blocks) if plan else model.carrying("image"))),
        steps=tuple(steps or (plan.steps if plan else range(int(run.settings["generation"]["steps"]), 0, -1))),
        arms=dict.fromkeys(CONTROLS, controls) | dict.fromkeys(WINDOWS, windows),
        batch_size=batch_size,
        seed=seed,
    )
    look = partial(organism_look, organism.name)
    own = kind == STORED
    folder = run.path / "patch" if own else run.path / "patch" / kind
    if own:
        table, samples = stored_pairs(run, pairs, seed), Samples(run)
    else:
        generation = run.settings["generation"]
        settings_of = generation["steps"], generation["guidance"], generation["height"], generation["width"]
        table, samples = drawn_pairs(
            Interchange(model, *settings_of), run, folder, kind, pairs, look, foreground, seed=seed,
            progress=progress,
        )  # fmt: skip
    patch_parts(model, run, folder, table, look, settings, shard, samples, progress)
    if not missing_parts(folder, len(table), settings):
        told(run, table, samples, folder, run.analysis_dir if own else folder, run.figures_dir if own else folder, seed)


def told(
    run: Run, pairs: pd.DataFrame, samples: Samples, folder: Path, tables: Path, drawings: Path, seed: int = 0
) -> None:
    """Tables and figures of the parts in a folder, as far as they are there."""
    rows = effects_of(folder, pairs)
    path = run.analysis_dir / "probes.csv"
    probes = pd.read_csv(path) if path.exists() else None
    table = causal_map(rows, seed)
    known = None if probes is None else probe_map(probes)
    written = {"patch_pairs": pairs, "patch": table, "patch_first_order": first_order_map(rows, seed),
               "patch_agreement": agreements(rows, known, seed)}  # fmt: skip
    for name, some in written.items():
        if len(some):
            write_csv(tables / f"{name}.csv", some)
    figures.save(map_plate(table, probes), drawings, "patch")
    figures.save(strips_plate(folder / "strips", pairs.head(2)), drawings, "patch_strips")


def summary(run: Run) -> str:
    """What the map showed, and where the rest is."""
    path = run.analysis_dir / "patch.csv"
    if not path.exists():
        return f"parts of the map in {run.path / 'patch'}, and others to come"
    return f"{patched(pd.read_csv(path)).brief} In {path}"


def map_plate(table: pd.DataFrame, probes: pd.DataFrame | None) -> Figure:
    """What a probe knows in each cell, what the cell's activations do, and what they do beyond the latents.

    Parameters
    ----------
    table : as of `handscope.evaluation.causal_map.causal_map`
    probes : ``analysis/probes.csv``, where it is there
    """
    both = table[table["direction"] == "both"]
    main = both[both["arm"] == MAIN]
    panels = [
        (main, "moved", "q", 0.0, "Activations of the other class", "probability of bad, towards the donor's class"),
        (main, "way", None, None, "The picture follows", "share of the way to the donor's latents"),
    ]
    for control, words in ((LATENTS, "the latents"), ("own class", "a donor of the own class")):
        name = f"beyond_{control.replace(' ', '_')}"
        if name in main and main[name].notna().any():
            some = main.dropna(subset=[name])
            panels.append((some, name, f"{name}_q", 0.0, f"Beyond {words}", f"moved further than by {words}"))
    for window in WINDOWS:
        some = both[both["arm"] == window]
        if len(some):
            panels.append((some, "moved", "q", 0.0, f"A window: this and all later {window.partition(' ')[0]}",
                           "probability of bad, towards the donor's class"))  # fmt: skip
    if probes is not None:
        sure = probes[probes["subset"] == "sure"]
        prefix = "within_" if sure["within_q"].notna().any() else ""
        panels.insert(0, (sure, f"{prefix}auc", f"{prefix}q", 0.5, "A linear probe knows", "held-out AUC"))
    width, height = 1.9 + 0.62 * main["step"].nunique(), 1.5 + 0.42 * main["block"].nunique()
    with rc_context(figures.STYLE):
        drawn = figures.figure(max(width, 5.0), height * len(panels))
        axes = np.atleast_1d(drawn.subplots(len(panels), 1))
        for ax, (cells, value, q, centre, title, label) in zip(axes, panels):
            figures.grid(cells, value, q, ax, centre=centre, label=label).set_title(title)
    return drawn


def strips_plate(folder: Path, pairs: pd.DataFrame) -> Figure:
    """Recipient, donor, and what became of the recipient at every cell: of the first pairs, whatever they show."""
    names = sorted({path.stem.split("_", 1)[1] for path in folder.glob(f"{pairs['pair'].iloc[0]}_*_*.png")})
    steps = sorted({int(name.rpartition("_")[2]) for name in names}, reverse=True)
    blocks = sorted({name.rpartition("_")[0] for name in names}, key=lambda name: (name == "latents", name))
    from PIL import Image

    with rc_context(figures.STYLE):
        drawn = figures.figure(1.0 * (len(steps) + 2) + 1.0, 1.0 * len(blocks) * len(pairs) + 0.6)
        panels = drawn.subplots(len(blocks) * len(pairs), len(steps) + 2, squeeze=False)
        for ax in panels.flat:
            ax.set_axis_off()
        for number, row in enumerate(pairs.itertuples()):
            own = panels[number * len(blocks) : (number + 1) * len(blocks)]
            for ax, said in zip(own[0], ("recipient", "donor")):
                ax.imshow(np.asarray(Image.open(folder / f"{row.pair}_{said}.png")), interpolation="nearest")
                ax.set_title(f"{said}\n{'good' if (row.toward > 0) == (said == 'recipient') else 'bad'}", fontsize=8)
            for line, block in zip(own, blocks):
                for ax, step in zip(line[2:], steps):
                    path = folder / f"{row.pair}_{block}_{step:02d}.png"
                    if path.exists():
                        ax.imshow(np.asarray(Image.open(path)), interpolation="nearest")
                    if block == blocks[0]:
                        ax.set_title(f"step {step}", fontsize=8)
                line[2].text(-0.08, 0.5, block, transform=line[2].transAxes, ha="right", va="center", fontsize=8)
    return drawn
