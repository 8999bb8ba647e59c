"""How numbers are said: with their interval and n, and in the same words wherever they cannot be told from chance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .results import separable

CHANCE = "not separable from chance"


@dataclass(frozen=True)
class Finding:
    """A question and what the numbers answer.

    Attributes
    ----------
    question, brief, detail : str
        Sentences; `brief` can stand alone.
    mark : str
        ``yes``, ``no`` or ``partly``; ``chance`` where the data cannot support an answer.
    """

    question: str
    brief: str
    detail: str
    mark: str


def with_article(words: str) -> str:
    """A or an before words: ``an image``."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def auc_words(row: Any, prefix: str = "") -> str:
    """An AUC, its interval and n, and if it can be told from chance; `row` has auc, lo, hi, q after `prefix`."""
    value, low, high = (row[prefix + name] for name in ("auc", "lo", "hi"))
    if pd.isna(value):
        return f"no AUC could be computed ({counted(row)})"
    if not separable(row, prefix):
        return f"AUC {value:.2f} ({low:.2f} to {high:.2f}), {CHANCE} ({counted(row)})"
    return f"AUC {value:.2f} ({low:.2f} to {high:.2f}; {counted(row)})"


def counted(row: Any) -> str:
    """``n = 320``: samples of both classes."""
    return f"n = {int(row['n_good'] + row['n_bad'])}"


def place(row: Any) -> str:
    """``single.3 at step 8``."""
    return f"{row['block']} at step {row['step']}"


def percent(share: Any) -> str:
    """``37%``."""
    return f"{100 * float(share):.0f}%"


def rounded(number: float, sign: str = "") -> str:
    """``−0.04``, or with the sign "+" also ``+0.04``."""
    return f"{number:{sign}.2f}".replace("-", "−")


def at_steps(steps: Iterable[int]) -> str:
    """``step 20`` or ``steps 20, 8 and 1``."""
    texts = [str(step) for step in steps]
    return f"step {texts[0]}" if len(texts) == 1 else f"steps {', '.join(texts[:-1])} and {texts[-1]}"


def best_row(rows: pd.DataFrame, column: str, known: pd.Series) -> Any:
    """The row with the largest value among those that can be told from chance, or among all where none can."""
    return rows.loc[(rows[known] if known.any() else rows)[column].idxmax()]
