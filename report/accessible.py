"""Whether what a block adds is new, or only easier to read: findings from one step, looked at more closely."""

from __future__ import annotations

from dataclasses import replace

from .claims import GAIN, Claim, claim_of
from .results import Results
from .words import number, signed

PICTURES = {"x0_flat": "a linear probe of the whole predicted picture", "x0_nonlinear": "a nonlinear one"}


def accessible(results: Results) -> list[Claim]:
    """Gains beside a nonlinear probe of the predicted picture, with bits and control tasks beside them."""
    table = results.table("nonlinear")
    if table.empty:
        return []
    prefix, step = results.prefix, int(table["step"].iloc[0])
    row = table.iloc[0]
    notes = [
        f"Only step {step} was looked at so, the middle of those that were read. There the linear probe of the picture "
        f"has a held-out AUC of {number(row['auc_linear'])} between all prompts, the nonlinear one "
        f"{number(row['auc_baseline'])}.",
        "A gain here is of what neither reads of the picture at this number of samples; it is no proof that the "
        "picture lacks it.",
    ]
    claim = claim_of(
        "Is it in the picture after all, for who reads it by more than a straight line?",
        "beside a nonlinear probe of the picture",
        f"a block at step {step} adds to a nonlinear probe of the predicted picture",
        results.n(prefix),
        table,
        replace(GAIN, prefix=prefix),
        notes=[*notes, *_bits(results), *_selective(results)],
    )
    return [claim]


def _bits(results: Results) -> list[str]:
    table = results.table("information")
    if table.empty:
        return []
    of = table.set_index("what")
    blocks = of.drop(index=["rate", *PICTURES], errors="ignore")
    best = blocks.loc[blocks["usable_bits"].idxmax()]
    said = [f"{name} {_information(of.loc[what])}" for what, name in PICTURES.items() if what in of.index]
    rate, flat, curved, block = (f"{of.loc[what, 'codelength']:.0f}" for what in ("rate", *PICTURES, best.name))
    return [
        f"In bits a sample, held out: {', '.join(said)}, the highest block {best.name} {_information(best)}.",
        f"To tell all {int(best['n'])} verdicts prompt after prompt takes {rate} bits with their rate alone, {flat} "
        f"and {curved} with the pictures, {block} with that block.",
    ]


def _information(row: object) -> str:
    value, low, high = (signed(row[f"usable_{name}"]) for name in ("bits", "lo", "hi"))  # type: ignore[index]
    return f"{value} ({low} to {high})"


def _selective(results: Results) -> list[str]:
    table = results.table("selectivity")
    if table.empty:
        return []
    best = table.loc[table["selectivity"].idxmax()]
    return [
        f"Control tasks: labels given to prompts at random are read with an AUC of {number(best['control'])} from "
        f"{best['block']} on new samples of the same prompts, the verdicts with {number(best['auc_seen'])} "
        f"(selectivity {signed(best['selectivity'])}, the highest of {len(table)} blocks)."
    ]
