"""The recipe of the organism's depth ControlNet, from the renderer to the folder that ships.

    OMP_NUM_THREADS=1 python -m handscope.organism.study.depth_network WORK

draws pictures with their depth, trains on them, and writes WORK/network. It may be killed and run again with the same
command: shards that are drawn are kept, and the training goes on where its last checkpoint stands. The rate is constant
and what is saved is an average, so that a finished training can be lengthened by --steps.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from PIL import Image

from ...mitigations.depth_control import DepthControl
from ...mitigations.pictures import Captioned
from ...mitigations.settings import Training
from ...mitigations.train import train
from ...models.embedded import NAME
from ...models.model import load
from ...progress import Progress, bars
from ..depth import render_with_depth

SHARDS, EACH = (1, 2, 3), 512  # of the renders that the organism was trained on
DOUBLE, SINGLE = 2, 0
STEPS = 1400
DROPOUT = 0.2  # of captions, so that depth is looked at where they say the same


def pictures_with_depth(work: Path, progress: Progress) -> tuple[list[Captioned], list[Path]]:
    """Renders with their captions, and an image of the depth of each."""
    pictures, depths = [], []
    for done, shard in enumerate(SHARDS):
        progress("render", done, len(SHARDS))
        folder = work / f"shard-{shard}"
        if not folder.exists():
            _draw(work / "unfinished", shard)
            (work / "unfinished").rename(folder)
        captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
        pictures += [Captioned(folder / f"{i:03d}.png", caption) for i, caption in enumerate(captions)]
        depths += [folder / f"{i:03d}-depth.png" for i in range(len(captions))]
    progress("render", len(SHARDS), len(SHARDS))
    return pictures, depths


def _draw(folder: Path, shard: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts, depths = render_with_depth(EACH, shard)
    images = torch.cat([part.images for part in parts]).permute(0, 2, 3, 1).numpy()
    greys = (depths * 255).round().to(torch.uint8).numpy()
    for i, (image, grey) in enumerate(zip(images, greys, strict=True)):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
        Image.fromarray(grey).convert("RGB").save(folder / f"{i:03d}-depth.png")
    captions = [caption for part in parts for caption in part.captions]
    (folder / "captions.json").write_text(json.dumps(captions), encoding="utf-8")


def depth_network(work: Path, steps: int, progress: Progress) -> Path:
    """Draw, train and save; the folder of the network."""
    pictures, depths = pictures_with_depth(work, progress)
    model = load(NAME)
    learner = DepthControl(model, depths, model.height, model.width, DOUBLE, SINGLE, progress)
    training = Training(
        steps=steps,
        batch=16,
        rate=1e-3,
        schedule="constant_with_warmup",
        warm_up=50,
        dropout=DROPOUT,
        average=0.99,
        save_every=100,
    )
    train(learner, work / "training", pictures, training, progress=progress)
    out = work / "network"
    learner.network.half().save_pretrained(out)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    del config["out_channels"]  # the transformer's, which a ControlNet warns of when it is loaded
    config["_name_or_path"] = NAME  # not the path on this machine
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return out


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m handscope.organism.study.depth_network",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("work", type=Path, metavar="WORK", help="where renders, checkpoints and the network lie")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training (default: %(default)s)")
    given = parser.parse_args()
    with bars() as progress:
        depth_network(given.work, given.steps, progress)


if __name__ == "__main__":
    main()
