"""The labelled hands that `anatomy_evaluation.py` fits and measures: renders, the organism's pictures, photographs."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from handscope.anatomy.judge.calibrate import chosen_hands
from handscope.anatomy.measure.examine import GEOMETRY, Examined, examine_hands
from handscope.anatomy.read.detect import detect
from handscope.anatomy.read.hands import TENSORS, Hands
from handscope.anatomy.read.networks import Size
from handscope.anatomy.read.pictures import Picture, read_picture
from handscope.organism.captions import GESTURES, Caption
from handscope.organism.render import render_dataset
from handscope.organism.silhouette import silhouette
from handscope.organism.study.fit_judge import majority
from handscope.organism.study.shipped import ShippedLabels

FITTED = (970_001, 971_001)  # seeds of the renders that are fitted to,
MEASURED = (980_001,)  # and of those that are measured on; each makes so many sound and so many faulty ones
RENDERS, SIDE = 240, 192


def raised_of(caption: str) -> int:
    """How many digits a prompt of the organism asks for."""
    return sum(GESTURES[Caption.parse(caption).gesture])


def renders(seeds: Sequence[int], cache: Path) -> tuple[list[torch.Tensor], pd.DataFrame]:
    """Sound and faulty renders with their captions and faults."""
    images: list[torch.Tensor] = []
    tables = []
    for seed in seeds:
        path = cache / f"renders_{seed}_{RENDERS}_{SIDE}.pt"
        if not path.exists():
            parts = [render_dataset(RENDERS, seed + faulty, SIDE, corrupt=bool(faulty)) for faulty in (0, 1)]
            made = {"images": torch.cat([part.images for part in parts])}
            made |= {name: [one for part in parts for one in getattr(part, name)] for name in ("fault", "captions")}
            torch.save(made, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        made = torch.load(path, weights_only=True)
        images += [image.float() / 255 for image in made["images"]]
        tables.append(pd.DataFrame({"fault": made["fault"], "group": made["captions"]}))
    table = pd.concat(tables, ignore_index=True)
    table["raised"], table["bad"] = table["group"].map(raised_of), table["fault"] != ""
    return images, table


def organism() -> tuple[list[torch.Tensor], pd.DataFrame]:
    """The shipped hand-labelled pictures; an unsure one has the side that most looks took, as for the judge."""
    shipped = ShippedLabels.load()
    table = shipped.table.reset_index()
    table["bad"], table["group"] = majority(table).astype(bool), table["prompt"]
    table["raised"] = table["prompt"].map(raised_of)
    images = [torch.from_numpy(shipped.reference(sample).copy()) for sample in table["sample"]]
    return [image.permute(2, 0, 1).float() / 255 for image in images], table


def photographs(path: Path) -> tuple[list[torch.Tensor], pd.DataFrame]:
    """Photographs with at least one normal hand."""
    table = pd.read_csv(path)
    table = table[table["hands"].astype(str) != "0"].reset_index(drop=True)
    read = [read_picture(path.parent / name) for name in table["path"]]
    keep = [isinstance(one, Picture) for one in read]
    table = table[keep].reset_index(drop=True)
    table["bad"], table["group"], table["raised"] = False, table["source"], None
    return [one.tensor() for one in read if isinstance(one, Picture)], table


def found_hands(name: str, images: list[torch.Tensor], cache: Path, boxed: bool, networks: Size = "full") -> Hands:
    """Hands of the pictures as `detect` finds them: the plain pass, and, where that finds none, the search, or a box
    about the silhouette, which is plain in pictures of one hand before one colour.

    Kept 16 pictures at a time.
    """
    plain = _kept(f"{name}_{networks}_plain", images, list(range(len(images))), cache, networks, "plain")
    left = sorted(set(range(len(images))) - set(plain.image.tolist()))
    search = "box" if boxed else "thorough"
    searched = _kept(f"{name}_{networks}_{search}", images, left, cache, networks, search)
    hands = Hands.cat([plain, searched])
    return hands.select(hands.image.argsort(stable=True))


def _kept(name: str, images: list[torch.Tensor], which: list[int], cache: Path, networks: Size, search: str) -> Hands:
    parts = [_none(networks)]
    for start in range(0, len(which), 16):
        chosen = which[start : start + 16]
        batch = [images[i] for i in chosen]
        pixels = hashlib.sha256(b"".join((255 * image).byte().numpy().tobytes() for image in batch)).hexdigest()[:12]
        path = cache / f"{name}_{pixels}.pt"
        if not path.exists():
            if search == "box":
                hands = detect(batch, networks=networks, search="plain", boxes=[box_about(image) for image in batch])
            else:
                hands = detect(batch, networks=networks, search="plain" if search == "plain" else "thorough")
            made: dict[str, Any] = {one: getattr(hands, one) for one in TENSORS} | {"found_by": hands.found_by}
            torch.save(made, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        saved = torch.load(path, weights_only=True)
        saved["image"] = torch.tensor([chosen[i] for i in saved["image"].tolist()], dtype=torch.long)
        parts.append(Hands(**saved))
        print(f"\r{name}: {min(start + 16, len(which))} of {len(which)}", end="", flush=True)
    print()
    return Hands.cat(parts)


def box_about(image: torch.Tensor) -> torch.Tensor:
    """The box (1, 4) about the hand of a picture before one colour."""
    rows, columns = np.nonzero(silhouette((image.permute(1, 2, 0) * 255).round().byte().numpy()))
    return torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], dtype=torch.float32)


def _none(networks: Size) -> Hands:
    tensors = {one: torch.zeros((0, *shape)) for one, shape in GEOMETRY.items()}
    embedding = torch.zeros(0, 1152 if networks == "full" else 672)
    return Hands(**tensors, image=torch.zeros(0, dtype=torch.long), embedding=embedding, found_by=[])


@dataclass(frozen=True, eq=False)
class Source:
    """Labelled hands of one kind: their evidence, label, group and what else is known, a row a hand.

    Attributes
    ----------
    read : the pictures. hand : (m,) places in ``read.hands``. table : m rows with bad, group and more. pictures : all
        of the labelled pictures, found or not.
    """

    read: Examined
    hand: np.ndarray
    table: pd.DataFrame
    pictures: pd.DataFrame

    def x(self, names: list[str]) -> np.ndarray:
        return self.read.matrix(names).numpy()[self.hand]

    @property
    def bad(self) -> np.ndarray:
        return self.table["bad"].to_numpy(bool)

    @property
    def group(self) -> np.ndarray:
        return self.table["group"].to_numpy(str)


def source(name: str, made: tuple[list[torch.Tensor], pd.DataFrame], cache: Path, boxed: bool = False) -> Source:
    """Hands and evidence of a source, with the number of raised digits that each prompt asks for, where it does."""
    images, table = made
    hands = found_hands(name, images, cache, boxed)
    parts = []
    for start in range(0, len(images), 32):
        chosen = hands.select((hands.image >= start) & (hands.image < start + 32))
        chosen.image.sub_(start)
        read = examine_hands(images[start : start + 32], chosen, table["raised"][start : start + 32].tolist())
        records: list[list[dict]] = [[] for _ in range(read.pictures)]
        for i, record in zip(read.hands.image.tolist(), read.records(), strict=True):
            records[i].append(record)
        parts += records
    read = Examined.of_records(parts)
    if table["bad"].any():
        hand = chosen_hands(read)
        hand = hand[hand >= 0]
    else:  # every hand of a photograph is a normal one
        hand = np.arange(len(read.hands))
    rows = table.iloc[read.hands.image.numpy()[hand]].reset_index(drop=True)
    return Source(read, hand, rows, table)


def untold(one: Source) -> Source:
    """The same where nobody said how many digits should be raised."""
    evidence = {
        name: torch.full_like(values, float(name == "raised_missing")) if name.startswith("raised_") else values
        for name, values in one.read.evidence.items()
    }
    return replace(one, read=replace(one.read, evidence=evidence))


def lost(one: Source) -> np.ndarray:
    """Which labelled pictures no hand was found in: (n,) bool."""
    gone = np.zeros(len(one.pictures), bool)
    gone[one.read.undetected] = True
    return gone
