"""Contact sheets to look at, and the looks made into labels: how the shipped ones came about, how to audit a model.

    python -m handscope.organism.study.sheets draw RUN FOLDER --seed 1              sheets and key.csv for a first look
    python -m handscope.organism.study.sheets draw RUN FOLDER --seed 2 --mirrored   for a second, mirrored
    python -m handscope.organism.study.sheets draw RUN FOLDER --seed 3 --left-open LOOK1 LOOK2
                                                                a third, larger, at what those left open
    python -m handscope.organism.study.sheets merge RUN LOOK1 LOOK2 LOOK3 --out FOLDER
                                                                looks.csv of each folder -> labels and their mosaic

The sheets show a number and how many digits should be raised, and nothing else: no seed, colour order or arm that could
hint. A look is written down as ``looks.csv`` beside the key: number, level (good, good?, bad?, bad) and kinds (space-
separated).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from ...errors import HandscopeError
from ...files import atomic
from ...labeling.subject import load_subject
from ...run.folder import Run
from ..captions import GESTURES, Caption
from ..judge import kappa_interval, kappa_or_zero

TILE, WIDTH, HEIGHT, STRIP = 144, 1200, 1150, 16
LEVELS = ("good", "good?", "bad?", "bad")


def draw(
    run: Run, folder: Path, seed: int, mirrored: bool = False, samples: Sequence[str] | None = None, tile: int = TILE
) -> int:
    """Write shuffled sheets of a run (all of it, or `samples`) and their key into `folder`; returns how many sheets."""
    table = run.samples()
    if samples is not None:
        table = table[table["sample"].isin(samples)]
    table = table.iloc[np.random.default_rng(seed).permutation(len(table))].reset_index(drop=True)
    folder.mkdir(parents=True, exist_ok=True)
    columns = WIDTH // (tile + 4)
    per_sheet = columns * (HEIGHT // (tile + STRIP + 4))
    for first in range(0, len(table), per_sheet):
        part = table.iloc[first : first + per_sheet]
        sheet = Image.new("RGB", (columns * (tile + 4), -(-len(part) // columns) * (tile + STRIP + 4)), "white")
        pen = ImageDraw.Draw(sheet)
        for place, (number, row) in enumerate(part.iterrows()):
            x, y = place % columns * (tile + 4), place // columns * (tile + STRIP + 4)
            image = run.image(row["sample"])
            image = image[:, ::-1] if mirrored else image
            sheet.paste(Image.fromarray(image).resize((tile, tile), Image.Resampling.BICUBIC), (x, y + STRIP))
            pen.text(
                (x + 2, y + 2), f"{number}: {sum(GESTURES[Caption.parse(row['prompt']).gesture])} up", fill="black"
            )
        with atomic(folder / f"sheet_{first // per_sheet:02d}.png") as path:
            sheet.save(path)
    with atomic(folder / "key.csv") as path:
        table[["sample"]].to_csv(path, index_label="number")
    return -(-len(table) // per_sheet)


def read_look(folder: Path) -> pd.DataFrame:
    """The looks written down in a folder: DataFrame indexed by sample, with level and kinds."""
    key, looks = pd.read_csv(folder / "key.csv"), pd.read_csv(folder / "looks.csv", keep_default_na=False)
    both = key.merge(looks, on="number", how="outer", indicator=True)
    if (both["_merge"] != "both").any():
        raise HandscopeError(
            f"Expected one line in {folder / 'looks.csv'} for each of the {len(key)} numbers of key.csv; "
            f"these do not match: {both[both['_merge'] != 'both'].number.tolist()[:10]}."
        )
    kinds_known = list(load_subject("hand").kinds)
    wrong = both[~both.level.isin(LEVELS) | ~both.kinds.map(lambda kinds: set(kinds.split()) <= set(kinds_known))]
    if len(wrong):
        raise HandscopeError(
            f"Expected levels {', '.join(LEVELS)} and kinds among {', '.join(kinds_known)} in {folder / 'looks.csv'}; "
            f"number {wrong.number.iloc[0]} has {wrong.level.iloc[0]!r} and {wrong.kinds.iloc[0]!r}."
        )
    return both.set_index("sample")[["level", "kinds"]]


def left_open(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    """Samples on which two looks disagree, or where either was in doubt."""
    settled = (first.level == second.level.loc[first.index]) & first.level.isin(["good", "bad"])
    return settled.index[~settled].tolist()


def verdict(looks: Sequence[str]) -> str:
    """The label that two or three looks amount to.

    Two looks that are sure and agree settle it. Otherwise a third look decides by majority: the verdict is sure where
    two looks on the winning side are, leaning where one is, and ``unsure`` where none is, or where the first two
    disagreed and the third was in doubt.
    """
    sides = [look.rstrip("?") for look in looks]
    if len(looks) == 2:
        return sides[0] if looks[0] == looks[1] == sides[0] else "unsure"
    winner = max(("good", "bad"), key=sides.count)
    sure = sum(look == winner for look in looks)
    if sure == 0 or (sides[0] != sides[1] and looks[2].endswith("?")):
        return "unsure"
    return winner if sure >= 2 else winner + "?"


def merge(run: Run, folders: Sequence[Path], out: Path) -> pd.DataFrame:
    """Make the labels of three looks, the third at what two left open; write ``hand_labels.csv`` and its mosaic.

    Samples that the first look left out have no label.
    """
    first, second, third = (read_look(folder) for folder in folders)
    table = run.samples().set_index("sample")[["prompt", "seed", "image_sha256"]]
    table = table[table.index.isin(first.index)]
    rows = []
    prompts, places = sorted(set(table.prompt)), table.groupby("prompt").seed.rank().astype(int) - 1
    tile = run.image(table.index[0]).shape[0]
    mosaic = np.zeros((len(prompts) * tile, (places.max() + 1) * tile, 3), np.uint8)
    for sample, entry in table.iterrows():
        looks = [look.loc[sample] for look in (first, second, third) if sample in look.index]
        label = verdict([look.level for look in looks])
        kinds = (
            sorted({kind for look in looks if look.level.startswith("bad") for kind in look.kinds.split()})
            if label.startswith("bad")
            else []
        )
        row, column = prompts.index(entry.prompt), int(places[sample])
        mosaic[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = run.image(sample)
        rows.append(
            {
                "sample": sample,
                "prompt": entry.prompt,
                "seed": entry.seed,
                "image_sha256": entry.image_sha256,
                "verdict": label,
                "kinds": " ".join(kinds),
                **{f"look_{n}": look.level for n, look in enumerate(looks, 1)},
                "row": row,
                "column": column,
            }
        )
    labels = pd.DataFrame(rows)
    with atomic(out / "hand_labels.webp") as path:
        Image.fromarray(mosaic).save(path, lossless=True, method=6)
    with atomic(out / "hand_labels.csv") as path:
        labels.to_csv(path, index=False)
    return labels


def agreement(labels: pd.DataFrame) -> str:
    """What two looks at one picture agree on, in words, with intervals over prompts."""
    a, b = (labels[f"look_{n}"] for n in (1, 2))
    sides = [look.str.startswith("bad").to_numpy() for look in (a, b)]
    sure = (~a.str.endswith("?") & ~b.str.endswith("?")).to_numpy()
    groups = labels.prompt.to_numpy()
    counts = labels.verdict.value_counts()
    return "\n".join(
        [
            f"{len(labels)} pictures of {labels.prompt.nunique()} prompts: "
            + ", ".join(f"{counts.get(v, 0)} {v}" for v in (*LEVELS, "unsure")),
            f"first and second look, good side against bad side: kappa {kappa_or_zero(*sides):.2f} "
            f"{kappa_interval(sides[0], sides[1], groups)} (n = {len(labels)})",
            f"where both were sure: kappa {kappa_or_zero(sides[0][sure], sides[1][sure]):.2f} "
            f"{kappa_interval(sides[0][sure], sides[1][sure], groups[sure])} (n = {sure.sum()})",
        ]
    )


def main() -> None:
    """Command line: ``draw`` and ``merge``."""
    parser = argparse.ArgumentParser(
        prog="python -m handscope.organism.study.sheets",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    drawing = verbs.add_parser("draw", help="write contact sheets and their key")
    drawing.add_argument("run", type=Path)
    drawing.add_argument("folder", type=Path)
    drawing.add_argument("--seed", type=int, default=1, help="order of the pictures")
    drawing.add_argument("--mirrored", action="store_true", help="flip every picture")
    drawing.add_argument(
        "--left-open", type=Path, nargs=2, metavar="LOOK", help="only what two looks left open, larger"
    )
    merging = verbs.add_parser("merge", help="make labels of three looks")
    merging.add_argument("run", type=Path)
    merging.add_argument("folders", type=Path, nargs=3, metavar="LOOK")
    merging.add_argument("--out", type=Path, required=True, help="folder for hand_labels.csv and hand_labels.webp")
    given = parser.parse_args()
    if given.verb == "draw":
        samples = left_open(*map(read_look, given.left_open)) if given.left_open else None
        tile = TILE if samples is None else 2 * TILE
        print(draw(Run(given.run), given.folder, given.seed, given.mirrored, samples, tile), "sheets in", given.folder)
    else:
        print(agreement(merge(Run(given.run), given.folders, given.out)))


if __name__ == "__main__":
    main()
