"""The token grid of a sample, found in the run's own files: no model is loaded to label its pictures."""

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import HandscopeError
from ..models.embedded import folder_of
from ..models.registry import families, family_in
from ..run.folder import Run


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

    From a saved trajectory, whose latents have a row a token; else from the configs of the model that ``run.yaml``
    names, where that is the organism or a folder; else as in the published models of its family, by default FLUX.1.
    """
    rows = run.metadata()
    for path in run.trajectories_dir.glob("*.safetensors"):
        count = _tokens(path) if path.stem in rows else None
        if count:
            return round(math.sqrt(rows[path.stem]["height"] * rows[path.stem]["width"] / count))
    made = run.settings.get("provenance", {})
    name = str(made.get("name") or "")
    folder = folder_of(name)
    if name and (folder / "model_index.json").is_file():
        return family_in(folder).token_side(folder)
    known = {family.name: family for family in families()}
    return known[str(made.get("family") or "FLUX.1")].token


def _tokens(path: Path) -> int | None:
    """Tokens of a trajectory; None where the file is damaged, which is for `extract` to say."""
    try:
        with safe_open(path, framework="numpy") as file:
            return int(file.get_slice("latents").get_shape()[1])
    except (OSError, SafetensorError):
        return None
