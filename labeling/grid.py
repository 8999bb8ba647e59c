"""The token grid of a sample, found in the run's own files: no model is loaded to label its pictures."""

import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import HandscopeError
from ..run.folder import Run

FLUX_TOKEN = 16
"""Pixels a side of a token of FLUX.1: its VAE makes one latent of 8 x 8 pixels, the transformer one token of 2 x 2."""
ORGANISM = Path(__file__).parents[1] / "organism" / "pipe"


def grid(run: Run, sample: str) -> tuple[int, int]:
    """Rows and columns of the token grid of a sample.

    Raises
    ------
    HandscopeError
        There is no such sample, or its size is not a whole number of tokens.
    """
    row = run.metadata().get(sample)
    if row is None:
        raise HandscopeError(f"There is no sample {sample!r} in {run.metadata_path}: check its name.")
    return tokens(row["height"], row["width"], token_side(run))


def tokens(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns of a picture's grid, of tokens of `side` pixels; HandscopeError where they are not whole."""
    if height % side or width % side:
        raise HandscopeError(f"Expected pictures of whole tokens of {side} pixels, found {height} by {width} pixels.")
    return height // side, width // side


def token_side(run: Run) -> int:
    """Pixels a side of one token of a run.

    From a saved trajectory, whose latents have a row a token; else from the VAE of the model that ``run.yaml`` names,
    where that is the organism or a folder; else as in FLUX.1.
    """
    rows = run.metadata()
    for path in run.trajectories_dir.glob("*.safetensors"):
        count = _tokens(path) if path.stem in rows else None
        if count:
            return round(math.sqrt(rows[path.stem]["height"] * rows[path.stem]["width"] / count))
    name = str(run.settings.get("provenance", {}).get("name") or "")
    config = (ORGANISM if name == "organism" else Path(name)) / "vae" / "config.json"
    if name and config.is_file():
        halvings = len(json.loads(config.read_text())["block_out_channels"]) - 1
        return int(2 * 2**halvings)
    return FLUX_TOKEN


def _tokens(path: Path) -> int | None:
    """Tokens of a trajectory; None where the file is damaged, which is for `extract` to say."""
    try:
        with safe_open(path, framework="numpy") as file:
            return int(file.get_slice("latents").get_shape()[1])
    except (OSError, SafetensorError):
        return None
