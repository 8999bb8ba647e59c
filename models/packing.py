"""Latents in their places and packed: the two forms in which a picture goes through handscope."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def packed(latents: Tensor, patch: int) -> Tensor:
    """Latents in their places as tokens, row after row.

    Parameters
    ----------
    latents : Tensor of shape (batch, channels, height, width)
    patch : int
        Latents a side of one token.

    Returns
    -------
    Tensor of shape (batch, tokens, channels * patch**2)
        A token's numbers are ordered by channel, then row, then column, as FLUX and Qwen-Image order them.
    """
    batch, channels, height, width = latents.shape
    cut = latents.reshape(batch, channels, height // patch, patch, width // patch, patch).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(batch, (height // patch) * (width // patch), channels * patch**2)


def in_places(tokens: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """What `packed` made of latents, undone: (batch, channels, rows * patch, columns * patch)."""
    batch, _, channels = tokens.shape
    cut = tokens.reshape(batch, rows, columns, channels // patch**2, patch, patch).permute(0, 3, 1, 4, 2, 5)
    # Contiguous also where a token is one latent: a convolution of another layout may round otherwise.
    return cut.reshape(batch, channels // patch**2, rows * patch, columns * patch).contiguous()
