"""A run's probe on the tokens of one sample: read from the disk, or by replaying the sample's trajectory."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError
from ...extract.address import Block, Plan
from ...extract.store.store import ActivationStore
from ...extract.worklist import shard_path
from ...probes.choose import of_tokens, saved_probes
from ...probes.linear import LinearProbe
from ...run.folder import Run

if TYPE_CHECKING:
    from ...models.model import Model

Map = NDArray[np.float32]


def probe_map(run: Run, sample: str, shape: tuple[int, int], model: "Model | None" = None) -> Map:
    """Log-odds of bad of each token of a sample: float32 of shape (rows, columns), NaN where they are not known.

    Of the probes of the run's best block, those fitted to single tokens are taken where there are any, and of these the
    one that does best on held-out prompts. Stored activations are read; where they do not cover the grid, and there is
    a model and a trajectory, one forward pass gives the rest.

    Raises
    ------
    HandscopeError
        The run has no probe, or there is neither a stored activation of the sample nor a way to make one.
    """
    probes = saved_probes(run.probes_dir)
    probe = max([p for p in probes if of_tokens(p)] or probes, key=_held_out)
    scores = _stored(run, sample, shape, probe)
    if scores is not None and not np.isnan(scores).any():
        return scores
    if model is not None and run.trajectory_path(sample).exists():
        return _replayed(run, sample, shape, probe, model)
    if scores is None:
        block, step = _cell(probe)
        raise HandscopeError(
            f"There are no activations of {sample} in {block} at step {step}, where the run's probe was fitted: "
            "extract that cell with --tokens all."
        )
    return scores


def _held_out(probe: LinearProbe) -> float:
    value = probe.metadata_.get("held_out_auc")
    return 0.5 if value is None or np.isnan(value) else float(value)


def _cell(probe: LinearProbe) -> tuple[str, int]:
    return str(probe.metadata_["block"]), int(probe.metadata_["step"])


def _stored(run: Run, sample: str, shape: tuple[int, int], probe: LinearProbe) -> Map | None:
    """From the sample's shard, or else from the consolidated store; None where it is in neither."""
    shard = shard_path(run, sample)
    block, step = _cell(probe)
    try:
        store = ActivationStore(shard if shard.exists() else run.activations_dir, labels={})
        x, tokens = store.read(block, step, [sample])
    except HandscopeError:  # not extracted, or not this cell: which of the two is told by what to do
        return None
    part = next(part for part in store.parts if part.sample == sample)
    stale = part.head["image_sha256"] != run.metadata()[sample]["image_sha256"]
    if stale or not len(tokens) or store.plan.stream != "image":
        return None
    scores = np.full(shape, np.nan, np.float32)
    scores[tokens["row"], tokens["col"]] = _log_odds(probe, x)
    return scores


def _replayed(run: Run, sample: str, shape: tuple[int, int], probe: LinearProbe, model: "Model") -> Map:
    from ...extract.replay import replay

    row: dict[str, Any] = run.metadata()[sample]
    block, step = _cell(probe)
    plan = Plan([block], [step], of=row["steps"])
    plan.check(model.blocks)
    size = row["guidance"], row["height"], row["width"]
    seen = replay(model, plan, [row["prompt"]], [run.trajectory(sample)], *size)
    return _log_odds(probe, seen[Block.parse(block), step][0].float().numpy()).reshape(shape)


def _log_odds(probe: LinearProbe, x: NDArray[np.float32]) -> Map:
    return np.asarray(x @ probe.coef_ + probe.intercept_, np.float32)
