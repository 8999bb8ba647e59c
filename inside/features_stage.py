"""The features stage: what a block's tokens are made of, which features fire otherwise on bad samples, what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from ..analysis.statistics.folds import codes, grouped_folds
from ..analysis.statistics.intervals import bootstrap_weights, interval
from ..analysis.statistics.paired import paired_rates
from ..analysis.statistics.rank_auc import Verdicts, auc_table
from ..analysis.subject_tokens import SubjectTokens
from ..errors import HandscopeError
from ..extract.address import Cell, Plan
from ..extract.hooks import edit
from ..files import write_csv
from ..labeling.database.labels import Labels
from ..labeling.table import labelled, sample_table
from ..models.sampling import Sampling
from ..progress import Progress, quiet
from ..run.record import fresh, made_from, set_fresh
from ..stages import FEATURES
from .batches import batches_of, in_turn
from .lens_stage import Judge
from .sparse import KINDS, SparseCoder, train

if TYPE_CHECKING:
    from ..models.model import Model
    from ..run.folder import Run

Array = NDArray[np.float64]
Replace = Callable[[Tensor], Tensor]

RARE = 0.05
"""A feature is tested that is active in at least so many of the held-out samples, and not in all tokens alike."""
SHOWN, PATCHES = 6, 8
CONTROLS = 3
STRENGTH = 10.0
"""How many times its usual size a feature is added or taken off: once moves a pixel by less than a thousandth."""
MOST = 400_000
"""Tokens that an autoencoder is fitted to at most."""


@threadpool_limits.wrap(limits=1, user_api="blas")
def features(
    model: Model,
    run: Run,
    judge: Judge | None = None,
    block: str | None = None,
    steps: Sequence[int] = (),
    wide: int = 4,
    k: int = 16,
    passes: int = 10,
    samples: int = 64,
    permutations: int = 1000,
    seed: int = 0,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Fit sparse autoencoders to the subject's tokens of one block, and say what they are worth.

    They are fitted to half of the prompts, and everything that is said of them is of the other half. Writes the tables
    of `handscope.stages.FEATURES` and, in ``features/KIND/``, the autoencoders in the form that SAELens reads; does
    nothing where they are there and belong to the present labels, activations and arguments.

    Parameters
    ----------
    judge : function, optional
        A judge of finished pictures; without one, nothing is steered.
    block, steps : optional
        Of the extraction; the middle one of its blocks, and all its steps, by default.
    wide : features, in widths of the stream
    k : active features of a token
    passes : over the tokens in training
    samples : held-out samples at most whose velocity is read, and which are steered
    permutations : labellings at least; 20 for each feature that is tested

    Returns
    -------
    The table of features.csv.

    Raises
    ------
    HandscopeError
        A cell that is asked for was not extracted, or there are too few samples.
    """
    from ..extract.store.store import ActivationStore

    settings = {
        "block": block, "steps": list(steps), "wide": wide, "k": k, "passes": passes, "samples": samples,
        "permutations": permutations, "seed": seed,
    }  # fmt: skip
    now = made_from(run.path, FEATURES, settings)
    if fresh(run.path, FEATURES, now):
        return pd.read_csv(run.analysis_dir / "features.csv")
    store = ActivationStore(run.activations_dir)
    chosen = block or str(store.plan.blocks[len(store.plan.blocks) // 2])
    steps = steps or [cell.step for cell in store.cells if str(cell.block) == chosen] or store.plan.steps
    cells = [store.plan.cell(f"{chosen}/{step}") for step in steps]
    table = labelled(sample_table(run), "sure", 4, run.path)
    half = grouped_folds(table["prompt"].to_numpy(), 2, seed)
    tokens = _Tokens.of(store, cells, table, half)
    coders, rows = {}, []
    for number, kind in enumerate(KINDS):
        progress("features: fit", number, len(KINDS))
        about = {"block": chosen, "steps": [cell.step for cell in cells], "model": run.settings["model"]["weight_hash"]}
        coders[kind] = train(_some(tokens.x[tokens.half == 0], seed), wide * tokens.x.shape[1], k, kind, passes,
                             seed=seed, about=about)  # fmt: skip
        coders[kind].save(run.path / "features" / kind)
        rows.append(_worth(coders[kind], tokens))
    progress("features: fit", len(KINDS), len(KINDS))
    moved = _Moved.of(model, run, table[half == 1], chosen, samples)
    worth = pd.DataFrame(rows)
    lost = [row for kind, coder in coders.items() for row in moved.lost(kind, coder, tokens, progress)]
    coder = coders[KINDS[0]]
    found, scores = _tested(coder, tokens, permutations, seed)
    write_csv(run.analysis_dir / "feature_models.csv", pd.DataFrame(lost).merge(worth, on="kind"))
    write_csv(run.analysis_dir / "features.csv", found)
    write_csv(run.analysis_dir / "feature_patches.csv", _patches(coder, tokens, found))
    effects = run.analysis_dir / "feature_effects.csv"
    if judge is None:
        effects.unlink(missing_ok=True)
    else:
        write_csv(effects, moved.effects(coder, judge, scores, tokens, [cell.step for cell in cells], seed, progress))
    set_fresh(run.path, FEATURES, now)
    return pd.read_csv(run.analysis_dir / "features.csv")


@dataclass(frozen=True, eq=False)
class _Tokens:
    """The subject's tokens of a block at its steps, all of one step behind those of another.

    Attributes
    ----------
    x : Tensor of shape (tokens, width), float32
    sample, step, row, col, half : int arrays of shape (tokens,): place of its sample, ..., half of its prompt
    table : DataFrame with a row a sample that has tokens
    """

    x: Tensor
    sample: NDArray[np.intp]
    step: NDArray[np.intp]
    row: NDArray[np.intp]
    col: NDArray[np.intp]
    half: NDArray[np.intp]
    table: pd.DataFrame

    @classmethod
    def of(cls, store: Any, cells: Sequence[Cell], table: pd.DataFrame, half: NDArray[np.intp]) -> _Tokens:
        subject = SubjectTokens(store, table["sample"].tolist())
        table = table.assign(half=half).set_index("sample").loc[subject.samples].reset_index()
        own = subject.tokens
        parts = []
        for cell in cells:
            x = np.concatenate([part for part, _ in subject.chunks(cell)])
            if not np.isfinite(x).all():
                raise HandscopeError(f"Cell {cell} of the store holds NaN or infinity: extract it again.")
            parts.append(torch.as_tensor(x))
        many = len(cells)
        unit = np.tile(own["unit"].to_numpy(), many)
        steps = np.repeat([cell.step for cell in cells], len(own))
        row, col = (np.tile(own[name].to_numpy().astype(np.intp), many) for name in ("row", "col"))
        return cls(torch.cat(parts), unit, steps, row, col, table["half"].to_numpy()[unit], table)

    def mean_of(self, values: Tensor) -> Array:
        """The mean over the tokens of each sample: (tokens, features) to (samples, features)."""
        total = torch.zeros(len(self.table), values.shape[1]).index_add_(0, torch.as_tensor(self.sample), values)
        return (total.numpy() / np.bincount(self.sample, minlength=len(self.table))[:, None]).astype(np.float64)


def _some(x: Tensor, seed: int) -> Tensor:
    """At most `MOST` of the tokens, at random."""
    return x if len(x) <= MOST else x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:MOST]]


