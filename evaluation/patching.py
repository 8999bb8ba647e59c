"""Interchange over a labelled run: every block and step, with its controls, part by part.

A *part* is one arm on one batch of pairs, and a file: a run that was killed goes on, and several machines can share the
parts. What the parts come to is in `evaluation.causal_map`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..errors import HandscopeError
from ..extract.address import Block, Cell, Plan
from ..files import atomic, write_csv
from ..guidance.attribution import attributed, exact
from ..guidance.interchange import Drawn, Interchange, elsewhere, share_of_way
from ..labeling.database.annotation import Annotation
from ..labeling.database.labels import Labels
from ..models.model import Model
from ..parallel import Failed, finished
from ..progress import Progress, quiet
from ..run.folder import Run
from ..run.trajectory import Trajectory

Pictures = NDArray[np.uint8]
Masks = NDArray[np.bool_]

MAIN = "donor"
LATENTS = "latents"
CONTROLS = ("own class", "other prompt", "elsewhere")
WINDOWS = ("blocks on", "steps on")
ARMS = (MAIN, LATENTS, *CONTROLS, *WINDOWS)
"""What is put in: the donor's values at the tokens of either instance; its latents there; values of a donor of the
recipient's own class, or of another prompt; the donor's at as many tokens elsewhere; the donor's in this block and all
later ones, or at this step and all later ones."""
FIRST_ORDER = "first order"
"""Nothing is drawn on: what the predicted clean picture of the step does, measured and estimated from its gradient."""

STRIPS = 4
"""Pairs, the first ones, of which the pictures are kept."""


@dataclass(frozen=True, eq=False)
class Looked:
    """What was measured on n pictures.

    Attributes
    ----------
    bad : array of shape (n,), the judge's probability of bad
    shapes : for each name, bool pixels of shape (n, height, width), or numbers of shape (n, features) of one scale
    """

    bad: NDArray[np.float64]
    shapes: Mapping[str, NDArray]


Look = Callable[[Pictures, Sequence[str]], Looked]
"""From pictures (n, height, width, 3) and their prompts to what is measured on them."""


class Samples:
    """What is exchanged, by name: the samples of a labelled run."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def _rows(self) -> dict[str, dict[str, Any]]:
        return self.run.metadata()

    @cached_property
    def _annotations(self) -> dict[str, Annotation]:
        return Labels(self.run.labels_path).current()

    def prompt(self, sample: str) -> str:
        """Its prompt."""
        return str(self._rows[sample]["prompt"])

    def trajectory(self, sample: str) -> Trajectory:
        """Its trajectory."""
        return self.run.trajectory(sample)

    def tokens(self, sample: str) -> Masks:
        """Its tokens, bool of shape (tokens,); HandscopeError where it is not labelled."""
        if sample not in self._annotations:
            raise HandscopeError(
                f"{sample} is not labelled in {self.run.labels_path}: interchange needs its tokens."
            )
        return (self._annotations[sample].instances > 0).flatten()

    def drawn(self, samples: Sequence[str]) -> Drawn:
        """Several of them, one behind the other."""
        return Drawn(tuple(map(self.prompt, samples)), tuple(map(self.trajectory, samples)))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is put in, and where.

    Attributes
    ----------
    blocks : tuple of str, or of sites such as ``double.1:attn.gated``
    steps : tuple of int
    arms : mapping of str to int
        Of each control and window, to how many of the pairs it is done, the first ones, in whole batches; the rest is
        done to all.
    batch_size : int
    seed : int
    """

    blocks: tuple[str, ...]
    steps: tuple[int, ...]
    arms: Mapping[str, int]
    batch_size: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """One arm on one batch of pairs."""

    arm: str
    batch: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.arm.replace(' ', '_')}-{self.batch:03d}"


def parts_of(pairs: int, settings: Settings) -> list[Part]:
    """Every part, batch after batch, so that what is done at any time has its controls."""
    counts = {MAIN: pairs, LATENTS: pairs, FIRST_ORDER: pairs, **settings.arms}
    batches = range(-(-pairs // settings.batch_size))
    return [
        Part(arm, batch)
        for batch, arm in product(batches, (*ARMS, FIRST_ORDER))
        if batch * settings.batch_size < min(counts.get(arm, 0), pairs)
    ]


def patch_parts(
    model: Model,
    run: Run,
    folder: Path,
    pairs: pd.DataFrame,
    look: Look,
    settings: Settings,
    shard: tuple[int, int] | None = None,
    samples: Samples | None = None,
    progress: Progress = quiet,
) -> None:
    """Do the parts that are not there yet.

    Parameters
    ----------
    folder : Path
        Gets ``parts/ARM-BATCH.csv``, a row for each pair and cell, and ``strips/`` with pictures of the first pairs.
    pairs : DataFrame
        As of `handscope.evaluation.patch_pairs.stored_pairs`.
    look : function
        The judge and what else is measured, handed in.
    shard : tuple of int, optional
        (i, n), counted from 1: this machine's part of the parts.
    samples : Samples, optional
        Where the samples of the pairs are; the run's own by default.

    Raises
    ------
    HandscopeError
        A step, a block or a site is not the model's; samples lack trajectories or labels; the parts in the folder are
        of other pairs or settings.
    """
    patching = _Patching(model, run, folder, pairs, look, settings, samples or Samples(run))
    patching.check()
    every = parts_of(len(pairs), settings)
    own = [part for number, part in enumerate(every) if shard is None or number % shard[1] == shard[0] - 1]
    left = [part for part in own if not _path(folder, part).exists()]
    done = len(own) - len(left)
    progress("patch", done, len(own))
    for _, failed in finished(patching.do, left, "patch", model, progress):
        if isinstance(failed, Failed):
            raise failed.error
        done += 1
        progress("patch", done, len(own))


def missing_parts(folder: Path, pairs: int, settings: Settings) -> list[Part]:
    """Parts that no machine has done yet."""
    return [part for part in parts_of(pairs, settings) if not _path(folder, part).exists()]


def _path(folder: Path, part: Part) -> Path:
    return folder / "parts" / f"{part.name}.csv"


@dataclass(frozen=True, eq=False)
class _Donation:
    """A batch of recipients with a donor each, and the tokens that are exchanged."""

    recipients: Drawn
    donors: Drawn
    masks: Masks


class _Patching:
    def __init__(
        self, model: Model, run: Run, folder: Path, pairs: pd.DataFrame, look: Look, settings: Settings,
        samples: Samples,
    ) -> None:  # fmt: skip
        self.model, self.folder, self.pairs, self.samples = model, folder, pairs, samples
        self.look, self.settings = look, settings
        generation = run.settings["generation"]
        self.of = int(generation["steps"])
        self.interchange = Interchange(
            model, self.of, generation["guidance"], generation["height"], generation["width"]
        )
        self.blocks = [Block.parse(block) for block in settings.blocks]

    def check(self) -> None:
        """Refuse what would stop a part, and parts of other settings."""
        Plan(self.settings.blocks, self.settings.steps, of=self.of).check(self.model.blocks)
        unknown = sorted(self.settings.arms.keys() - {*CONTROLS, *WINDOWS})
        if unknown:
            known = ", ".join((*CONTROLS, *WINDOWS))
            raise HandscopeError(f"Expected controls and windows among {known}, found {', '.join(unknown)}.")
        said = [self.model.weight_hash, self.settings.blocks, self.settings.steps, self.settings.batch_size]
        text = repr([*said, self.settings.seed, self.pairs.to_csv(index=False)])
        now = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = self.folder / "settings.txt"
        before = path.read_text(encoding="utf-8").strip() if path.exists() else now
        if before != now:
            raise HandscopeError(
                f"The parts in {self.folder} are of other pairs, blocks, steps or weights: move the folder away, or "
                "ask for the same as then."
            )
        (self.folder / "parts").mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            temporary.write_text(now + "\n", encoding="utf-8")

    def do(self, part: Part) -> None:
        """Write the file of a part."""
        write_csv(_path(self.folder, part), pd.DataFrame(self.rows(part)))

    def rows(self, part: Part) -> Iterator[dict[str, Any]]:
        """The rows of a part."""
        size = self.settings.batch_size
        rows = self.pairs.iloc[part.batch * size : (part.batch + 1) * size]
        key = {"own class": "own", "other prompt": "other"}.get(part.arm, "donor")
        rows = rows[rows[key] != ""]
        if rows.empty:
            return
        given = self._donation(rows, key)
        if part.arm == FIRST_ORDER:
            yield from self._first_order(rows, given)
            return
        if part.arm == "elsewhere":
            masks = elsewhere(given.masks, self.settings.seed)
            given = _Donation(given.recipients, given.donors, masks)
        before, goal = self._looked(given.recipients), self._looked(given.donors)
        if part == Part(MAIN, 0):
            self._save(rows, "recipient", before[0])
            self._save(rows, "donor", goal[0])
        for cell, final in self._finals(part.arm, given):
            pictures = self._pictures(final)
            looked = self.look(pictures, given.recipients.prompts)
            way = share_of_way(final, given.recipients.final, given.donors.final, given.masks)
            moved = _distances(looked, before[1]), _distances(looked, goal[1])
            outside = _outside(pictures, before[0], given.masks, self.model.grid(*pictures.shape[1:3]))
            self._keep(part, cell, rows, pictures)
            for i, pair in enumerate(rows["pair"]):
                shapes = {
                    f"way_{name}": _share(moved[0][name][i], moved[1][name][i]) for name in looked.shapes
                }
                yield {
                    "pair": pair,
                    "arm": part.arm,
                    "block": "" if cell[0] is None else str(cell[0]),
                    "step": cell[1],
                    "tokens": int(given.masks[i].sum()),
                    "before": before[1].bad[i],
                    "goal": goal[1].bad[i],
                    "bad": looked.bad[i],
                    "way": way[i],
                    **shapes,
                    "outside": outside[i],
                }

    def _first_order(self, rows: pd.DataFrame, given: _Donation) -> Iterator[dict[str, Any]]:
        """What every cell does to the clean picture predicted at its step, and what its gradient says of that."""
        for step in self.settings.steps:
            what = self.interchange, given.recipients, given.donors, self.blocks, step, given.masks
            measured, estimated = exact(*what), attributed(*what)
            for cell, i in product(measured, range(len(rows))):
                yield {
                    "pair": rows["pair"].iloc[i], "arm": FIRST_ORDER, "block": str(cell.block), "step": step,
                    "exact": measured[cell][i], "estimate": estimated[cell][i],
                }  # fmt: skip

    def _finals(self, arm: str, given: _Donation) -> Iterator[tuple[tuple[Block | None, int], Tensor]]:
        """The final latents of every cell of an arm: of `LATENTS`, of every step."""
        interchange, recipients, masks = self.interchange, given.recipients, given.masks
        for step in self.settings.steps:
            if arm == LATENTS:
                yield (None, step), interchange.patched(recipients, step, masks, latents=given.donors.at(step))
                continue
            steps = [step] if arm != "steps on" else list(range(step, 0, -1))
            values = interchange.values(given.donors, Plan(self.blocks, steps, of=self.of), masks)
            for number, block in enumerate(self.blocks):
                chosen = self.blocks[number:] if arm == "blocks on" else [block]
                put = {Cell(one, at): values[Cell(one, at)] for one in chosen for at in steps}
                yield (block, step), interchange.patched(recipients, step, masks, put)

    def _donation(self, rows: pd.DataFrame, key: str) -> _Donation:
        """The tokens are those of either instance."""
        recipients, donors = rows["recipient"].tolist(), rows[key].tolist()
        tokens = self.samples.tokens
        masks = np.stack([tokens(one) | tokens(other) for one, other in zip(recipients, donors)])
        return _Donation(self.samples.drawn(recipients), self.samples.drawn(donors), masks)

    def _pictures(self, latents: Tensor) -> Pictures:
        size = 16
        return np.concatenate([self.interchange.sampling.images(some) for some in latents.split(size)])

    def _looked(self, drawn: Drawn) -> tuple[Pictures, Looked]:
        pictures = self._pictures(drawn.final.to(self.model.device))
        return pictures, self.look(pictures, drawn.prompts)

    def _keep(self, part: Part, cell: tuple[Block | None, int], rows: pd.DataFrame, pictures: Pictures) -> None:
        """Keep the pictures of the first pairs, unselected."""
        if part.batch or part.arm not in (MAIN, LATENTS):
            return
        named = "latents" if cell[0] is None else str(cell[0]).replace(":", "_")
        self._save(rows, f"{named}_{cell[1]:02d}", pictures)

    def _save(self, rows: pd.DataFrame, name: str, pictures: Pictures) -> None:
        for pair, picture in zip(rows["pair"][:STRIPS], pictures):
            path = self.folder / "strips" / f"{pair}_{name}.png"
            path.parent.mkdir(exist_ok=True)
            with atomic(path) as temporary:
                Image.fromarray(picture).save(temporary, format="PNG")


def _distances(one: Looked, other: Looked) -> dict[str, NDArray[np.float64]]:
    """Of pixels, one less intersection over union; of numbers, their distance."""
    found = {}
    for name, values in one.shapes.items():
        theirs = other.shapes[name]
        if values.dtype == bool:
            both, either = (values & theirs).sum((1, 2)), (values | theirs).sum((1, 2))
            found[name] = 1 - np.where(either > 0, both / np.maximum(either, 1), 1.0)
        else:
            found[name] = np.linalg.norm(values - theirs, axis=1)
    return found


def _share(moved: float, left: float) -> float:
    """How far from the recipient: 0 there, 1 at the donor's; NaN where the two are one."""
    return float(moved / (moved + left)) if moved + left > 0 else float("nan")


def _outside(pictures: Pictures, before: Pictures, masks: Masks, grid: tuple[int, int]) -> NDArray[np.float64]:
    """Mean absolute change of pixels outside the tokens, in levels of 0 to 255."""
    rows, columns = grid
    height, width = pictures.shape[1] // rows, pictures.shape[2] // columns
    out = ~np.kron(masks.reshape(-1, rows, columns), np.ones((1, height, width), bool))
    change = np.abs(pictures.astype(np.int16) - before).mean(-1)
    return (change * out).sum((1, 2)) / np.maximum(out.sum((1, 2)), 1)
