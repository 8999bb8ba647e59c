"""Pairs for interchange: a recipient, a donor of the other class, and the donors of the controls beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..errors import HandscopeError
from ..labeling.table import check_noise, sample_table
from ..run.folder import Run


def stored_pairs(run: Run, pairs: int, seed: int = 0) -> pd.DataFrame:
    """Pairs of one prompt and different noises, of samples that are surely good and surely bad, both ways.

    Each sample is of one couple, and each couple is two pairs: the good one gives to the bad one, and the other way
    round. Couples are taken prompt after prompt, so that a part of them has as many prompts as there are.

    Parameters
    ----------
    pairs : int
        How many at most.

    Returns
    -------
    DataFrame, one row a pair
        pair, prompt, recipient, donor; toward, 1 where the donor is bad and -1 where it is good; own, another sample
        of the prompt with the recipient's verdict; other, a sample of another prompt with the donor's.

    Raises
    ------
    HandscopeError
        No prompt has a good and a bad sample, or prompts share their noises.
    """
    table = sample_table(run)
    table = table[table["verdict"].isin(("good", "bad"))].sort_values("sample").reset_index(drop=True)
    check_noise(table, run.path)
    random = np.random.default_rng([seed, 16])
    shuffled = table.iloc[random.permutation(len(table))]
    of = {key: part["sample"].tolist() for key, part in shuffled.groupby(["prompt", "verdict"])}
    prompts = sorted(set(table["prompt"]))
    couples: list[tuple[int, str, str, str]] = []
    for prompt in prompts:
        both = zip(of.get((prompt, "good"), []), of.get((prompt, "bad"), []))
        couples += [(round_, prompt, good, bad) for round_, (good, bad) in enumerate(both)]
    couples.sort(key=lambda couple: couple[0])
    if not couples:
        raise HandscopeError(
            f"No prompt of {run.path} has both a good and a bad sample with a sure verdict: label more samples."
        )
    rows = []
    for number, (_, prompt, good, bad) in enumerate(couples[: (pairs + 1) // 2]):
        for recipient, donor, toward in ((bad, good, -1), (good, bad, 1)):
            verdict, other = ("good", "bad") if toward > 0 else ("bad", "good")
            alike = [sample for sample in of[prompt, verdict] if sample != recipient]
            elsewhere = [one for key, some in of.items() if key[0] != prompt and key[1] == other for one in some]
            rows.append(
                {
                    "pair": f"{number:03d}{'-+'[toward > 0]}",
                    "prompt": prompt,
                    "recipient": recipient,
                    "donor": donor,
                    "toward": toward,
                    # Where the recipient is the only one of its kind, there is no other to take.
                    "own": alike[number % len(alike)] if alike else "",
                    "other": elsewhere[(7 * number) % len(elsewhere)] if elsewhere else "",
                }
            )
    return pd.DataFrame(rows[:pairs])
