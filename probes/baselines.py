"""What is known of a sample without looking into the transformer: features that a probe stands beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..brief import brief
from ..extract.picture_statistics import STATISTICS, image_statistics
from ..progress import Progress, quiet

if TYPE_CHECKING:
    from ..run.folder import Run

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """Features of shape (n, k), one row a sample, under a name; `step` is None where steps do not matter."""

    name: str
    step: int | None
    x: Array

    __repr__ = brief


def prompt_words(prompts: ArrayLike) -> Array:
    """Which words each prompt holds, 0 or 1: shape (n, words), words that all prompts hold left out."""
    bags: list[set[str]] = [set(str(prompt).lower().replace(",", " ").split()) for prompt in np.asarray(prompts)]
    words = sorted(bags[0].union(*bags) - bags[0].intersection(*bags))
    table = np.array([[word in bag for word in words] for bag in bags], float).reshape(len(bags), len(words))
    return table if len(words) else np.zeros((len(bags), 1))


def random_projection(x: Array, seed: int = 0) -> Array:
    """One coordinate, along a random direction of standardised features: shape (n, width) to (n, 1)."""
    direction = np.random.default_rng(seed).normal(size=x.shape[1])
    spread = x.std(0)
    return ((x - x.mean(0)) / np.where(spread > 0, spread, 1) @ direction)[:, None]


def run_baselines(
    run: Run,
    samples: pd.DataFrame,
    tokens: pd.DataFrame,
    columns: int,
    steps: dict[int, int],
    x0: pd.DataFrame,
    progress: Progress = quiet,
) -> list[Baseline]:
    """Every baseline that comes from prompts, masks, latents and images.

    Parameters
    ----------
    samples : DataFrame with sample, in the order of the rows of the features; one row an instance, where a sample has
        several
    tokens : DataFrame with unit (the row of `samples`), row and col of each token that counts
    columns : width of the token grid
    steps : index into the trajectory of each step
    x0 : statistics of the decoded predicted clean images, as of `predicted_statistics`

    Returns
    -------
    Step-free: prompt (its words), position (the mask, flattened: it is the final image's, so it carries some of
    the outcome), noise (mean of the initial noise over its tokens), final_image (statistics of the image). For
    each step: x_t and x0 (means of the latents and of the predicted clean latents over its tokens), x0_flat (the
    predicted clean latents of all tokens), image (statistics of the decoded x0).
    """
    names = samples["sample"].tolist()
    position = tokens["row"].to_numpy() * columns + tokens["col"].to_numpy()
    by_row = {int(unit): position[rows] for unit, rows in tokens.groupby("unit").indices.items()}
    masks = np.zeros((len(names), int(position.max()) + 1))
    noise: list[Array] = []
    x_t: dict[int, list[Array]] = {step: [] for step in steps}
    clean: dict[int, list[Array]] = {step: [] for step in steps}
    flat: dict[int, list[Array]] = {step: [] for step in steps}
    for number, sample in enumerate(names):
        progress("baselines", number, len(names))
        path = run.latents(sample)
        places = by_row[number]
        masks[number, places] = 1
        noise.append(path.noise[places].float().mean(0).numpy())
        for step, index in steps.items():
            predicted = path.x0(index).numpy()
            x_t[step].append(path.noisy(index)[places].float().mean(0).numpy())
            clean[step].append(predicted[places].mean(0))
            flat[step].append(predicted.ravel())
    final = np.concatenate([image_statistics(run.image(sample)[None] / 255) for sample in names])
    rows = run.metadata()
    baselines = [
        Baseline("prompt", None, prompt_words([rows[sample]["prompt"] for sample in names])),
        Baseline("position", None, masks),
        Baseline("noise", None, np.stack(noise)),
        Baseline("final_image", None, final),
    ]
    for step in steps:
        statistics = x0.xs(step, level="step").loc[names, list(STATISTICS)].to_numpy()
        baselines += [
            Baseline("x_t", step, np.stack(x_t[step])),
            Baseline("x0", step, np.stack(clean[step])),
            Baseline("x0_flat", step, np.stack(flat[step])),
            Baseline("image", step, statistics),
        ]
    return baselines
