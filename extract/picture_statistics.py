"""Plain statistics of an image, and of the clean image that a model predicts at a step: what a probe must beat."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import HandscopeError
from ..files import atomic, listed
from ..parallel import Failed, finished
from ..progress import Progress, quiet

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.model import Model
    from ..run.folder import Run

Array = NDArray[np.float64]

STATISTICS = (
    "area",
    "contrast",
    "brightness",
    "gradient",
    "difference",
    "background_red",
    "background_green",
    "background_blue",
)
COLUMNS = ["sample", "image_sha256", "step", *STATISTICS]
BATCH = 32
BINS = 64


def image_statistics(images: NDArray[np.floating]) -> Array:
    """Eight numbers an image that know nothing of what it shows.

    Parameters
    ----------
    images : array of shape (n, height, width, 3), in [0, 1]

    Returns
    -------
    array of shape (n, 8), in the order of `STATISTICS`: share of pixels in the foreground, standard deviation and mean
    of the luminance, mean size of its gradient, mean distance of the foreground's colour from the background's, and the
    background's colour. Background is the median colour of the border; foreground is what is further from it than
    Otsu's threshold (1979).
    """
    images = np.asarray(images, np.float64)
    border = np.concatenate([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], axis=1)
    background = np.median(border, axis=1)
    distance = np.linalg.norm(images - background[:, None, None], axis=-1).reshape(len(images), -1)
    foreground = distance > _otsu(distance)[:, None]
    luminance = images @ np.array([0.299, 0.587, 0.114])
    down, right = np.gradient(luminance, axis=(1, 2))
    area = foreground.mean(1)
    difference = (distance * foreground).mean(1) / np.maximum(area, 1 / distance.shape[1])
    plain = [area, luminance.std((1, 2)), luminance.mean((1, 2)), np.hypot(down, right).mean((1, 2)), difference]
    return np.column_stack([*plain, background])


def _otsu(values: Array) -> Array:
    """For each row of `values`, none negative, the threshold that parts it into two classes furthest apart."""
    top = np.maximum(values.max(1), np.finfo(float).tiny)
    bins = np.minimum((values / top[:, None] * BINS).astype(np.intp), BINS - 1)
    rows = np.arange(len(values))[:, None] * BINS
    share = (
        np.bincount((bins + rows).ravel(), minlength=len(values) * BINS).reshape(len(values), BINS) / values.shape[1]
    )
    below = share.cumsum(1)
    moment = (share * np.arange(BINS)).cumsum(1)
    spread = np.square(moment[:, -1:] * below - moment) / np.maximum(below * (1 - below), 1e-12)
    return (spread.argmax(1) + 1) / BINS * top


def decode(model: Model, latents: Tensor, height: int, width: int) -> NDArray[np.float32]:
    """Images of packed latents (n, tokens, channels): float32 of shape (n, height, width, 3), in [0, 1]."""
    return model.decode(latents, height, width).permute(0, 2, 3, 1).cpu().numpy()


def decode_predicted(
    model: Model,
    run: Run,
    samples: list[str],
    steps: dict[int, int],
    part: tuple[int, int] | None = None,
    progress: Progress = quiet,
) -> None:
    """Write the statistics of the decoded predicted clean image (x0) of each sample at each step, where they lack.

    They are kept in ``analysis/image_statistics.csv``, or in a file of its own for each part of a divided extraction.

    Parameters
    ----------
    samples : those whose trajectories were kept, or that were given; others are left out
    steps : index into the trajectory of each step
    part : as in `extract`
    """
    path = run.analysis_dir / f"image_statistics{'' if part is None else f'-{part[0]}-of-{part[1]}'}.csv"
    known = _known(run, steps)
    there = listed(run.trajectories_dir) | listed(run.noised_dir)
    missing = [sample for sample in _lacking(known, samples, steps) if run.latents_path(sample).name in there]
    if not missing:
        return
    rows = run.samples().set_index("sample").loc[missing]
    kept = [known[~known["sample"].isin(missing)]]
    done, batches = 0, [rows.iloc[start : start + BATCH] for start in range(0, len(missing), BATCH)]
    progress("decode", done, len(missing))
    decoder = partial(_decoded, model, run, steps)
    for _, made in finished(decoder, batches, "decode", model, progress):
        if isinstance(made, Failed):
            raise made.error
        kept.append(made)
        done += made["sample"].nunique()
        with atomic(path) as temporary:  # all digits: a probe gets the same numbers from the file as from the model
            table = pd.concat([part for part in kept if len(part)]).sort_values(["sample", "step"])
            table[COLUMNS].to_csv(temporary, index=False)
        progress("decode", done, len(missing))


def predicted_statistics(run: Run, samples: list[str], steps: dict[int, int]) -> pd.DataFrame:
    """Statistics of the decoded predicted clean image (x0) of each sample at each step, as `extract` wrote them.

    Parameters
    ----------
    steps : index into the trajectory of each step

    Returns
    -------
    DataFrame indexed by (sample, step), with the columns `STATISTICS`

    Raises
    ------
    HandscopeError
        Some are not there.
    """
    known = _known(run, steps)
    lacking = _lacking(known, samples, steps)
    if lacking:
        raise HandscopeError(
            f"The statistics of the predicted clean images of {len(lacking)} samples, {lacking[0]} among them, are not "
            f"in {run.analysis_dir / 'image_statistics.csv'}: run extract, which decodes them from the trajectories."
        )
    return known.set_index(["sample", "step"])[list(STATISTICS)].astype(float)


def _known(run: Run, steps: dict[int, int]) -> pd.DataFrame:
    """What is there of these steps and of the samples' present images."""
    files = sorted(run.analysis_dir.glob("image_statistics*.csv"))
    # Read as text: pandas' own reading of numbers is not exact to the last digit.
    read = [pd.read_csv(path, dtype=dict.fromkeys(STATISTICS, str)) for path in files]
    known = pd.concat(read, ignore_index=True) if read else pd.DataFrame(columns=COLUMNS)
    known = known.astype(dict.fromkeys(STATISTICS, float))
    image = run.samples().set_index("sample")["image_sha256"]
    known = known[(known["sample"].map(image) == known["image_sha256"]) & known["step"].isin(list(steps))]
    return known.drop_duplicates(["sample", "step"])


def _lacking(known: pd.DataFrame, samples: list[str], steps: dict[int, int]) -> list[str]:
    found = known["sample"].value_counts()
    return [sample for sample in samples if found.get(sample, 0) < len(steps)]


def _decoded(model: Model, run: Run, steps: dict[int, int], table: pd.DataFrame) -> pd.DataFrame:
    """Statistics of some samples, rows of `Run.samples`."""
    paths = [run.latents(sample) for sample in table.index]
    height, width = (int(table[side].iloc[0]) for side in ("height", "width"))
    parts = []
    for step, index in steps.items():
        # One by one, which is as fast: in a batch the last digits depend on the company.
        images = np.concatenate([decode(model, path.x0(index)[None], height, width) for path in paths])
        part = pd.DataFrame(image_statistics(images), columns=list(STATISTICS))
        parts.append(part.assign(sample=table.index, step=step, image_sha256=table["image_sha256"].to_numpy()))
    return pd.concat(parts, ignore_index=True)
