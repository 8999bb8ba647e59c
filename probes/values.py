"""The values stage: which of several values a sample has, as probes tell it in every cell, within prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..analysis.statistics.multiple import benjamini_hochberg, family_p
from ..analysis.subject_tokens import SubjectTokens
from ..errors import HandscopeError
from ..extract.picture_statistics import predicted_statistics
from ..files import write_csv
from ..labeling.table import as_seen, check_noise, check_pictures
from ..labeling.values import read_values, values_of
from ..parallel import each
from ..progress import Progress, quiet
from ..run.record import fresh, made_from, set_fresh
from ..stages import VALUES
from .several import Several, Told

if TYPE_CHECKING:
    from ..extract.address import Cell
    from ..extract.store.store import ActivationStore
    from ..run.folder import Run


@threadpool_limits.wrap(limits=1, user_api="blas")  # as in `analyze`
def probe_values(
    run: Run, permutations: int = 1000, folds: int = 5, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Ask in every cell which of several values a sample has; see `probes.several`.

    Writes the tables of `handscope.stages.VALUES`, which says what their columns are; does nothing when they are there
    and belong to the present labels, values, activations and arguments.

    Parameters
    ----------
    permutations : labellings in each null, values permuted inside prompts
    folds : of prompts

    Returns
    -------
    The table of value_probes.csv: one row a cell for each value, told from the rest, for the mean of these, and for
    their order where the subject says that it means something.

    Raises
    ------
    HandscopeError
        The subject has no values; too few samples have them; all samples of a prompt have the same; or as in `analyze`.
    """
    settings = {"permutations": permutations, "folds": folds, "seed": seed}
    now = made_from(run.path, VALUES, settings)
    path = run.analysis_dir / "value_probes.csv"
    if fresh(run.path, VALUES, now):
        return pd.read_csv(path, dtype={"value": str})
    questions = _Questions.of(run, **settings)
    answers = each(questions.answer, questions.store.cells, progress, "values")
    write_csv(path, _table([({"block": str(a.cell.block), "step": a.cell.step}, a.told) for a in answers], questions))
    write_csv(run.analysis_dir / "value_confusion.csv", pd.concat([answer.confusion for answer in answers]))
    _write_baselines(run, questions)
    set_fresh(run.path, VALUES, now)
    return pd.read_csv(path, dtype={"value": str})


@dataclass(frozen=True, eq=False)
class _Answer:
    cell: Cell
    told: dict[str, Told]
    confusion: pd.DataFrame


@dataclass(frozen=True, eq=False)
class _Questions:
    """What is asked of every cell."""

    store: ActivationStore
    tokens: SubjectTokens
    several: Several

    @classmethod
    def of(cls, run: Run, permutations: int, folds: int, seed: int) -> _Questions:
        from ..extract.store.store import ActivationStore

        asked, values = values_of(run), read_values(run)
        store = ActivationStore(run.activations_dir)
        table = as_seen(run)
        table = table[table["sample"].isin(set(values))]
        tokens = SubjectTokens(store, table["sample"].tolist())
        if not tokens.samples:
            raise HandscopeError(
                f"None of the {len(table)} samples in {run.path} with a value has a stored token of the subject: label "
                "where it is (handscope label, or labels import), then run extract."
            )
        table = table.set_index("sample", drop=False).loc[tokens.samples]
        check_noise(table, run.path)
        check_pictures(table, run.path)
        place = [asked.levels.index(values[sample]) for sample in tokens.samples]
        several = Several.of(place, asked.levels, table["prompt"], asked.ordered, permutations, folds, seed)
        return cls(store, tokens, several)

    def answer(self, cell: Cell) -> _Answer:
        """Read one cell and ask."""
        told, said = self.several.told(self.tokens.read(cell)[0].mean)
        return _Answer(cell, told, self._confusion(cell, said))

    def _confusion(self, cell: Cell, said: NDArray[np.intp]) -> pd.DataFrame:
        values = np.array(self.several.values, dtype=object)
        pairs = pd.DataFrame({"value": values[self.several.place], "said": values[said]})
        counted = pairs.value_counts(sort=False).rename("n").reset_index()
        return counted.assign(block=str(cell.block), step=cell.step)[["block", "step", "value", "said", "n"]]


def _write_baselines(run: Run, questions: _Questions) -> None:
    """The same of plain statistics of the picture that the model predicts at each step, where they were kept."""
    path, samples = run.analysis_dir / "value_baselines.csv", questions.tokens.samples
    steps = {step: questions.store.plan.index(step) for step in questions.store.plan.steps}
    try:
        known = predicted_statistics(run, samples, steps)
    except HandscopeError:
        path.unlink(missing_ok=True)
        return
    found = []
    for step in steps:
        told, _ = questions.several.told(known.xs(step, level="step").loc[samples].to_numpy())
        found.append(({"baseline": "image", "step": step}, told))
    write_csv(path, _table(found, questions))


def _table(found: list[tuple[dict[str, Any], dict[str, Told]]], questions: _Questions) -> pd.DataFrame:
    """A row for each thing that is told at each place, with corrections over all of them."""
    several = questions.several
    counts = dict(zip(several.values, np.bincount(several.place, minlength=len(several.values)), strict=True))
    rows = [
        {
            **place, "value": name, "n_of": int(counts.get(name, len(several.place))), "n": len(several.place),
            "n_prompts": told.prompts, "n_pairs": told.pairs, "auc": told.auc, "lo": told.interval[0],
            "hi": told.interval[1], "null_mean": np.nanmean(told.null), "null_sd": np.nanstd(told.null), "p": told.p,
            "p_floor": several.p_floor,
        }
        for place, each_told in found for name, told in each_told.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    null = np.stack([told.null for _, each_told in found for told in each_told.values()], axis=1)
    return table.assign(p_family=family_p(table["auc"], null), q=benjamini_hochberg(table["p"]))
