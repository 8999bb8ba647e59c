"""Features of pictures, for distances between sets of them: of networks that ship, and of folders of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ...anatomy.read.detect import detect
from ...anatomy.read.embedding import landmark_features
from ...anatomy.read.given import as_pictures
from ...anatomy.read.regions import crop
from ...errors import HandscopeError

Pictures = Sequence[Image.Image]
CROP = 224
"""Pixels of a crop's side."""


def landmark(pictures: Pictures, *, crops: bool = False) -> NDArray[np.float32]:
    """The landmark network's last features of whole pictures, or of the surest instance in each: (n, 1152).

    Parameters
    ----------
    crops : of the region of the surest instance; a picture in which none is found gets a row of NaN. It is the
        malformed ones that are not found, so distances between crops flatter a model: say how many there are.
    """
    if crops:
        found = _surest(list(pictures))
        rows = np.full((len(pictures), found.embedding.shape[1]), np.nan, np.float32)
        rows[found.image.numpy()] = found.embedding.numpy()
        return rows
    return np.concatenate([landmark_features(np.array(picture.convert("RGB"))[None]) for picture in pictures])


def transformers(pictures: Pictures, *, path: str, crops: bool = False, batch_size: int = 32) -> NDArray[np.float32]:
    """What a vision model makes of pictures: a CLIP's image embeddings, else the pooled output or first token (n, d).

    Parameters
    ----------
    path : folder of a model that ``transformers.AutoModel`` reads, with its preprocessor; nothing is downloaded
    crops : as for `landmark`

    Raises
    ------
    HandscopeError
        The folder is missing or holds no such model.
    """
    model, processor = vision_model(path)
    return in_batches(lambda some: _seen(model, processor, some), pictures, crops, batch_size)


def in_batches(
    see: Callable[[list[Image.Image]], torch.Tensor], pictures: Pictures, crops: bool, batch_size: int
) -> NDArray[np.float32]:
    """Features of pictures or of their crops, by a function from PIL pictures to a tensor (n, d)."""
    chosen = surest_crops(pictures) if crops else list(pictures)
    kept = [picture.convert("RGB") for picture in chosen if picture is not None]
    parts = [see(kept[first : first + batch_size]) for first in range(0, len(kept), batch_size)]
    if not parts:
        raise HandscopeError(f"No instance was found in any of {len(pictures)} pictures: there is nothing to compare.")
    features = torch.cat(parts).float().numpy()
    rows = np.full((len(pictures), features.shape[1]), np.nan, np.float32)
    rows[[picture is not None for picture in chosen]] = features
    return rows


def surest_crops(pictures: Pictures) -> list[Image.Image | None]:
    """The upright square about the surest instance of each picture; None where none is found."""
    shown = as_pictures(list(pictures))
    found = _surest(shown)
    cut = crop(shown, found.region, CROP, found.image).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    crops: list[Image.Image | None] = [None] * len(shown)
    for at, pixels in zip(found.image.tolist(), cut):
        crops[at] = Image.fromarray(pixels)
    return crops


def _surest(pictures: Any) -> Any:
    """What was found in pictures, the surest of each alone."""
    found = detect(pictures)
    return found.select(torch.from_numpy(np.unique(found.image.numpy(), return_index=True)[1]))


def _seen(model: Any, processor: Any, pictures: Pictures) -> torch.Tensor:
    with torch.no_grad():
        given = processor(images=list(pictures), return_tensors="pt")
        if hasattr(model, "get_image_features"):
            return pooled(model.get_image_features(**given))
        return pooled(model(**given))


def pooled(found: Any) -> torch.Tensor:
    """A row a picture or text, of what a model gave: a tensor, its pooled output, or its first token."""
    if isinstance(found, torch.Tensor):
        return found
    if getattr(found, "pooler_output", None) is not None:
        return found.pooler_output
    return found.last_hidden_state[:, 0]


@lru_cache(maxsize=2)
def vision_model(path: str) -> tuple[Any, Any]:
    """A model of a folder and the preprocessor of its pictures."""
    with opening(path):
        from transformers import AutoImageProcessor, AutoModel

        model = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True).eval()
        return model, AutoImageProcessor.from_pretrained(path, local_files_only=True)


class opening:
    """Says in a sentence that a folder of the user's is missing, or holds no model."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None:
        if not Path(self.path).is_dir():
            raise HandscopeError(f"There is no folder {self.path}: give the path of a model that is on this machine.")

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError | ValueError | KeyError | ImportError):
            said = " ".join(str(error).split())[:200]
            raise HandscopeError(f"{self.path} holds no model that transformers can read: {said}.") from error
