"""How numbers are said, and the few fixed words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

CHANCE = "not separable from chance"
TOO_FEW = "too few permutations to tell"


def with_article(words: str) -> str:
    """A or an before words: ``an image``."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def capital(words: str) -> str:
    """A sentence's first letter large, and the rest as it is; names of blocks stay small."""
    first = words.split(" ", 1)[0]
    return words if "." in first.rstrip(".") else words[:1].upper() + words[1:]


def place(row: Any) -> str:
    """``single.3 at step 8``."""
    return f"{row['block']} at step {row['step']}"


def percent(share: Any) -> str:
    """``37%``."""
    return f"{round(100 * float(share))}%".replace("-", "−")


def number(value: float, sign: str = "") -> str:
    """``−0.04``, and with the sign "+" also ``+0.04``; one more digit where two would leave nothing of it."""
    text = f"{value:{sign}.2f}"
    if float(text) == 0:
        text = f"{value:{sign}.3f}" if abs(value) >= 0.0005 else "0.00"
    return text.replace("-", "−")


def signed(value: float) -> str:
    """``+0.04``."""
    return number(value, "+")


def listed(things: Iterable[Any]) -> str:
    """``20, 8 and 1``."""
    texts = [str(thing) for thing in things]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def at_steps(steps: Iterable[int]) -> str:
    """``step 20`` or ``steps 20, 8 and 1``."""
    steps = list(steps)
    return f"step{'s' if len(steps) > 1 else ''} {listed(steps)}"


def best_row(rows: pd.DataFrame, column: str, known: pd.Series) -> Any:
    """The row with the largest value among those that can be told from chance, or among all where none can."""
    return rows.loc[(rows[known] if known.any() else rows)[column].idxmax()]
