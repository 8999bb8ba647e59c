"""The CLIP score: how well a picture fits its prompt, as a CLIP of the user's sees it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import HandscopeError
from .features import Pictures, opening, pooled


def clip_score(pictures: Pictures, prompts: Sequence[str], *, path: str, batch_size: int = 32) -> NDArray[np.float64]:
    """100 max(cos, 0) of the embeddings of picture and prompt: shape (n,), in 0 to 100.

    Hessel et al. 2021 (arXiv 2104.08718) multiply by 2.5 where this multiplies by 100, as torchmetrics does. A prompt
    that is longer than the CLIP reads is cut.

    Parameters
    ----------
    path : folder of a CLIP with its processor, as transformers reads it; nothing is downloaded

    Raises
    ------
    HandscopeError
        The folder is missing, or what it holds is no CLIP.
    """
    model, processor = _clip(path)
    scores = []
    for first in range(0, len(pictures), batch_size):
        rows = slice(first, first + batch_size)
        shown = [picture.convert("RGB") for picture in pictures[rows]]
        given = processor(text=list(prompts[rows]), images=shown, return_tensors="pt", padding=True, truncation=True)
        with torch.no_grad():
            seen = pooled(model.get_image_features(pixel_values=given["pixel_values"]))
            read = pooled(model.get_text_features(given["input_ids"], given["attention_mask"]))
        scores.append(100 * torch.nn.functional.cosine_similarity(seen, read).clamp(min=0))
    return torch.cat(scores).double().numpy() if scores else np.zeros(0)


@lru_cache(maxsize=2)
def _clip(path: str) -> tuple[Any, Any]:
    with opening(path):
        from transformers import AutoModel, AutoProcessor

        model = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True).eval()
        processor = AutoProcessor.from_pretrained(path, local_files_only=True)
    if not hasattr(model, "get_text_features"):
        raise HandscopeError(f"{path} holds a {type(model).__name__}, which reads no text: expected a CLIP.")
    return model, processor
