"""The samples of a run with the verdicts on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ..errors import HandscopeError

if TYPE_CHECKING:
    from ..run.folder import Run

SUBSETS = {"sure": ("good", "bad"), "all": ("good", "good?", "bad?", "bad")}
"""Verdicts that a subset takes in: those given without doubt, and the leaning ones with them."""

FEWEST = 5


def sample_table(run: Run) -> pd.DataFrame:
    """One row a sample that has a verdict: the columns of ``run.samples()`` and of ``Labels.table()``.

    Prompts that the model sees alike are one prompt, and have the name of the first.
    """
    from .database.labels import Labels

    return as_seen(run).merge(Labels(run.labels_path).table(), on="sample", how="inner")


def as_seen(run: Run) -> pd.DataFrame:
    """``run.samples()``, in which prompts that the model sees alike have the name of the first."""
    samples, seen = run.samples(), run.prompts_as_seen()
    return samples.assign(prompt=[seen[prompt] for prompt in samples["prompt"]])


def labelled(table: pd.DataFrame, subset: str, folds: int, where: object) -> pd.DataFrame:
    """The rows of a sample table whose verdict is in the subset, with `bad` as 0 or 1, if there are enough of them.

    Raises
    ------
    HandscopeError
        There are fewer than five good or bad samples, or fewer prompts than folds; or prompts share initial noises, or
        a picture is there twice. `where` names the run in the message.
    """
    chosen = table[table["verdict"].isin(SUBSETS[subset])].reset_index(drop=True)
    chosen["bad"] = chosen["bad"].astype(int)
    bad, good, prompts = int(chosen["bad"].sum()), int((1 - chosen["bad"]).sum()), chosen["prompt"].nunique()
    if min(bad, good) < FEWEST or prompts < folds:
        raise HandscopeError(
            f"An analysis needs at least {FEWEST} good and {FEWEST} bad samples of {folds} or more prompts; {where} "
            f"has {good} good and {bad} bad ones of {prompts} prompts, among those labelled "
            f"{' or '.join(SUBSETS[subset])}. Label more samples, or have more"
            + (" prompts (of given pictures: groups, see import --group)." if prompts < folds else ".")
        )
    check_noise(chosen, where)
    check_pictures(chosen, where)
    return chosen


def check_noise(table: pd.DataFrame, where: object) -> None:
    """Refuse samples whose prompts were drawn from the same noises: folds of prompts would not hold a noise out.

    On the organism, whose outcome is decided by their noise more than by their prompt, this alone made an AUC of .51 on
    noises that were never seen into one of .83 (bench/validity/shared_noise.py).
    """
    known = table[table["noise_sha256"] != ""]
    shared = known.groupby("noise_sha256")["prompt"].nunique() > 1
    if shared.any():
        raise HandscopeError(
            f"{int(shared.sum())} initial noises of {where} were drawn with more than one prompt each: what a probe "
            "learns of a noise it would know in held-out prompts too. Run pairs, for two prompts at each noise, or "
            "crossed, for every prompt at every noise; or generate with noises of each prompt's own."
        )


def check_pictures(table: pd.DataFrame, where: object) -> None:
    """Refuse copies of a picture: a probe would be judged on what it was fitted to, or count one picture twice.

    With 50 of 100 pictures copied under another prompt and nothing to find, tests at 5% called 41 to 88 of 100.
    """
    known = table[table["image_sha256"] != ""]
    copies = known[known.duplicated("image_sha256", keep=False)]
    if len(copies):
        first = copies["sample"][copies["image_sha256"] == copies["image_sha256"].iloc[0]].tolist()
        raise HandscopeError(
            f"{copies['image_sha256'].nunique()} pictures of {where} are there more than once ({' and '.join(first)} "
            "are one): what a probe learns of a picture it would know of its copies too. Keep one sample of each, and "
            "give the others the verdict unsure."
        )
