"""How good the plausibility score is, and the calibration that ships: fitted, measured and written by this script.

    python bench/anatomy_evaluation.py CACHE [--photographs photos.csv] [--write]

Sources: renders with planted faults (512 sound and 512 faulty to fit to, as many with other seeds to measure on), the
organism's 640 hand-labelled pictures (folds by prompt), and photographs of normal hands (a CSV with path, hands,
source; folds by source), which are not shipped. The hands that were found are cached in the folder CACHE; it can be
killed and started again. ``--write`` writes ``anatomy/calibrated.json``. Tables are printed as markdown.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from handscope import anatomy
from handscope.anatomy.detect import detect
from handscope.anatomy.examine import Search
from handscope.anatomy.hands import TENSORS, Hands
from handscope.anatomy.networks import Size
from handscope.anatomy.pictures import Picture, read_picture
from handscope.labeling.fit_judge import majority
from handscope.labeling.shipped import ShippedLabels
from handscope.organism.captions import GESTURES, Caption
from handscope.organism.render import render_dataset

FITTED, MEASURED = 970_001, 980_001  # seeds of the renders that are fitted to, and of those that are measured on
RENDERS, SIDE = 512, 192
KINDS = {"six": "count", "four": "count", "fused": "fused", "backward": "joint", "proportion": "proportion"}
KINDS |= {"detached": "missing"}
HERE = Path(anatomy.__file__).parent


def raised_of(caption: str) -> int:
    """How many digits a prompt of the organism asks for."""
    return sum(GESTURES[Caption.parse(caption).gesture])


def renders(seed: int) -> tuple[list[torch.Tensor], pd.DataFrame]:
    """Sound and faulty renders with their captions and faults."""
    parts = [render_dataset(RENDERS, seed + faulty, SIDE, corrupt=bool(faulty)) for faulty in (0, 1)]
    table = pd.DataFrame(
        {
            "fault": [fault for part in parts for fault in part.fault],
            "group": [caption for part in parts for caption in part.captions],
            "raised": [raised_of(caption) for part in parts for caption in part.captions],
        }
    )
    table["bad"] = table["fault"] != ""
    return [image.float() / 255 for part in parts for image in part.images], table


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


def found(name: str, images: list[torch.Tensor], cache: Path, networks: Size = "full") -> Hands:
    """Hands of the pictures as `detect` finds them: the plain pass, and the search where that finds none.

    Kept 16 pictures at a time; the search is made again when its code has changed.
    """
    code = "".join((HERE / f"{module}.py").read_text() for module in ("detect", "palm", "regions"))
    version = hashlib.sha256(code.encode()).hexdigest()[:8]
    plain = _kept(f"{name}_{networks}_plain", images, list(range(len(images))), cache, networks, "plain")
    left = sorted(set(range(len(images))) - set(plain.image.tolist()))
    searched = _kept(f"{name}_{networks}_{version}", images, left, cache, networks, "thorough")
    hands = Hands.cat([plain, searched])
    return hands.select(hands.image.argsort(stable=True))


def _kept(
    name: str, images: list[torch.Tensor], which: list[int], cache: Path, networks: Size, search: Search
) -> Hands:
    parts = [_none(networks)]
    for start in range(0, len(which), 16):
        chosen = which[start : start + 16]
        batch = [images[i] for i in chosen]
        pixels = hashlib.sha256(b"".join((255 * image).byte().numpy().tobytes() for image in batch)).hexdigest()[:12]
        path = cache / f"{name}_{pixels}.pt"
        if not path.exists():
            hands = detect(batch, networks=networks, search=search)
            made: dict[str, Any] = {one: getattr(hands, one) for one in TENSORS} | {"found_by": hands.found_by}
            torch.save(made, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
        saved = torch.load(path, weights_only=True)
        saved["image"] = torch.tensor([chosen[i] for i in saved["image"].tolist()], dtype=torch.long)
        parts.append(Hands(**saved))
        print(f"\r{name}: {min(start + 16, len(which))} of {len(which)}", end="", flush=True)
    print()
    return Hands.cat(parts)


def _none(networks: Size) -> Hands:
    widths = {"image": (0,), "region": (0, 4), "points": (0, 21, 3), "world": (0, 21, 3), "presence": (0,), "right": (0,)}
    tensors = {one: torch.zeros(shape) for one, shape in widths.items()}
    tensors["image"] = tensors["image"].long()
    return Hands(**tensors, embedding=torch.zeros(0, 1152 if networks == "full" else 672), found_by=[])
