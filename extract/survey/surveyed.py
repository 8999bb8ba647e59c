"""Moments of every block at every step on disk: where to look, before tokens are stored.

``RUN/survey/SAMPLE.h5``: `moments` float32 (cells, classes, 2, width), the mean and the population variance of the
sample's tokens; `counts` (classes,); `steps`; attributes as those of a shard of activations. Class 0 are tokens of
instances, class 1 those labelled 1, of no instance. Cells are in the plan's order: blocks outer, steps inner.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...errors import HandscopeError
from ...files import atomic, refuse_unusable
from ...run.folder import Run
from ..address import Cell, Plan
from ..store.shard import DamagedError
from ..store.writing import writing

SCHEMA = "handscope-survey-1"
CLASSES = 2
SAME = ("schema", "plan", "weight_hash", "model_dtype", "quantisation", "adapters", "state")
CHUNK_BYTES = 128 * 2**20
"""So much is read at a time of all samples together."""


def survey_folder(run: Run) -> Path:
    """Where the moments of a run lie, or will."""
    return run.path / "survey"


class SurveyStore:
    """Moments of all cells of a surveyed run.

    Attributes
    ----------
    plan : Plan
    cells : tuple of Cell
    width : int
    samples : list of str
    counts : int array of shape (n_samples, 2), tokens of instances, and tokens labelled 1
    steps : DataFrame
        step, index, sigma, timestep, model_timestep.
    attrs : dict
        Model, weight_hash and how the moments were made.

    Raises
    ------
    HandscopeError
        There are no moments in the folder, a file is damaged, or files are of different models.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._paths = sorted(part for part in Path(path).glob("*.h5") if not part.name.startswith("."))
        if not self._paths:
            raise HandscopeError(f"There is no survey in {path}: run survey first.")
        self.attrs: dict[str, Any] = {}
        self.samples: list[str] = []
        counts = []
        for part in self._paths:
            with reading(part) as file:
                if not self.attrs:
                    self.attrs = dict(file.attrs)
                    self.steps = pd.DataFrame(file["steps"][:])
                    self.width = int(file["moments"].shape[-1])
                check_same(part, file.attrs, self.attrs)
                self.samples.append(str(file.attrs["sample"]))
                counts.append(file["counts"][:])
        self.counts: NDArray[np.int64] = np.stack(counts)
        self.plan = Plan.from_json(self.attrs["plan"])
        self.cells = self.plan.cells

    def read(
        self, samples: Sequence[str], subject: bool = True
    ) -> Iterator[tuple[Cell, NDArray[np.float32], NDArray[np.float32]]]:
        """Every cell in turn: the cell, and mean and variance of each sample's tokens, of shape (n_samples, width).

        Memory is bounded whatever the number of cells: files are read some cells at a time.

        Parameters
        ----------
        samples : of `samples`, in the order wanted
        subject : tokens of instances, or else those labelled 1 (NaN for a sample without any)
        """
        numbers = {sample: number for number, sample in enumerate(self.samples)}
        unknown = [sample for sample in samples if sample not in numbers]
        if unknown:
            raise HandscopeError(
                f"{len(unknown)} of the samples are not in the survey, {unknown[0]} among them: run survey again."
            )
        together = max(1, CHUNK_BYTES // (8 * self.width * max(1, len(samples))))
        for start in range(0, len(self.cells), together):
            cells = self.cells[start : start + together]
            moments = np.empty((len(samples), len(cells), 2, self.width), np.float32)
            for part, sample in zip(moments, samples):
                with reading(self._paths[numbers[sample]]) as file:
                    part[:] = file["moments"][start : start + len(cells), 0 if subject else 1]
            for number, cell in enumerate(cells):
                yield cell, moments[:, number, 0], moments[:, number, 1]


def write_moments(
    path: Path, moments: NDArray[Any], counts: list[int], steps: NDArray[Any], attrs: dict[str, Any]
) -> None:
    """Write the moments of one sample, whole or not at all."""
    with atomic(path) as temporary, writing(temporary) as (file, _):
        file.attrs.update(attrs)
        file["moments"], file["counts"], file["steps"] = moments, np.array(counts), steps


def check_same(path: Path, attrs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse moments of another model or plan than the expected one."""
    for key in SAME:
        if (attrs.get(key) or "") != (expected.get(key) or ""):
            raise HandscopeError(
                f"{path} holds another survey: its {key} is {attrs.get(key)}, expected {expected.get(key)}. Remove the "
                f"folder {path.parent} to survey anew, or use another run folder."
            )


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """Open a sample's moments.

    Raises
    ------
    DamagedError
        They are missing, truncated or something else.
    Unusable
        The file is locked, forbidden, or its disk fails.
    """
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("schema") != SCHEMA:
                raise DamagedError(
                    f"Expected moments of schema {SCHEMA} in {path}, found {file.attrs.get('schema')}: remove the file "
                    "and run survey again."
                )
            yield file
    except HandscopeError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:  # of types and forms that numpy lacks
        refuse_unusable(error, path)
        raise DamagedError(
            f"{path} is truncated or damaged: remove it and run survey again, which makes it anew."
        ) from error