def _worth(coder: SparseCoder, tokens: _Tokens) -> dict[str, Any]:
    """Reconstruction of held-out tokens, and how many features are dead there."""
    learnt, held = (tokens.x[tokens.half == side] for side in (0, 1))
    activities, mean = coder.encode(held), learnt.mean(0)
    off = [(made - x).square().sum() / (x - mean).square().sum()
           for made, x in ((coder.decode(activities), held), (coder(learnt), learnt))]  # fmt: skip
    return {
        "kind": coder.kind,
        "features": coder.features,
        "k": coder.k,
        "n_learnt": len(learnt),
        "n_tokens": len(held),
        "explained": 1 - float(off[0]),
        "explained_learnt": 1 - float(off[1]),
        "active": float((activities > 0).float().sum(1).mean()),
        "dead": float((activities.amax(0) == 0).float().mean()),
    }


def _tested(coder: SparseCoder, tokens: _Tokens, permutations: int, seed: int) -> tuple[pd.DataFrame, Array]:
    """features.csv; and mean activities (samples, features) of all samples."""
    activities = coder.encode(tokens.x)
    scores = tokens.mean_of(activities)
    held = tokens.table["half"].to_numpy() == 1
    fires = (activities[tokens.half == 1] > 0).float().mean(0).numpy()
    seen = (scores[held] > 0).mean(0)
    y, prompts = tokens.table["bad"].to_numpy(), tokens.table["prompt"].to_numpy()
    tested = np.flatnonzero(seen >= RARE)
    if not len(tested):
        raise HandscopeError("No feature is active in enough samples to be tested: fit fewer, or a larger k.")
    verdicts = Verdicts.of(y[held], prompts[held], max(permutations, 20 * len(tested)), 4, seed)
    rows = pd.DataFrame(
        {
            "feature": tested,
            "fires": fires[tested],
            "in_samples": seen[tested],
            "n_good": int((y[held] == 0).sum()),
            "n_bad": int((y[held] == 1).sum()),
            "n_prompts": len(set(prompts[held])),
            "auc_learnt": auc_table(scores[~held][:, tested].T, y[None, ~held])[:, 0],
        }
    )
    return pd.concat([rows, verdicts.table(scores[held][:, tested].T, directed=False)], axis=1), scores


