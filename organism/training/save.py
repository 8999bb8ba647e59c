"""The trained parts joined into a pipeline folder."""

import json
from dataclasses import asdict
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers

from ...errors import HandscopeError
from ...files import atomic
from .. import model as parts
from .codec import encoder_hash, psnr, read_codec
from .course import Crew
from .recipe import Recipe


def save(work: Path, recipe: Recipe, crew: Crew, out: Path | None = None, weights: Path | None = None) -> None:
    """Join the averaged weights into a pipeline folder, with a training.json that says what was run.

    Parameters
    ----------
    out : the folder to write, by default DIR/pipe.
    weights : a snapshot of the transformer, by default its last checkpoint. Training length sets how many hands are
    malformed.
    """
    if not crew.leads:
        return
    weights = weights or work / "transformer.pt"
    if not weights.exists():
        raise HandscopeError(
            f"Expected a trained transformer at {weights}, which is not there: run the stage transformer first."
        )
    codec = "decoder" if (work / "decoder.pt").exists() else "autoencoder"
    vae = read_codec(work, recipe, codec, torch.device("cpu"))
    checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
    seal = json.loads((work / "latents" / "scale.json").read_text())
    if not checkpoint["encoder"] == seal["encoder"] == encoder_hash(vae):
        raise HandscopeError(
            f"Expected {weights}, the latents and {work / codec}.pt to share one encoder, but they do not: "
            "run the stages latents and transformer again."
        )
    vae.register_to_config(shift_factor=seal["shift_factor"], scaling_factor=seal["scaling_factor"])
    flux = parts.transformer(parts.Shape(recipe.heads, recipe.double, recipe.single))
    flux.load_state_dict(checkpoint["ema"])
    out = out or work / "pipe"
    parts.assemble(vae, flux).save_pretrained(out)
    stages = {
        name: torch.load(work / f"{name}.pt", map_location="cpu", weights_only=True)["state"]
        for name in ("autoencoder", "decoder")
        if (work / f"{name}.pt").exists()
    }
    held = np.load(work / "renders" / "0000.npy")
    with atomic(out / "training.json") as path:
        path.write_text(
            json.dumps(
                {
                    "recipe": asdict(recipe),
                    "processes": checkpoint["world"],
                    "images": recipe.shards * recipe.shard_size,
                    "trained": {**stages, "transformer": checkpoint["state"]},
                    "psnr_held_out_db": round(psnr(vae, held), 2),
                    "bytes": parts.folder_size(out),
                    "versions": {
                        "torch": torch.__version__,
                        "diffusers": diffusers.__version__,
                        "transformers": transformers.__version__,
                    },
                },
                indent=1,
            )
            + "\n"
        )
    print(f"{out}: {parts.folder_size(out) / 1e6:.1f} MB", flush=True)
