"""Interchange of activations: a recipient is drawn on from its own latents, with a donor's values at chosen tokens.

Everything before the first changed step is what the recipient's trajectory holds, and is not drawn again: from step 4
on, a cell costs four forwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import HandscopeError
from ..extract.address import Cell, Plan
from ..extract.hooks import edit
from ..extract.replay import replay
from ..models.model import Model
from ..models.sampling import Sampling
from ..run.trajectory import Trajectory, stack

Values = Mapping[Cell, Tensor]
"""Values at cells, of the chosen tokens of each sample, one sample after the other: (all chosen, …)."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples that were drawn, and can be drawn on from any step.

    Attributes
    ----------
    prompts : tuple of str
    trajectories : tuple of Trajectory
        All of as many steps and tokens.
    """

    prompts: tuple[str, ...]
    trajectories: tuple[Trajectory, ...]

    def at(self, step: int) -> Tensor:
        """The latents before a step, (samples, tokens, channels); before step 0 they are the final ones."""
        return stack(self.trajectories, len(self.trajectories[0].timesteps) - step)

    @cached_property
    def final(self) -> Tensor:
        """The final latents, (samples, tokens, channels)."""
        return self.at(0)


class Interchange:
    """Draws recipients on with the values of donors.

    Where guidance is classifier-free, values are those of the conditional side, and are put in there.

    >>> interchange = Interchange(model, steps=20)                                   # doctest: +SKIP
    >>> values = interchange.values(donors, Plan(["single.1"], [12], of=20), masks)  # doctest: +SKIP
    >>> final = interchange.patched(recipients, 12, masks, values)                   # doctest: +SKIP

    Parameters
    ----------
    model : Model
    steps, guidance, height, width
        As the samples were drawn.
    """

    def __init__(
        self, model: Model, steps: int, guidance: float = 3.5, height: int | None = None, width: int | None = None
    ) -> None:
        self.model, self.steps = model, steps
        self.sampling = Sampling(model, steps, guidance, height, width)

    def values(self, donors: Drawn, plan: Plan, masks: NDArray[np.bool_]) -> Values:
        """What donors have at the cells of a plan, at the chosen tokens (donors, tokens): one forward for each step.

        Raises
        ------
        HandscopeError
            As in `handscope.extract.replay.replay`.
        """
        sampling = self.sampling
        settings = sampling.guidance, sampling.height, sampling.width
        if len(set(self.model.text_tokens(donors.prompts).values())) == 1:
            return replay(self.model, plan, donors.prompts, donors.trajectories, *settings, tokens=masks).take()
        # Texts of different lengths share no batch.
        parts = [
            replay(self.model, plan, [prompt], [path], *settings, tokens=mask[None]).take()
            for prompt, path, mask in zip(donors.prompts, donors.trajectories, masks, strict=True)
        ]
        return {cell: torch.cat([part[cell] for part in parts]) for cell in parts[0]}

    def patched(
        self,
        recipients: Drawn,
        step: int,
        masks: NDArray[np.bool_],
        values: Values | None = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Final latents of recipients that are drawn on from a step with other values at chosen tokens.

        Parameters
        ----------
        recipients : Drawn
            Of prompts of one number of text tokens.
        step : int
            The first that is drawn; none of `values` is of one before.
        masks : bool array of shape (recipients, tokens)
            Of each, the tokens that are changed.
        values : mapping of Cell to Tensor, optional
            As `values` gives them, for as many tokens: of one cell, or a window of blocks and steps.
        latents : Tensor of shape (recipients, tokens, channels), optional
            Latents before `step` whose chosen tokens are put in: what needs no look inside.

        Returns
        -------
        Tensor of shape (recipients, tokens, channels)
        """
        x = recipients.at(step).to(self.model.device)
        chosen = torch.as_tensor(masks)
        if latents is not None:
            x = torch.where(chosen.to(x.device)[..., None], latents.to(x), x)
        if not values:
            return self._on(x, recipients.prompts, step)
        late = [str(cell) for cell in values if cell.step > step]
        if late:
            raise HandscopeError(f"The recipients are drawn on from step {step}, and {late[0]} lies before it.")
        cells = {cell: given.to(self.model.device) for cell, given in values.items()}

        def change(found: Tensor, cell: Cell) -> Tensor:
            return cells.get(cell, found)

        blocks = list(dict.fromkeys(cell.block for cell in cells))
        plan = Plan(blocks, sorted({cell.step for cell in cells}, reverse=True), of=step)
        with edit(self.model.transformer, plan, change, chosen, f"interchange at {plan.to_json()}"):
            return self._on(x, recipients.prompts, step)

    def clean(self, drawn: Drawn, step: int) -> Tensor:
        """The clean latents that are predicted of samples at a step, (samples, tokens, channels) in float32.

        Gradients pass, where they are asked for: to what `handscope.edit` put in.
        """
        family, sampling, index = self.model.family, self.sampling, self.steps - step
        x = drawn.at(step).to(self.model.device)
        inputs = sampling.inputs(drawn.prompts)
        output = family.predicted(family.call(self.model.transformer, x, sampling.timesteps[index], inputs),
                                  sampling.guidance)  # fmt: skip
        return sampling.clean(x, output, index)

    def _on(self, x: Tensor, prompts: Sequence[str], step: int) -> Tensor:
        for index in range(self.steps - step, self.steps):
            x, _ = self.sampling.step(x, prompts, index)
        return x

    def drawn(self, prompts: Sequence[str], noise: Tensor) -> Drawn:
        """Samples of given initial latents (samples, tokens, channels), such as `renoised` makes."""
        sampling, x = self.sampling, noise.to(self.model.device)
        path = [x]
        for index in range(self.steps):
            x, _ = sampling.step(x, prompts, index)
            path.append(x)
        latents = torch.stack(path, 1).cpu()
        rounded = sampling.timesteps.to(x.dtype).float().clone()  # as the transformer saw them
        times = sampling.sigmas.cpu(), sampling.timesteps.cpu(), rounded.cpu()
        kind = self.model.family.prediction
        return Drawn(tuple(prompts), tuple(Trajectory(one, *times, prediction=kind) for one in latents))

    def renoised(self, recipients: Drawn, seeds: Sequence[int], masks: NDArray[np.bool_]) -> Tensor:
        """Initial latents of recipients with the noises of other seeds at the chosen tokens alone."""
        other = self.sampling.noise(seeds).cpu()
        return torch.where(torch.as_tensor(masks)[..., None], other, recipients.at(self.steps).to(other))


def elsewhere(masks: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """As many tokens of each row as `masks` (samples, tokens) has, outside it, at random; fewer where fewer are."""
    drawn = np.zeros_like(masks)
    for row, (mask, free) in enumerate(zip(masks, ~masks)):
        random = np.random.default_rng([seed, row])
        places = np.flatnonzero(free)
        drawn[row, random.choice(places, min(int(mask.sum()), len(places)), replace=False)] = True
    return drawn


def share_of_way(changed: Tensor, recipient: Tensor, donor: Tensor, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How far latents (samples, tokens, channels) came from the recipient's to the donor's at the chosen tokens.

    Returns
    -------
    array of shape (samples,)
        0 at the recipient's and 1 at the donor's: the change, projected on their difference.
    """
    chosen = torch.as_tensor(masks)[..., None]
    way = torch.where(chosen, (donor - recipient).double(), 0.0).flatten(1)
    moved = torch.where(chosen, (changed - recipient).double(), 0.0).flatten(1)
    length = way.square().sum(1)
    return torch.where(length > 0, (moved * way).sum(1) / length.clamp_min(1e-300), torch.nan).cpu().numpy()