def _patches(coder: SparseCoder, tokens: _Tokens, found: pd.DataFrame) -> pd.DataFrame:
    """Of the features that tell most, the held-out tokens at which they are most active, one of each sample."""
    held = np.flatnonzero(tokens.half == 1)
    shown = found.sort_values(["p", "auc"], ascending=[True, False]).head(SHOWN)["feature"]
    activities = coder.encode(tokens.x[held])[:, torch.tensor(shown.tolist())].numpy()
    rows = []
    for feature, values in zip(shown, activities.T, strict=True):
        order = held[np.argsort(-values, kind="stable")]
        _, first = np.unique(tokens.sample[order], return_index=True)
        for rank, place in enumerate(order[np.sort(first)[:PATCHES]]):
            rows.append(
                {
                    "feature": feature, "rank": rank, "sample": tokens.table["sample"].iloc[tokens.sample[place]],
                    "bad": tokens.table["bad"].iloc[tokens.sample[place]], "step": tokens.step[place],
                    "row": tokens.row[place], "col": tokens.col[place], "activity": float(values[held == place][0]),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False)
class _Moved:
    """Held-out samples whose model is changed at the subject's tokens of a block."""

    sampling: Sampling
    run: Run
    block: str
    table: pd.DataFrame
    prompts: list[str]
    seeds: list[int]
    masks: NDArray[np.bool_]
    batches: list[list[int]] = field(repr=False)

    @classmethod
    def of(cls, model: Model, run: Run, table: pd.DataFrame, block: str, samples: int) -> _Moved:
        table = in_turn(table, samples)
        asked = run.metadata()
        rows = [asked[name] for name in table["sample"]]
        prompts = [row["prompt"] for row in rows]
        current = Labels(run.labels_path).current()
        masks = np.stack([current[name].instances.ravel() > 0 for name in table["sample"]])
        generation = run.settings["generation"]
        sizes = {name: generation[name] for name in ("steps", "guidance", "height", "width")}
        model.encode(prompts)
        batches = batches_of(model, prompts, int(rows[0]["batch_size"]))
        seeds = [int(row["seed"]) for row in rows]
        return cls(Sampling(model, **sizes), run, block, table, prompts, seeds, masks, batches)

    def lost(self, kind: str, coder: SparseCoder, tokens: _Tokens, progress: Progress) -> list[dict[str, Any]]:
        """What the velocity loses when tokens become their reconstruction, over what it loses when they become their
        mean: a row a step, over all tokens of the picture.
        """
        rows = []
        groups = self.table["prompt"].to_numpy()
        group = codes(groups)
        steps = sorted(set(tokens.step.tolist()), reverse=True)
        for number, step in enumerate(steps):
            progress(f"features: velocity, {kind}", number, len(steps))
            mean = _mean(tokens.x[(tokens.step == step) & (tokens.half == 0)])
            off = np.zeros((2, len(self.prompts)))
            for some in self.batches:
                index = self.sampling.steps - step
                latents = torch.stack([self.run.trajectory(self.table["sample"][i]).noisy(index) for i in some])
                plain = self._velocity(latents, some, index, None)
                changes: tuple[Replace, ...] = (coder, mean)
                for which, change in enumerate(changes):
                    changed = self._velocity(latents, some, index, change)
                    off[which, some] = (changed - plain).float().square().sum((1, 2)).cpu().numpy()
            sums = np.stack([np.bincount(group, one) for one in off])
            drawn = bootstrap_weights(groups, 1000) @ sums.T
            low, high = interval(drawn[:, 0] / np.maximum(drawn[:, 1], 1e-30))
            share = float(sums[0].sum() / max(sums[1].sum(), 1e-30))
            rows.append(
                {"kind": kind, "block": self.block, "step": step, "n_samples": len(self.prompts), "lost": share,
                 "lost_lo": low, "lost_hi": high}
            )  # fmt: skip
        progress(f"features: velocity, {kind}", len(steps), len(steps))
        return rows

    def _velocity(self, latents: Tensor, some: list[int], index: int, change: Replace | None) -> Tensor:
        prompts = [self.prompts[i] for i in some]
        latents = latents.to(self.sampling.model.device)
        if change is None:
            return self.sampling.step(latents, prompts, index)[1]
        plan = Plan([self.block], [1], of=1, call="both")
        with edit(self.sampling.model.transformer, plan, lambda x, cell: change(x), tokens=self.masks[some]):
            return self.sampling.step(latents, prompts, index)[1]

    def pictures(self, steps: Sequence[int], change: Replace | None) -> NDArray[np.uint8]:
        """The samples drawn anew, with tokens changed at some steps: uint8 (n, height, width, 3)."""
        made: list[NDArray[np.uint8] | None] = [None] * len(self.prompts)
        of = self.sampling.steps
        plan = Plan([self.block], sorted(steps, reverse=True), of=of, call="both")
        for some in self.batches:
            prompts = [self.prompts[i] for i in some]

            def draw(some: list[int] = some, prompts: list[str] = prompts) -> Tensor:
                latents = self.sampling.noise([self.seeds[i] for i in some])
                for index in range(of):
                    latents, _ = self.sampling.step(latents, prompts, index)
                return latents

            if change is None:
                latents = draw()
            else:
                transformer = self.sampling.model.transformer
                with edit(transformer, plan, lambda x, cell: change(x), tokens=self.masks[some]):
                    latents = draw()
            for i, picture in zip(some, self.sampling.images(latents), strict=True):
                made[i] = picture
        return np.stack([one for one in made if one is not None])

    def effects(
        self, coder: SparseCoder, judge: Judge, scores: Array, tokens: _Tokens, steps: Sequence[int], seed: int,
        progress: Progress,
    ) -> pd.DataFrame:  # fmt: skip
        """What ablating and steering a feature does, beside random features that fire as often.

        The feature is the one that tells most on the half that the autoencoder was fitted to.
        """
        feature, controls, size = _feature(coder, scores, tokens, seed)
        groups = self.table["prompt"].to_numpy()
        plain = self.pictures(steps, None)
        before = judge(plain, self.prompts) > 0.5
        arms = [(what, one) for one in (feature, *controls) for what in ("ablate", "more", "less")]
        rows, after = [], {}
        for number, (what, one) in enumerate(arms):
            progress("features: steer", number, len(arms))
            pictures = self.pictures(steps, _change(coder, what, one, size[one]))
            after[what, one] = judge(pictures, self.prompts) > 0.5
            moved = float(np.abs(pictures.astype(float) - plain).mean() / 255)
            rates = paired_rates(before.astype(float), after[what, one].astype(float), groups, seed)
            rows.append(
                {
                    "what": what, "feature": one, "control": one != feature, "n": rates.n, "before": rates.before,
                    "after": rates.after, "difference": rates.difference, "lo": rates.low, "hi": rates.high,
                    "p": rates.p, "moved": moved, "fires": float((scores[:, one] > 0).mean()),
                }
            )  # fmt: skip
        table = pd.DataFrame(rows)
        table["control_p"] = [
            max(paired_rates(after[what, other].astype(float), after[what, one].astype(float), groups, seed).p
                for other in controls)
            if one == feature else np.nan
            for what, one in arms
        ]  # fmt: skip
        progress("features: steer", len(arms), len(arms))
        return table


def _mean(tokens: Tensor) -> Replace:
    """Every token becomes the mean of these."""
    mean = tokens.mean(0)
    return lambda x: mean.to(x).expand_as(x)


def _feature(
    coder: SparseCoder, scores: Array, tokens: _Tokens, seed: int
) -> tuple[int, list[int], dict[int, float]]:
    """The feature that tells most on the half that was learnt from, controls that fire as often, and how large each is
    where it fires.
    """
    learnt = tokens.table["half"].to_numpy() == 0
    y = tokens.table["bad"].to_numpy()[learnt]
    activities = coder.encode(tokens.x[tokens.half == 0])
    fires = (activities > 0).float().mean(0).numpy()
    common = np.flatnonzero((scores[learnt] > 0).mean(0) >= RARE)
    if len(common) <= CONTROLS:
        raise HandscopeError(f"Only {len(common)} features are active in enough samples to be steered: fit others.")
    told = np.abs(auc_table(scores[learnt][:, common].T, y[None])[:, 0] - 0.5)
    feature = int(common[told.argmax()])
    others = common[common != feature]
    near = others[np.argsort(np.abs(np.log(fires[others] / fires[feature])), kind="stable")[: 5 * CONTROLS]]
    controls = np.random.default_rng(seed).permutation(near)[:CONTROLS].tolist()
    size = {
        one: float(activities[:, one].sum() / (activities[:, one] > 0).sum().clamp(min=1))
        for one in (feature, *controls)
    }
    return feature, controls, size


def _change(coder: SparseCoder, what: str, feature: int, size: float) -> Replace:
    """What is done to tokens: a feature's part taken out, or its direction added or taken off by its usual size."""
    direction = coder.w_dec[feature]

    def ablate(tokens: Tensor) -> Tensor:
        return tokens - coder.encode(tokens)[..., feature, None] * direction

    def shift(tokens: Tensor) -> Tensor:
        return tokens + (STRENGTH if what == "more" else -STRENGTH) * size * direction

    return ablate if what == "ablate" else shift
