"""The list of samples that an extraction set aside, beside the activations of the others."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...errors import HandscopeError
from ...files import atomic

COLUMNS = ("sample", "reason", "psnr")


@dataclass(frozen=True)
class SetAside:
    """A sample whose generation came out otherwise when it was made again, so that its labels are not its own.

    Attributes
    ----------
    sample, reason : str
    psnr : float
        Peak signal-to-noise ratio of the new image to the old, in dB; infinite where only the noise differs, NaN where
        the old image cannot be read (then the reason says so).
    """

    sample: str
    reason: str
    psnr: float


def set_aside(folder: Path) -> pd.DataFrame:
    """Samples that were set aside and have no shard: sample, reason, psnr (dB); empty where there are none.

    Parameters
    ----------
    folder : Path
        ``activations/`` of a run.
    """
    rows: dict[str, tuple[str, str, float]] = {}
    for path in sorted(folder.glob("set_aside*.csv")):
        rows.update({entry.sample: (entry.sample, entry.reason, entry.psnr) for entry in _read(path)})
    there = [row for sample, row in rows.items() if not (folder / "shards" / f"{sample}.h5").exists()]
    return pd.DataFrame(there, columns=list(COLUMNS)).astype({"psnr": float})


def write_set_aside(folder: Path, found: Sequence[SetAside], part: tuple[int, int] | None = None) -> None:
    """Replace the list of samples set aside by this part of an extraction; each part of one has its own file."""
    path = folder / ("set_aside.csv" if part is None else f"set_aside-{part[0]}-of-{part[1]}.csv")
    if not found:
        path.unlink(missing_ok=True)
        return
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((entry.sample, entry.reason, f"{entry.psnr:.2f}") for entry in found)


def _read(path: Path) -> list[SetAside]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [SetAside(row["sample"], row["reason"], float(row["psnr"])) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise HandscopeError(f"{path} is damaged: remove it, and the next extraction writes it anew.") from error
