"""The tables of docs/anatomy_scores.md, written from the data that the code uses."""

from ..measure.limits import JOINT_LIMITS, RATIOS, SPREAD_LIMITS, Limit
from .reasons import ratio_bounds
from .scores import truth_table


def _table(head: str, rows: list[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows])


def _range(ends: tuple[float, float]) -> str:
    return " to ".join(f"{end:g}".replace("-", "−") for end in ends)


def limits_table(limits: tuple[Limit, ...] = JOINT_LIMITS) -> str:
    """Ranges of motion in Markdown."""
    rows = [
        f"| {row.name} | {_range(row.active)} | {_range(row.passive)} | {row.tolerance:g} | {row.active_source} | "
        f"{row.passive_source} |"
        for row in limits
    ]
    return _table("| angle | active ° | passive ° | tolerance ° | source of active | source of passive |", rows)


def spread_table() -> str:
    """Spread between neighbouring digits in Markdown."""
    return limits_table(SPREAD_LIMITS)


def ratio_table() -> str:
    """Digit ratios in Markdown."""
    low, high = ratio_bounds()
    rows = [
        f"| {row.digit} | {row.xray:.2f} | {row.reference:.2f} | {row.deviation:.2f} | "
        + (f"{low[i]:.2f} to {high[i]:.2f} |" if row.deviation else "– |")
        for i, row in enumerate(RATIOS)
    ]
    return _table("| digit | X-ray | reference | spread of the logarithm | usual |", rows)


def paper_table() -> str:
    """The truth table of the published score in Markdown."""
    rows = [
        f"| {'five' if row.five else 'not five'} | {'all within' if row.joints else 'one or more out'} | "
        f"{row.base:g} + 0.3 × similarity | {row.flagged} |"
        for row in truth_table()
    ]
    return _table("| fingers | joints | score | called implausible |", rows)
