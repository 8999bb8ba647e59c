"""Watch probes while an image is being drawn: their output on every token, over the clean image predicted so far."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from .. import figures
from ..errors import HandscopeError
from ..extract.address import Plan
from ..extract.capture import capture
from ..extract.generate import draw
from ..files import atomic
from ..models.clean import predicted_clean
from ..progress import Progress, quiet
from .choose import by_block, nearest, of_tokens

if TYPE_CHECKING:
    from ..models.model import Model

CAVEAT = (
    "Fitted to means over the tokens of a sample: a single token is not what the probe was fitted to or judged on. "
    "Only their mean is."
)


@dataclass(frozen=True, eq=False)
class Watch:
    """What probes said of each token at each step of one generation.

    Attributes
    ----------
    prompt, seed : str, int
    blocks : tuple of str
        What the first axis of `scores` is of.
    steps : tuple of int
        Steps that remain, the noisiest first.
    scores : float32 array of shape (blocks, steps, rows, columns)
        Log-odds of bad of each token; NaN at a step that was not reached.
    fitted : int array of shape (blocks, steps)
        The step that the probe was fitted at.
    x0 : uint8 array of shape (steps, height, width, 3)
        The clean image predicted at each step.
    image : uint8 array of shape (height, width, 3)
        What the generation ended in.
    caveat : str
        What a reader of single tokens must know; empty for probes that were fitted to tokens.
    """

    prompt: str
    seed: int
    blocks: tuple[str, ...]
    steps: tuple[int, ...]
    scores: NDArray[np.float32] = field(repr=False)
    fitted: NDArray[np.intp] = field(repr=False)
    x0: NDArray[np.uint8] = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)
    caveat: str = ""

    def mean(self, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Mean score over the tokens of a `mask` (rows, columns), or over all: shape (blocks, steps).

        Over the tokens of an instance it is the probe's output on the sample, since the probe is linear.
        """
        mask = np.ones(self.scores.shape[2:], bool) if mask is None else np.asarray(mask, bool)
        if mask.shape != self.scores.shape[2:] or not mask.any():
            raise HandscopeError(
                f"Expected a mask of {self.scores.shape[2]} by {self.scores.shape[3]} tokens with one of them set, "
                f"found shape {mask.shape} with {int(mask.sum())} set."
            )
        return self.scores[:, :, mask].mean(-1, dtype=np.float64)

    def strip(self, ax: Axes, steps: Sequence[int] | None = None) -> Axes:
        """Draw the predicted images, and the scores over them, side by side; at eight steps if none are named."""
        chosen = steps or [self.steps[i] for i in np.unique(np.linspace(0, len(self.steps) - 1, 8).round().astype(int))]
        unknown = sorted(set(chosen) - set(self.steps))
        if unknown:
            raise HandscopeError(
                f"Step {unknown[0]} was not watched; of {len(self.steps)} steps, ask for 1 to {self.steps[0]}."
            )
        places = [self.steps.index(step) for step in chosen]
        return figures.watch_strip(
            self.x0[places],
            self.scores[:, places],
            list(chosen),
            self.blocks,
            ax,
            limit=figures.score_limit(self.scores),
            note=self.caveat,
        )

    def figure(self) -> Figure:
        """The strip as a figure of its own."""
        with rc_context(figures.STYLE):
            height, width = self.image.shape[:2]
            columns = min(8, len(self.steps))
            tall = 1.45 * height / width * (1 + len(self.blocks))
            drawn = figures.figure(0.9 + 1.45 * columns + 0.9, tall + 1.1)
            self.strip(drawn.subplots())
        return drawn

    def frame(self, i: int) -> NDArray[np.uint8]:
        """A picture of the step at index `i`: uint8 of shape (height, width, 3)."""
        return rendered(
            self.x0[i],
            self.scores[:, i],
            self.steps[i],
            len(self.steps),
            self.blocks,
            self.fitted[:, i].tolist(),
            figures.score_limit(self.scores),
            self.caveat,
        )

    def gif(self, path: str | os.PathLike[str], seconds: float = 0.4) -> None:
        """Write an animation with a frame a step, `seconds` each and the last for longer."""
        frames = [Image.fromarray(self.frame(i)) for i in range(len(self.steps))]
        # One palette for all frames: with one for each, the same score would change its colour from step to step.
        some = [np.asarray(frames[i]) for i in sorted({0, len(frames) // 2, len(frames) - 1})]
        palette = Image.fromarray(np.concatenate(some)).quantize(256)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
        times = [int(1000 * seconds)] * (len(frames) - 1) + [int(5000 * seconds)]
        with atomic(path) as temporary:
            frames[0].save(temporary, format="GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)


def watch(
    model: Model,
    probes: Any,
    prompt: str,
    seed: int,
    steps: int = 20,
    guidance: float = 3.5,
    height: int | None = None,
    width: int | None = None,
    see: Callable[[Watch, int], None] | None = None,
    progress: Progress = quiet,
) -> Watch:
    """Draw an image and read probes on every token at every step.

    >>> seen = watch(model, load_probe("runs/demo/probes/single.3_3.safetensors"), "an open hand", 7, see=Live())
    >>> seen.scores.shape                                                # doctest: +SKIP
    (1, 20, 12, 12)

    Parameters
    ----------
    probes : a probe, or several
        Linear, with ``coef_``, ``intercept_`` and a ``metadata_`` that names the block and step it was fitted at, as a
        saved probe has. Of several of one block, each step is read by the one that was fitted nearest to it.
    prompt, seed, steps, guidance, height, width : as in `generate`, for one image
    see : function, optional
        Called after each step with what is known so far and the index of the step: `Live` shows it in a notebook.

    Raises
    ------
    HandscopeError
        A probe does not say what block it is of, or it is of another width, or the model lacks the block.
    """
    family = model.family
    chosen_of = by_block([probes] if hasattr(probes, "coef_") else list(probes), model)
    height, width = height or model.height, width or model.width
    rows, columns = model.grid(height, width)
    plan = Plan(list(chosen_of), range(steps, 0, -1), of=steps)
    blocks = tuple(map(str, plan.blocks))
    chosen = [[nearest(chosen_of[block], step) for step in plan.steps] for block in blocks]
    every = [probe for block in blocks for probe in chosen_of[block]]
    caveat = "" if all(of_tokens(probe) for probe in every) else CAVEAT
    found = Watch(
        prompt,
        seed,
        blocks,
        tuple(plan.steps),
        np.full((len(blocks), steps, rows, columns), np.nan, np.float32),
        np.array([[int(probe.metadata_["step"]) for probe in line] for line in chosen]),
        np.zeros((steps, height, width, 3), np.uint8),
        np.zeros((height, width, 3), np.uint8),
        caveat,
    )
    coefficients = torch.tensor(np.stack([probe.coef_ for probe in every], 1), dtype=torch.float32)

    def score(stream: torch.Tensor) -> torch.Tensor:
        # Every probe on every block's tokens: few columns, and a hook need not know which block it is of.
        return stream.float() @ coefficients.to(stream.device)

    outputs: list[Any] = []
    calls = 2 if family.guided(model.pipe, guidance) and not family.together else 1

    def after(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        outputs.append(output)
        if len(outputs) < calls:
            return
        i = seen.calls - 1
        for b, block in enumerate(blocks):
            probe = chosen[b][i]
            values = seen[block, plan.steps[i]][0, :, every.index(probe)].numpy() + probe.intercept_
            found.scores[b, i] = values.reshape(rows, columns)
        noisy, predicted = family.noisy(family.arguments(args, kwargs)), family.predicted(outputs, guidance)
        outputs.clear()
        sigma = family.times(model.pipe).sigmas[i].to(noisy.device)
        clean = predicted_clean(noisy.float(), predicted.float(), family.prediction, sigma)
        found.x0[i] = _picture(model.decode(clean, height, width))
        if see is not None:
            see(found, i)
        progress("watch", i + 1, steps)

    progress("watch", 0, steps)
    with capture(model.transformer, plan, reduce=score) as seen:
        handle = model.transformer.register_forward_hook(after, with_kwargs=True)
        try:
            drawn = draw(model, [(prompt, seed)], steps, guidance, height, width, trajectories=False)
        finally:
            handle.remove()
    found.image[:] = drawn.images[0]
    return found


class Live:
    """Shows a generation in a notebook while it runs: give it to `watch` as `see`."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, found: Watch, i: int) -> None:
        from IPython import display

        memory = BytesIO()
        Image.fromarray(found.frame(i)).save(memory, format="PNG")
        shown = display.Image(memory.getvalue())
        if self._handle is None:
            self._handle = display.display(shown, display_id=True)
        else:
            self._handle.update(shown)


def rendered(
    x0: NDArray[np.uint8],
    scores: NDArray[np.float32],
    step: int,
    of: int,
    blocks: Sequence[str],
    fitted: Sequence[int],
    limit: float,
    note: str,
) -> NDArray[np.uint8]:
    """One step as a picture: the predicted image, and beside it the scores of each block over it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with rc_context(figures.STYLE):
        tall = 2.6 * x0.shape[0] / x0.shape[1]
        drawn = figures.figure(0.7 + 2.65 * (1 + len(blocks)), tall + 0.85)
        panels = drawn.subplots(1, 1 + len(blocks), squeeze=False)[0]
        titles = [f"step {step} of {of}: predicted", *(f"{b}, probe of step {at}" for b, at in zip(blocks, fitted))]
        figures.watch_frame(x0, scores, titles, panels, limit=limit, note=note)
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _picture(images: torch.Tensor) -> NDArray[np.uint8]:
    return (images[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
