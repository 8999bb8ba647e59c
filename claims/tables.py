"""Published tables re-derived: what rates, or counts, imply, with intervals, beside what was printed of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.stats import fisher_exact, norm
from scipy.stats import t as student
from scipy.stats.contingency import odds_ratio

from ..analysis.statistics.verdicts import rogan_gladen
from ..errors import HandscopeError
from ..plain_yaml import PlainLoader

SHIPPED = Path(__file__).with_name("published") / "2604.01321.yaml"
SHARES = 100.0


@dataclass(frozen=True, eq=False)
class Published:
    """A table as printed.

    Attributes
    ----------
    rows : DataFrame with columns group, name, rate (percent); n and bad where counts are known; any other columns of
        numbers are averaged, and `after` is a rate after something was done about it
    groups : the two groups that are compared, the one with the larger rate first
    total : instances of all rows together, where those of each are not known: split evenly, as the result says
    printed : what was printed of it, by the names that `rederive` uses, as text
    agreement, kappa : of the scorer with people, where they are printed
    citation : str
    """

    rows: pd.DataFrame
    groups: tuple[str, str]
    total: int | None = None
    printed: dict[str, str] = field(default_factory=dict)
    agreement: float | None = None
    kappa: float | None = None
    citation: str = ""


def read_published(path: Path = SHIPPED) -> Published:
    """A CSV of rows (group, name and either n and bad, or rate), or a YAML file that says more, as the shipped one.

    Raises
    ------
    HandscopeError
        The file cannot be read, or a row lacks what it needs.
    """
    try:
        if path.suffix.lower() in (".yaml", ".yml"):
            said = yaml.load(path.read_text(encoding="utf-8"), PlainLoader)
            said = {**said, "rows": pd.DataFrame(said["rows"])}
        else:
            said = {"rows": pd.read_csv(path)}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise HandscopeError(f"{path} could not be read as a table ({' '.join(str(error).split())[:200]}).") from error
    rows = said["rows"]
    counted = {"n", "bad"} <= set(rows)
    if not {"group", "name"} <= set(rows) or not (counted or "rate" in rows):
        raise HandscopeError(
            f"{path} needs the columns group, name, and n and bad (counts) or rate (percent); it has "
            f"{', '.join(map(str, rows.columns))}."
        )
    numeric = rows.drop(columns=["group", "name"])
    if list(numeric.select_dtypes("number")) != list(numeric):
        odd = [name for name in numeric if not pd.api.types.is_numeric_dtype(numeric[name])]
        raise HandscopeError(f"{path}: the column {odd[0]} has something that is no number.")
    if counted:
        if (rows["n"] < 1).any() or (rows["bad"] < 0).any() or (rows["bad"] > rows["n"]).any():
            raise HandscopeError(f"{path}: expected 0 ≤ bad ≤ n and n of at least 1 in every row.")
        rows = rows.assign(rate=100 * rows["bad"] / rows["n"])
    if rows["rate"].isna().any() or (rows["rate"] < 0).any() or (rows["rate"] > 100).any():
        raise HandscopeError(f"{path}: expected rates from 0 to 100 percent in every row.")
    means = rows.groupby("group")["rate"].mean().sort_values(ascending=False)
    groups = tuple(said.get("groups") or means.index)
    if len(groups) != 2 or not set(groups) <= set(means.index):
        raise HandscopeError(f"{path}: expected two groups, found {', '.join(map(str, means.index))}.")
    known = {name: said[name] for name in ("total", "agreement", "kappa", "citation") if said.get(name) is not None}
    printed = {str(name): str(value) for name, value in (said.get("published") or {}).items()}
    return Published(rows, (str(groups[0]), str(groups[1])), printed=printed, **known)


def rederive(published: Published) -> pd.DataFrame:
    """Every number that the table implies, beside what was printed of it.

    Returns
    -------
    DataFrame with columns quantity, value, lo, hi (95%; NaN where there is none), printed (as text), agrees (True,
    False, or None where nothing was printed), how

    Notes
    -----
    Means are of rows, unweighted, as papers print them. The interval of the odds ratio is Woolf's, and with counts also
    the conditional one of Fisher's exact test; where the counts of rows are not known, all rows have as many. Means and
    reductions have Student's interval over rows: models are what was sampled. A printed number agrees if it is the
    value, rounded to as many digits.
    """
    rows, (first, second) = published.rows, published.groups
    found: list[tuple[str, float, float, float, str]] = []

    def add(quantity: str, value: float, lo: float = math.nan, hi: float = math.nan, how: str = "") -> None:
        found.append((quantity, float(value), float(lo), float(hi), how))

    parts = {group: rows[rows["group"] == group] for group in (first, second)}
    for group, part in parts.items():
        add(f"mean rate, {group}", *_mean(part["rate"]), f"of {len(part)} rows, unweighted")
    one, other = (part["rate"].mean() / 100 for part in parts.values())
    add("ratio of mean rates", one / other if other else math.inf, how="of the unweighted means")
    _odds(published, parts, add)
    _columns(rows, parts, add)
    if "after" in rows:
        _reduction(rows, add)
    if published.agreement is not None:
        _scorer(published, one, other, add)
    table = pd.DataFrame(found, columns=["quantity", "value", "lo", "hi", "how"])
    table.insert(4, "printed", table["quantity"].map(published.printed).astype(object).where(lambda x: x.notna(), ""))
    table.insert(5, "agrees", [_agrees(row.value, row.printed) for row in table.itertuples()])
    return table


def _mean(values: pd.Series) -> tuple[float, float, float]:
    values = values.dropna()
    half = student.ppf(0.975, len(values) - 1) * values.std() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return values.mean(), values.mean() - half, values.mean() + half


def _odds(published: Published, parts: dict[str, pd.DataFrame], add: Any) -> None:
    """The odds ratio, its interval, and what a printed interval would mean."""
    counted = {"n", "bad"} <= set(published.rows)
    if counted:
        n = [int(part["n"].sum()) for part in parts.values()]
        bad = [float(part["bad"].sum()) for part in parts.values()]
        how = f"of {n[0]:,} and {n[1]:,} pooled"
    else:
        n = [0, 0]
        if published.total:
            each = published.total / len(published.rows)
            n = [int(round(each * len(part))) for part in parts.values()]
        bad = [part["rate"].mean() / 100 * max(size, 1) for part, size in zip(parts.values(), n)]
        how = f"if every row has as many of {published.total:,}" if published.total else "of the unweighted means"
    sizes = [max(size, 1) for size in n]
    odds = [b / (size - b) if size > b else math.inf for b, size in zip(bad, sizes)]
    value = odds[0] / odds[1] if odds[1] else math.inf
    name = "odds ratio" if counted else "odds ratio of mean rates"
    if not any(n):
        add(name, value, how=how)
        return
    with np.errstate(divide="ignore"):
        error = float(np.sqrt(np.sum(1 / np.array([bad[0], n[0] - bad[0], bad[1], n[1] - bad[1]]))))
    z = norm.ppf(0.975)
    low, high = (value * math.exp(sign * z * error) if math.isfinite(error) else math.nan for sign in (-1, 1))
    add(name, value, low, high, how)
    add("odds ratio, lower bound", low, how=f"Woolf's, {how}")
    add("odds ratio, upper bound", high, how=f"Woolf's, {how}")
    table = np.array([[round(b), size - round(b)] for b, size in zip(bad, n)])
    exact = odds_ratio(table)
    interval = exact.confidence_interval(0.95)
    add("odds ratio, conditional", exact.statistic, interval.low, interval.high, f"Fisher's exact, {how}")
    add("p of Fisher's exact test", fisher_exact(table)[1], how=how)
    ends = [published.printed.get(f"odds ratio, {end} bound") for end in ("lower", "upper")]
    if all(ends):
        claimed = math.log(float(ends[1]) / float(ends[0])) / (2 * z)  # type: ignore[arg-type]
        add("design effect of the printed interval", (claimed / error) ** 2,
            how="variance that it claims over that of as many independent instances")  # fmt: skip


def _columns(rows: pd.DataFrame, parts: dict[str, pd.DataFrame], add: Any) -> None:
    """Means of the other columns, and whether those that are shares add up."""
    others = [name for name in rows.columns if name not in ("group", "name", "rate", "n", "bad", "after")]
    for name in others:
        for group, part in parts.items():
            add(f"mean {name}, {group}", *_mean(part[name]), f"of {len(part)} rows, unweighted")
        means = [part[name].mean() for part in parts.values()]
        if name == "fid" and means[1]:
            add("mean fid, lower by", 100 * (1 - means[0] / means[1]), how="percent, of the unweighted means")
    shares = [name for name in others if rows[name].between(0, 100).all() and name != "fid"]
    if len(shares) > 1 and np.allclose(rows[shares].sum(axis=1), SHARES, atol=0.15):
        first = next(iter(parts.values()))
        for name in shares:
            weighted = np.average(first[name], weights=first["rate"])
            add(f"mean {name}, by rate", weighted, how="rows of the first group, weighted by their rates")
            add(f"mean {name}, all rows", rows[name].mean(), how="unweighted")


def _reduction(rows: pd.DataFrame, add: Any) -> None:
    both = rows[rows["after"].notna()]
    each = 100 * (1 - both["after"] / both["rate"])
    add("mean before", *_mean(both["rate"]), f"of {len(both)} rows with a rate after")
    add("mean after", *_mean(both["after"]), f"of {len(both)} rows")
    add("reduction", *_mean(each), f"percent, mean of {len(both)} rows")
    add("reduction of the means", 100 * (1 - both["after"].mean() / both["rate"].mean()), how="percent")
    # A bootstrap of rows never leaves their least and largest.
    add("reduction, lower bound", each.min(), how="the least of the rows: no resampling of rows goes below")
    add("reduction, upper bound", each.max(), how="the largest of the rows: no resampling of rows goes above")


def _scorer(published: Published, one: float, other: float, add: Any) -> None:
    """What the scorer's printed agreement with people implies for the rates."""
    right = float(published.agreement)  # type: ignore[arg-type]
    if published.kappa is not None:
        chance = (right - published.kappa) / (1 - published.kappa)
        add("agreement by chance behind kappa", chance, how="(agreement - kappa) / (1 - kappa)")
    for group, rate in zip(published.groups, (one, other)):
        true = 100 * float(rogan_gladen(rate, right, right))
        add(f"rate behind the flags, {group}", true, how=f"Rogan and Gladen, sensitivity and specificity {right:g}")


def _agrees(value: float, printed: str) -> bool | None:
    if not printed:
        return None
    digits = len(printed.partition(".")[2])
    return bool(abs(value - float(printed)) <= 0.5 * 10.0**-digits + 1e-9)
