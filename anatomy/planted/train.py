"""Train the picture head again.

    python -m handscope.anatomy.planted.train PICTURES CSV WORK [--pairs 2700] [--write]

PICTURES is a folder of photographs of normal hands and of pictures without one; CSV has a row a picture: file (from
PICTURES), label (normal or none; others are left out) and repository, the source. Hands are found, faults are planted
in them, and the features of the pairs are kept in WORK, a hundred pairs a file, so that it can be killed and started
again. What a head is worth on sources that it did not learn from is printed; ``--write`` writes the weights that ship.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor

from ...analysis.statistics.auc import auc
from ...errors import HandscopeError
from ...files import atomic, sha256
from ..measure.picture import WEIGHTS, features, mirrored
from ..read.detect import detect
from ..read.pictures import Picture, read_picture
from ..read.regions import crop
from .canvas import SIDE, Canvas
from .pairs import pair_of
from .rank import Learnt, fit, folds_of_sources, held_out

SMALLEST = 56.0  # pixels of a hand's region, below which nothing is planted
MOST = 800  # pairs of one source
SHARD = 100
FOLDS = 4
L2 = 2.0


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, metavar="PICTURES")
    parser.add_argument("csv", type=Path, metavar="CSV")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--pairs", type=int, default=2700)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write {WEIGHTS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    pairs = learnt(options.pictures, options.csv, options.work, options.pairs, options.seed)
    report(pairs)
    if options.write:
        write(pairs, options.csv, WEIGHTS)


def learnt(pictures: Path, csv: Path, work: Path, number: int, seed: int) -> Learnt:
    """Features of about `number` pairs; those that WORK holds already are taken from there."""
    shards = math.ceil(number / SHARD)
    if not all((work / f"pairs_{k:03d}.pt").exists() for k in range(shards)):
        table = pd.read_csv(csv, keep_default_na=False)
        hands, backgrounds = _hands(pictures, table)
        if not hands:
            raise HandscopeError(f"No hand was found in the pictures of {csv} that are labelled normal.")
        order = _order(hands, number, seed)
        for k in range(shards):
            path = work / f"pairs_{k:03d}.pt"
            if not path.exists():
                random = torch.Generator().manual_seed(1000 * seed + k)
                made = [_made(*hands[i], backgrounds, random) for i in order[k * SHARD : (k + 1) * SHARD]]
                with atomic(path) as temporary:
                    torch.save([one for one in made if one is not None], temporary)
            print(f"\rpairs: {min((k + 1) * SHARD, number)} of {number}", end="", flush=True)
        print()
    rows = [row for k in range(shards) for row in torch.load(work / f"pairs_{k:03d}.pt", weights_only=True)]
    return Learnt(
        torch.stack([row["sound"].float() for row in rows], 1),
        torch.stack([row["faulty"].float() for row in rows], 1),
        [row["fault"] for row in rows],
        [row["source"] for row in rows],
        np.array([row["size"] for row in rows]),
    )


Found = tuple[Tensor, Tensor, Tensor, str]  # a picture, a region, landmarks, the source


def _hands(folder: Path, table: pd.DataFrame) -> tuple[list[Found], list[Tensor]]:
    """Hands of normal pictures that are large enough, and squares of the pictures without a hand."""
    hands: list[Found] = []
    backgrounds = []
    for row in table[table["label"].isin(("normal", "none"))].itertuples():
        picture = read_picture(folder / row.file)
        if not isinstance(picture, Picture):
            continue
        image = picture.tensor()
        found = detect([image], search="plain")
        if row.label == "none" or not len(found):
            side = float(min(image.shape[-2:]))
            for share in (0.4, 0.7, 1.0):
                square = image.new_tensor([[image.shape[2] / 2, image.shape[1] / 2, share * side, 0.0]])
                backgrounds.append(crop([image], square, SIDE)[0])
        else:
            large = found.region[:, 2] >= SMALLEST
            hands += [
                (image, region, points, row.repository)
                for region, points in zip(found.region[large], found.points[large])
            ]
    return hands, backgrounds


def _order(hands: list[Found], number: int, seed: int) -> list[int]:
    """Which hand each pair is made of: sources in turn, up to `MOST` of each, the hands of one in a random order."""
    random = torch.Generator().manual_seed(seed)
    of_source: dict[str, list[int]] = {}
    for i in torch.randperm(len(hands), generator=random).tolist():
        of_source.setdefault(hands[i][3], []).append(i)
    share = math.ceil(number / len(of_source))
    order = [own[k % len(own)] for own in of_source.values() for k in range(min(MOST, share))]
    order += [own[k % len(own)] for k in range(share, MOST) for own in of_source.values() if k < len(own)]
    chosen = order[:number]
    return [chosen[i] for i in torch.randperm(len(chosen), generator=random).tolist()]


def _made(
    picture: Tensor, region: Tensor, points: Tensor, source: str, backgrounds: list[Tensor], random: torch.Generator
) -> dict | None:
    pair = pair_of(Canvas.of(picture, region, points), backgrounds, random)
    if pair is None:
        return None
    made: dict = {"fault": pair.fault, "source": source, "size": pair.size}
    with torch.no_grad():
        for name, image, at in (
            ("sound", pair.sound, pair.points_sound),
            ("faulty", pair.faulty, pair.points_faulty),
        ):
            view = image[None].float() / 255, at[None]
            made[name] = torch.cat([features(*view), features(*mirrored(*view))]).half()
    return made


def report(pairs: Learnt) -> None:
    """What heads are worth on sources that they did not learn from, as a table in markdown."""
    folds = folds_of_sources(pairs.source, FOLDS)
    sound, faulty = held_out(pairs, folds, L2)
    limit = np.array([np.quantile(sound[folds == fold], 0.95) for fold in range(FOLDS)])[folds]
    print("| | pairs | the faulty one ranks higher | AUC | flagged at 5% false alarms |\n|---|---|---|---|---|")
    fault, source = np.array(pairs.fault), np.array(pairs.source)
    groups = [("all", np.ones(len(fault), bool))]
    groups += [(name, fault == name) for name in sorted(set(pairs.fault))]
    groups += [(name, source == name) for name in sorted(set(pairs.source))]
    for name, own in groups:
        both = np.concatenate([sound[own], faulty[own]])
        area = float(auc(both, np.repeat([0, 1], own.sum())))
        higher, flagged = (faulty > sound)[own].mean(), (faulty > limit)[own].mean()
        print(f"| {name} | {own.sum()} | {higher:.2f} | {area:.2f} | {flagged:.0%} |")


def write(pairs: Learnt, csv: Path, path: Path) -> None:
    """The head of all pairs, in float16, with where it is from."""
    head = fit(pairs, np.arange(len(pairs.source)), L2)
    tensors = {name: getattr(head, name).half().contiguous() for name in ("mean", "scale", "weight", "bias", "usual")}
    said = {"pairs": str(len(pairs.source)), "csv_sha256": sha256(csv)}
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"handscope": ", ".join(f"{key} {value}" for key, value in said.items())})


if __name__ == "__main__":
    main()
