"""A finding is one object: what is claimed, the estimate, the test with its family, and what would have been seen.

Makers turn rows of tables into claims, and nothing else; `Claim.brief` and `Claim.detail` are the only place where a
claim becomes sentences, so that none says what its numbers do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..analysis.statistics.multiple import holm, resolvable
from ..analysis.statistics.power import detectable
from ..figures import LEVEL
from .words import CHANCE, TOO_FEW, capital, listed, number, percent, place, signed

Verdict = Literal["yes", "partly", "no", "chance", "too_few", "not_measured"]

MARGIN = 0.05
"""An AUC or a gain that lies this near to none, with its whole interval, counts as none worth naming."""

TARGET = 0.8
"""The chance with which what is named as detectable would have been seen."""


@dataclass(frozen=True)
class Effect:
    """An estimate with its 95% interval.

    Attributes
    ----------
    name : what it is: ``AUC``, ``gain``, ``excess``
    value, low, high : NaN where there is none
    null : the value of no effect
    unit : behind the number; ``%`` for a share
    change : the two numbers whose difference it is, if any
    spread : the standard deviation of its null, else what its interval shows of it
    by_null : whether the interval is had from the spread of the null, for want of one of its own
    """

    name: str
    value: float
    low: float
    high: float
    null: float = 0.0
    unit: str = ""
    change: tuple[float, float] | None = None
    spread: float = math.nan
    by_null: bool = False

    @property
    def holds_null(self) -> bool:
        """Whether the interval holds the value of no effect."""
        return self.low <= self.null <= self.high

    @property
    def against(self) -> bool:
        """Whether the whole interval lies on the side that is not claimed."""
        return self.high < self.null

    @property
    def near(self) -> bool:
        """Whether the whole interval lies within `MARGIN` of no effect, of an AUC or a gain in it."""
        return not self.unit and self.null - MARGIN <= self.low and self.high <= self.null + MARGIN

    def words(self, beside: str = "") -> str:
        """``AUC 0.68 (0.59 to 0.76; n = 509)``, ``gain +0.07 (+0.02 to +0.12), from AUC 0.60 to 0.67``."""
        inside = [beside] if beside else []
        if not math.isnan(self.low):
            ends = f"{self.said(self.low)} to {self.said(self.high)}"
            inside.insert(0, f"{ends}{' by the spread of its null' * self.by_null}")
        unit = f" {self.unit}" if self.unit not in ("", "%") else ""
        text = f"{self.name} {self.said(self.value)}{unit}".strip() + (f" ({'; '.join(inside)})" if inside else "")
        if self.change is not None:
            text += f", from AUC {number(self.change[0])} to {number(self.change[1])}"
        return text

    def said(self, value: float) -> str:
        """A number of its kind: a share in per cent, points as whole ones, a difference with its sign."""
        if self.unit == "%":
            return percent(value)
        if self.unit == "points":
            return f"{round(value)}".replace("-", "−")
        return number(value) if self.null else signed(value)


@dataclass(frozen=True)
class Columns:
    """Where in a table an effect and its test stand."""

    value: str
    prefix: str = ""
    name: str = "AUC"
    null: float = 0.5
    unit: str = ""
    change: tuple[str, str] | None = None
    alone: bool = False
    """Whether one test was named beforehand, so that its p needs no correction."""
    opposed: bool = True
    """Whether an effect on the other side contradicts the claim, as less error than by chance does not."""

    def effect(self, row: Any) -> Effect:
        value, spread = float(row[self.prefix + self.value]), self._of(row, "null_sd")
        low, high = self._of(row, "lo"), self._of(row, "hi")
        by_null = math.isnan(low) and not math.isnan(spread)
        if by_null:
            low, high = value - 1.96 * spread, value + 1.96 * spread
        elif math.isnan(spread):
            spread = (high - low) / 3.92
        change = self.change and (self._of(row, self.change[0]), self._of(row, self.change[1]))
        return Effect(self.name, value, low, high, self.null, self.unit, change, spread, by_null)

    def called(self, rows: pd.DataFrame, size: int | None = None) -> pd.Series:
        """Which rows a corrected test calls, among `size` that are corrected together, with an effect as claimed."""
        return (rows[self.corrected(rows, size)] <= LEVEL) & (rows[self.prefix + self.value] > self.null)

    def corrected(self, rows: pd.DataFrame, size: int | None = None) -> str:
        """The column that rows are called by: q, or where its null is too coarse for so many tests the family's p.

        A single p where the test was named beforehand, or the table has neither.
        """
        single, rate, family = (f"{self.prefix}{name}" for name in ("p", "q", "p_family"))
        if self.alone or not {rate, family} & set(rows):
            return single
        if {rate, family} <= set(rows):
            floor = self.floor(rows)
            return rate if math.isnan(floor) or resolvable(floor, size or len(rows), LEVEL) else family
        return rate if rate in rows else family

    def floor(self, rows: pd.DataFrame) -> float:
        """The smallest p that the nulls of all rows could have given; NaN where a table does not say."""
        floors = rows[f"{self.prefix}p_floor"].dropna() if f"{self.prefix}p_floor" in rows else pd.Series(dtype=float)
        return float(floors.max()) if len(floors) else math.nan

    def _of(self, row: Any, name: str) -> float:
        return float(row.get(self.prefix + name, math.nan))


SCORE = Columns("auc")
GAIN = Columns("added", name="gain", null=0.0, change=("auc_baseline", "auc_both"))


@dataclass(frozen=True)
class Family:
    """The tests that a claim is made from, and those that they are corrected together with.

    Attributes
    ----------
    each : what each of them is of: ``cell``, ``step``
    called, tested : how many a corrected test calls on the claimed side, of how many
    size : how many were corrected together, `tested` among them
    how : the correction: ``q`` (false discovery rate), ``family-wise p`` or ``p`` of a single test
    least : a p that nothing at all is there: the smallest p adjusted for the family, or the smallest q (Simes')
    fine : whether the null allows one test alone to be called
    floor : the smallest p that it allows; NaN where that is not known
    lowest : the smallest p before correction
    steps : the steps of the called tests, where each is a step
    """

    each: str
    called: int
    tested: int
    size: int
    how: str
    least: float
    fine: bool = True
    floor: float = math.nan
    lowest: float = math.nan
    steps: tuple[int, ...] = ()

    @property
    def at_floor(self) -> bool:
        """Whether nothing was called for want of permutations: something may be there, or nothing could be seen."""
        return not self.fine and not (self.lowest > LEVEL >= self.floor)

    @property
    def needed(self) -> int:
        """How many tests must have the smallest p that the null allows before one is called."""
        return math.ceil(self.floor * self.size / LEVEL)

    @property
    def over(self) -> str:
        """``q ≤ 0.05 over all``, or, where others were corrected together with these, ``over 432 tests``."""
        if self.size == 1:
            return f"one test, {self.how} = {self.least:.2g}"
        return f"{self.how} ≤ {LEVEL} over {'all' if self.size == self.tested else _tests(self.size)}"

    @property
    def extent(self) -> str:
        """Where it is called."""
        if self.tested == 1:
            return self.nowhere
        if self.each == "step":
            some = f"{self.called} of {self.tested} steps, {listed(self.steps)}"
            return f"at {some if self.called < self.tested else f'all {self.tested} steps'} ({self.over})"
        return f"in {self.called:,} of {self.tested:,} {self.each}s ({self.over})"

    @property
    def nowhere(self) -> str:
        """Where it is not, in none of them; of a single test, its p."""
        if self.tested == 1:
            return f"({self.over})" if self.size == 1 else f"({self.how} = {self.least:.2g} over {_tests(self.size)})"
        where = "at" if self.each == "step" else "in"
        return f"{where} each of {self.tested:,} {self.each}s ({self.over.replace('≤', '>')})"


def _tests(count: int) -> str:
    return f"{count:,} test{'s' if count != 1 else ''}"


@dataclass(frozen=True)
class Claim:
    """What one finding claims.

    Attributes
    ----------
    question : what was asked
    topic : its name in a few words, where claims are listed
    says : the claim as a clause, which holds if the verdict is yes; where nothing was tested the sentence itself, in
        which ``{estimate}`` stands for the effect
    n : what was counted, in the words of `Results.n`
    verdict : what the numbers make of it, as of `verdict_of`
    effect, where : the estimate, and of which of several tests it is: the largest called one, else the largest
    against : the estimate that contradicts the claim most, if the whole interval of one does, and where
    family : None where no test was made
    needs_all : whether the claim is of all its tests, so that some alone make it hold in part
    parts : claims that this one is made of
    listed : whether parts are named only, by their verdict
    notes : sentences that hold whatever was found
    reason : why it was not measured
    """

    question: str
    topic: str
    says: str
    n: str
    verdict: Verdict
    effect: Effect | None = None
    where: str = ""
    against: tuple[str, Effect] | None = None
    family: Family | None = None
    needs_all: bool = False
    parts: tuple[Claim, ...] = ()
    listed: bool = False
    notes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def mark(self) -> str:
        return self.verdict

    @property
    def brief(self) -> str:
        """One sentence that can stand alone."""
        return _told(self, f"{_LEAD.get(self.verdict, '')}{self.says}")

    @property
    def detail(self) -> str:
        """The other sentences."""
        parts = [_listed(self.parts)] if self.listed else [_line(part, self.n) for part in self.parts]
        return " ".join([*_besides(self), *self.notes, *parts])


_LEAD = {"yes": "Yes: ", "partly": "In part: "}


def _line(part: Claim, n: str) -> str:
    """A claim as a part of another, which has counted n already: its topic, and what was found of it."""
    shown = _told(part, f"{capital(part.topic)}: shown", "" if part.n == n else part.n)
    return " ".join([shown, *_besides(part), *part.notes])


def _told(claim: Claim, shown: str, n: str | None = None) -> str:
    """The first sentence; `shown` begins it where the claim, or some of it, holds; a part ends it with ": shown"."""
    family, part = claim.family, shown.endswith(": shown")
    begin = f"{capital(claim.topic)}: " if part else ""
    if claim.verdict == "not_measured":
        return f"{begin}{'not' if part else 'This was not'} measured: {claim.reason}."
    if family is None and claim.parts:
        return _of_parts_told(claim, shown)
    if family is None:
        if claim.effect is not None:
            return f"{capital(claim.says.format(estimate=claim.effect.words(claim.n)))}."
        return f"{capital(claim.says)} ({claim.n})."
    if claim.verdict in ("yes", "partly"):
        return f"{shown} {family.extent}{_most(claim, claim.n if n is None else n)}."
    if claim.verdict == "too_few":
        said = f"{begin}{TOO_FEW}" if part else f"{capital(TOO_FEW)} whether {claim.says}"
        return f"{said} ({claim.n}): {_coarse(family)}."
    if claim.verdict == "no":
        near = "its interval lies" if family.tested == 1 else f"all {family.tested} intervals lie"
        near = f"{near} within ±{MARGIN} of none ({claim.n})"
        less = f"none, or less than {MARGIN}: " if part else f"No, or by less than {MARGIN}: it is not shown that "
        return f"{begin}{less}{near}." if part else f"{less}{claim.says}, and {near}."
    return f"{begin}{'' if part else f'It is not shown that {claim.says}: '}{CHANCE} ({claim.n}) {family.nowhere}."


def _of_parts_told(claim: Claim, shown: str) -> str:
    """The first sentence of a claim whose tests are those of its parts."""
    if claim.verdict == "yes":
        return f"{shown} ({claim.n})."
    if claim.verdict == "partly":
        return f"In part ({claim.n}). {_listed(claim.parts)}"
    if claim.verdict == "too_few":
        return f"{capital(TOO_FEW)} whether {claim.says} ({claim.n}). {_listed(claim.parts)}"
    return f"It is not shown that {claim.says}: {CHANCE} ({claim.n})."


def _listed(parts: Sequence[Claim]) -> str:
    """Topics of claims by what was found: ``Shown: x0, image. Not separable from chance: noise.``"""
    said = []
    for words, verdicts in _SAID.items():
        topics = [part.topic for part in parts if part.verdict in verdicts]
        if topics:
            said.append(f"{capital(words)}: {'; '.join(topics)}.")
    return " ".join(said)


_SAID = {
    "shown": ("yes", "partly"),
    CHANCE: ("chance",),
    TOO_FEW: ("too_few",),
    f"within {MARGIN} of none": ("no",),
    "not measured": ("not_measured",),
}


def of_parts(parts: Sequence[Claim]) -> Verdict:
    """The verdict on a claim that holds if all its parts do."""
    verdicts = {part.verdict for part in parts if part.verdict != "not_measured"}
    if not verdicts:
        return "not_measured"
    found = verdicts & {"yes", "partly"}
    if "too_few" in verdicts:
        return "too_few"
    return "yes" if found == verdicts else "partly" if found else "chance"


def _most(claim: Claim, n: str) -> str:
    """The largest estimate of those that were called."""
    effect, family = claim.effect, claim.family
    assert effect is not None and family is not None
    many = family.tested > 1
    most = f"; most {claim.where}: " if many and claim.where else "; the largest is " if many else ": "
    weak = f", an interval that holds {effect.said(effect.null)}" if effect.holds_null else ""
    return f"{most}{effect.words(n)}{weak}"


def _coarse(family: Family) -> str:
    if family.floor >= 1:
        return "within the prompts that are compared nothing can be exchanged, as where each has one picture"
    if family.size == 1:
        return f"the smallest p that they allow is {family.floor:.2g}"
    if family.needed > family.size:
        return f"the smallest p that they allow is {family.floor:.2g}, with which none of {family.size:,} can be called"
    return (
        f"the smallest p that they allow is {family.floor:.2g}, and {family.needed} of {family.size:,} tests would have"
        " to reach it before one is called"
    )


def _besides(claim: Claim) -> Iterator[str]:
    """What else the numbers say: the largest where none is called, what would have been seen, what contradicts."""
    effect, family = claim.effect, claim.family
    if family is None or effect is None:
        return
    if claim.verdict in ("chance", "too_few", "no"):
        where = f", {claim.where}," if claim.where else ""
        largest = f"The largest{where} is" if family.tested > 1 else "The estimate is"
        yield f"{largest} {effect.words()}."
        seen = detectable(effect.spread, effect.null, LEVEL / family.size, TARGET)
        if claim.verdict == "chance" and math.isfinite(seen) and not effect.unit:
            yield f"{capital(effect.name)} {effect.said(seen)} would have been seen with a chance of {percent(TARGET)}."
    if claim.verdict in ("yes", "partly") and effect.change is not None and effect.change[0] < 0.5:
        below = number(0.5 - effect.change[0])
        yield f"Of that {effect.name}, {below} is only what the other reader lies below 0.5."
    if claim.against is not None:
        where, other = claim.against
        yield f"The other way {where}: {other.words()}."


def verdict_of(family: Family, effects: Sequence[Effect], shown: Effect, needs_all: bool = False) -> Verdict:
    """What tests make of a claim.

    Parameters
    ----------
    effects : of all tests
    shown : the one that is printed: of the largest called test where one is called
    needs_all : whether all must be called for a yes

    Notes
    -----
    A claim holds where a corrected test calls it with an effect on the claimed side, and in part where only some of
    those that it needs do, or the interval of the largest holds no effect. Where none is called it is *no* if every
    interval is within `MARGIN` of no effect, *too few* if the null is too coarse for the family and a p before
    correction is small, and else not separable from chance.
    """
    if not family.tested:
        return "not_measured"
    if family.called:
        return "partly" if shown.holds_null or (needs_all and family.called < family.tested) else "yes"
    if all(effect.near for effect in effects):
        return "no"
    return "too_few" if family.at_floor else "chance"


def claim_of(
    question: str,
    topic: str,
    says: str,
    n: str,
    rows: pd.DataFrame,
    columns: Columns = SCORE,
    *,
    size: int | None = None,
    each: str = "cell",
    needs_all: bool = False,
    notes: Sequence[str] = (),
    parts: Sequence[Claim] = (),
    listed: bool = False,
    reason: str = "no number could be computed",
) -> Claim:
    """The claim that rows of a table make, one row a test.

    Parameters
    ----------
    size : how many tests were corrected together; as many as there are rows where left out
    each : what a row is of: ``cell``, ``step`` (rows of one block), or a name of one test
    """
    found = rows.dropna(subset=[columns.prefix + columns.value]) if len(rows) else rows
    size = size or len(found)
    corrected = columns.corrected(found, size)
    found = found.dropna(subset=[corrected]) if corrected in found else found.iloc[:0]
    if found.empty:
        return Claim(question, topic, says, n, "not_measured", reason=reason)
    called = columns.called(found, size)
    effects = [columns.effect(row) for _, row in found.iterrows()]
    among = np.flatnonzero(called) if called.any() else np.arange(len(found))
    best = int(among[np.argmax([effects[one].value for one in among])])
    worst = int(np.argmin([effect.value for effect in effects]))
    family = _family(found, called, columns, corrected, size, each)
    where = [_where(row, each) for _, row in found.iterrows()]
    return Claim(
        question,
        topic,
        says,
        n,
        verdict_of(family, effects, effects[best], needs_all),
        effects[best],
        where[best],
        (where[worst], effects[worst]) if len(found) > 1 and columns.opposed and effects[worst].against else None,
        family,
        needs_all,
        tuple(parts),
        listed,
        tuple(notes),
    )


def _family(found: pd.DataFrame, called: pd.Series, columns: Columns, corrected: str, size: int, each: str) -> Family:
    name = corrected.removeprefix(columns.prefix)
    how = {"q": "q", "p": "p", "p_family": "family-wise p"}[name]
    size = 1 if name == "p" else size
    floor = columns.floor(found)
    family, single = (f"{columns.prefix}{name}" for name in ("p_family", "p"))
    steps = found["step"].astype(int) if each == "step" else None
    return Family(
        each,
        int(called.sum()),
        len(found),
        size,
        how,
        float(found[family if family in found and not columns.alone else corrected].min()),
        math.isnan(floor) or resolvable(floor, 1 if name == "p_family" else size, LEVEL),
        floor,
        float(found[single if single in found else corrected].min()),
        tuple(steps[called]) if steps is not None else (),
    )


def _where(row: Any, each: str) -> str:
    if each == "step":
        return f"at step {int(row['step'])}"
    if each in row:
        return f"for {row[each]}" + (f" at step {int(row['step'])}" if not pd.isna(row.get("step")) else "")
    return f"in {place(row)}" if "block" in row and "step" in row else ""


def holm_line(claims: Iterable[Claim]) -> Claim:
    """Which questions hold when all of them count as one family.

    Notes
    -----
    The smallest q of a family is Simes' p that nothing at all is there in it; the smallest family-wise p is one too.
    Holm's correction over these holds the chance that any question is answered yes by chance alone at 5%.
    """
    tested = [claim for claim in claims if claim.family is not None and not math.isnan(claim.family.least)]
    question = "What holds when everything that was tested here counts as one family?"
    topic = "everything together"
    if not tested:
        return Claim(question, topic, "", "", "not_measured", reason="nothing was tested")
    adjusted = holm([claim.family.least for claim in tested if claim.family])
    side = [claim.verdict in ("yes", "partly") for claim in tested]
    held = [claim.topic for claim, p, ok in zip(tested, adjusted, side, strict=True) if ok and p <= LEVEL]
    lost = [claim.topic for claim, p, ok in zip(tested, adjusted, side, strict=True) if ok and p > LEVEL]
    count = sum(claim.family.size for claim in tested if claim.family)
    says = f"of {len(tested)} questions with {count:,} tests, {f'these hold: {listed(held)}' if held else 'none holds'}"
    if lost:
        says += f"; and these only when asked alone: {listed(lost)}"
    n = f"Holm's correction over the smallest q of each, family-wise error {percent(LEVEL)}"
    return Claim(question, topic, says, n, "chance" if not held else "partly" if lost else "yes")
