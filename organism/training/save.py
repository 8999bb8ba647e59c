"""The trained parts joined into a pipeline folder."""

import json
from dataclasses import asdict
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers

from ...errors import HandscopeError
from ...files import whole_folder
from .. import model as parts
from .codec import encoder_hash, psnr, read_codec
from .course import Crew
from .folders import Folders
from .recipe import Recipe


def save(work: Folders, recipe: Recipe, crew: Crew, out: Path | None = None, weights: Path | None = None) -> None:
    """Join the averaged weights into a pipeline folder, with a training.json that says what was run.

    Parameters
    ----------
    out : the folder to write, by default NAME/pipe in the work folder. The transformer is stored in float16, which
    changes no picture that an eye could tell; the autoencoder stays as it was trained.
    weights : a snapshot of the transformer, by default its last checkpoint. Training length sets how many hands are
    malformed.
    """
    if not crew.leads:
        return
    weights = weights or work.own / "transformer.pt"
    if not weights.exists():
        raise HandscopeError(
            f"Expected a trained transformer at {weights}, which is not there: run the stage transformer first."
        )
    codec = "decoder" if (work.own / "decoder.pt").exists() else "autoencoder"
    vae = read_codec(work, recipe, codec, torch.device("cpu"))
    checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
    seal = json.loads((work.own / "scale.json").read_text())
    if not checkpoint["encoder"] == seal["encoder"] == encoder_hash(vae):
        raise HandscopeError(
            f"Expected {weights}, the latents and the autoencoder to share one encoder, but they do not: "
            "run the stages latents and transformer again."
        )
    if recipe.draws.scale(vae) is None:
        recipe.draws.seal(vae, torch.tensor(seal["mean"]), torch.tensor(seal["spread"]))
    flux = recipe.draws.transformer(recipe.shape)
    flux.load_state_dict(checkpoint["ema"])
    out = out or work.own / "pipe"
    pipe = recipe.draws.assemble(vae, flux.half())
    trained = {
        name: torch.load(work.own / f"{name}.pt", map_location="cpu", weights_only=True)["state"]
        for name in ("autoencoder", "decoder")
        if work.trains_codec and (work.own / f"{name}.pt").exists()
    }
    held = np.load(work.renders / "0000.npy")
    with whole_folder(out) as folder:
        pipe.save_pretrained(folder)
        config = folder / "vae" / "config.json"  # without the path on this machine that it was read from
        said = json.loads(config.read_text(encoding="utf-8"))
        said.pop("_name_or_path", None)
        config.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        told = {
            "organism": work.organism.name,
            "recipe": asdict(recipe),
            "processes": checkpoint["world"],
            "images": recipe.shards * recipe.shard_size,
            "trained": {**trained, "transformer": checkpoint["state"]},
            "psnr_held_out_db": round(psnr(vae, held), 2),
            "bytes": parts.folder_size(folder),
            "versions": {
                "torch": torch.__version__,
                "diffusers": diffusers.__version__,
                "transformers": transformers.__version__,
            },
        }
        (folder / "training.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(f"{out}: {parts.folder_size(out) / 1e6:.1f} MB", flush=True)
