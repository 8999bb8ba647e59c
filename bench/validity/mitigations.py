"""Does a LoRA that was trained on plausible renders mend the organism, and is it told from its controls?

    python bench/validity/mitigations.py data WORK      draws what is trained on
    python bench/validity/mitigations.py train WORK     trains the LoRA and its controls; goes on where it was stopped
    python bench/validity/mitigations.py judge WORK     draws 416 pairs of new noises with each, judges and compares

Two mitigations are tried: a LoRA of plausible renders, and half of a LoRA of malformed ones taken away. Controls of the
first: the same LoRA on the same renders with captions permuted; on malformed renders; and all weights trained on the
plausible ones for as many steps, which is more of the training that made the organism. Of the second: half of the
others taken away. Numbers are in docs/mitigations.md.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import handscope as hs
import numpy as np
import torch
from handscope.evaluation.arms import Arm, DrawnBatch
from handscope.evaluation.experiment import experiment
from handscope.extract.generate import draw
from handscope.mitigations.learners import DreamBooth, LoRA
from handscope.mitigations.pictures import captioned
from handscope.mitigations.settings import Training
from handscope.mitigations.train import train
from handscope.models.model import Model
from handscope.organism.captions import CAPTIONS
from handscope.organism.judge import Judge
from handscope.organism.render import render_dataset
from handscope.organism.silhouette import silhouette
from handscope.progress import bars
from handscope.run.prompts import own_seed
from PIL import Image

SHARDS, EACH, SEED = (1, 2), 512, 9000  # the organism was trained on these shards among others
TRAINING = {"batch": 16, "schedule": "cosine", "warm_up": 20, "average": 0.98, "dropout": 0.1, "save_every": 50}
STEPS, RATE, WHOLE_RATE, RANK = 300, 2e-3, 1e-4, 16
PROMPTS, NOISES, FIRST = 32, 13, 3000
MADE = {"lora": "plausible", "lora malformed": "malformed", "lora permuted": "permuted", "more training": "plausible"}
"""What is trained, and on which pictures."""
TRIED = {
    "lora": ("lora", 1.0, ("lora malformed", "lora permuted", "more training")),
    "minus malformed": ("lora malformed", -0.5, ("minus plausible", "minus permuted")),
}
"""Mitigations: which training, how strongly it acts, and their controls. What was learnt of malformed renders, taken
away, is task arithmetic (Ilharco et al. 2023, arXiv 2212.04089); its strength was fixed before anything was drawn."""
CONTROLS = {
    "lora malformed": ("lora malformed", 1.0),
    "lora permuted": ("lora permuted", 1.0),
    "more training": ("more training", 1.0),
    "minus plausible": ("lora", -0.5),
    "minus permuted": ("lora permuted", -0.5),
}


def data(work: Path) -> None:
    """Folders of pictures with captions."""
    plausible = [render_dataset(EACH, seed) for seed in SHARDS]
    images = torch.cat([part.images for part in plausible])
    captions = [caption for part in plausible for caption in part.captions]
    _write(work / "data" / "plausible", images, captions)
    _write(work / "data" / "permuted", images, np.random.default_rng(0).permutation(captions).tolist())
    malformed = render_dataset(len(captions), SEED, corrupt=True)
    _write(work / "data" / "malformed", malformed.images, malformed.captions)


def _write(folder: Path, images: torch.Tensor, captions: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        name = f"{number:04d}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def train_all(work: Path) -> None:
    """The LoRA and its controls."""
    for name, pictures in MADE.items():
        model = hs.load("organism")
        whole = name == "more training"
        learner = DreamBooth(model) if whole else LoRA(model, RANK)
        training = Training(steps=STEPS, rate=WHOLE_RATE if whole else RATE, **TRAINING)
        with bars() as progress:
            train(learner, work / "made" / name, captioned(work / "data" / pictures), training, progress=progress)


def judge(work: Path) -> None:
    """Each arm on the same prompts and new noises."""
    model, knows = hs.load("organism"), Judge.load()
    prompts = [str(CAPTIONS[i]) for i in np.random.default_rng(5).permutation(len(CAPTIONS))[:PROMPTS]]
    pairs = [(prompt, own_seed(prompt, FIRST + i)) for i in range(NOISES) for prompt in prompts]
    arms = [Arm("baseline", "plain", drawing(model))]
    there = {name for name in MADE if (work / "made" / name / "losses.csv").exists()}
    for name, (made, scale, controls) in TRIED.items():
        if made in there:
            arms.append(Arm(name, "weights", drawing(with_learnt(work / "made" / made, scale)), controls=controls))
    for name, (made, scale) in CONTROLS.items():
        if made in there:
            arms.append(Arm(name, "control", drawing(with_learnt(work / "made" / made, scale))))
    with bars() as progress:
        table = experiment(
            model,
            work / "arms",
            arms,
            pairs,
            judge=lambda picture, prompt: float(knows.verdict(picture, prompt)[1] > 0.5),
            silhouette=silhouette,
            reference=render_dataset(1000, 77).images.permute(0, 2, 3, 1).numpy(),
            baseline={"steps": 20, "guidance": 3.5, "model": model.weight_hash},
            progress=progress,
        )
    print(table[["arm", "n", "before", "after", "difference", "low", "high", "mended", "broken", "p", "control_p",
                 "kernel_distance", "kd_lo", "kd_hi", "kd_ratio", "diversity"]].T.to_string())  # fmt: skip


def with_learnt(folder: Path, scale: float) -> Model:
    """The organism with what was learnt, as strongly as `scale` says where it is a LoRA."""
    model = hs.load("organism")
    if (folder / "transformer").exists():
        model.pipe.transformer = type(model.transformer).from_pretrained(folder / "transformer").eval()
    else:
        model.pipe.load_lora_weights(folder)
        model.pipe.fuse_lora(lora_scale=scale)  # as fast as the model itself
        model.pipe.unload_lora_weights()
    return model


def drawing(model: Model) -> Callable[[Sequence[str], Sequence[int]], DrawnBatch]:
    """How an arm draws a batch."""

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> DrawnBatch:
        made = draw(model, list(zip(prompts, seeds)), 20, 3.5, model.height, model.width, trajectories=False)
        return DrawnBatch(made.images, np.full(len(prompts), 20.0))

    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("data", "train", "judge"))
    parser.add_argument("work", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    {"data": data, "train": train_all, "judge": judge}[given.what](given.work)


if __name__ == "__main__":
    main()
