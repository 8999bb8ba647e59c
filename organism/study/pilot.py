"""Which intervention, and how strongly: tried on seeds of its own, so that the experiment stays honest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from ...evaluation.arms import Arm
from ...files import write_csv
from .catalogue import pilot_arms
from .interventions import Setting

TOLERANCE = 1.1  # of the baseline's distance to renders: pictures may get no further from what they should look like

Compare = Callable[[Path, list[Arm]], pd.DataFrame]
"""From a folder and arms to the table of `handscope.evaluation.experiment.experiment`."""


def pilot(setting: Setting, folder: Path, compare: Compare) -> tuple[pd.DataFrame, dict[str, tuple[str, float]]]:
    """Draw every intervention at every strength on a few pairs, and choose.

    Parameters
    ----------
    folder : the pilot's own
    compare : draws and judges arms on the pilot's pairs

    Returns
    -------
    table : DataFrame
        As of `handscope.evaluation.experiment.compared`, with the columns ``way``, ``group`` and ``dose``; also
        ``doses.csv``.
    chosen : for each group, the name of its intervention and the strength; see `choose`
    """
    tried = pilot_arms(setting)
    table = compare(folder, [one.arm for one in tried])
    for column in ("way", "group", "dose"):
        table[column] = [getattr(one, column) for one in tried]
    write_csv(folder / "doses.csv", table)
    return table, choose(table)


def choose(table: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """For each group the intervention and strength with the lowest malformed rate, the weaker of equals.

    Only among those that leave the distance to renders within `TOLERANCE` of the baseline's; where none does, the one
    that raises it least.
    """
    chosen: dict[str, tuple[str, Any]] = {}
    might = table[(table["family"] != "control") & (table["group"] != "")]
    for group, rows in might.groupby("group", sort=False):
        kept = rows[rows["kd_ratio"] <= TOLERANCE]
        best = rows.sort_values("kd_ratio").iloc[0] if kept.empty else kept.sort_values(["after", "dose"]).iloc[0]
        chosen[str(group)] = (str(best["way"]), float(best["dose"]))
    return chosen
