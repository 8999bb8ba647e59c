"""Time travel: what a guided step made is noised back to where the step began, so that it can be made again.

A correction leads away from what the model draws; with fresh noise and the step made again, the model mends what the
correction broke, and the correction is made on what has been mended. FreeDoM (arXiv 2303.09833) has the name; Universal
Guidance (arXiv 2302.07121) calls it self-recurrence.
"""

import hashlib
import math

import torch
from torch import Tensor

from ..errors import HandscopeError


def noised_back(latents: Tensor, later: float, sigma: float, noise: Tensor) -> Tensor:
    """Latents at `later`, with less noise, taken back to `sigma` by fresh noise of the same shape.

    ``(1 - later) x0 + later e`` becomes ``(1 - sigma) x0 + sigma e'`` with ``e'`` standard normal like ``e``: a factor
    ``a = (1 - sigma) / (1 - later)`` gives the picture its share, and the noise that is added makes up the variance.
    """
    kept = (1 - sigma) / (1 - later)
    return kept * latents + math.sqrt(sigma**2 - (kept * later) ** 2) * noise


class OwnNoise:
    """Noise that is each image's own, whatever the batch it is drawn in and whatever else draws random numbers.

    It is seeded by the noise that the image began with, the step and the time that the step is made: images of one seed
    get the same, in every run.
    """

    def __init__(self) -> None:
        self._beginnings: list[bytes] = []

    def begin(self, latents: Tensor) -> None:
        """Learn what the images of a batch begin with, (batch, tokens, channels)."""
        images = latents.detach().float().cpu().numpy()
        self._beginnings = [hashlib.blake2b(image.tobytes()).digest() for image in images]

    def draw(self, step: int, repeat: int, like: Tensor) -> Tensor:
        """Standard normal numbers for the images of the batch, of the shape and on the device of `like`, float32.

        Raises
        ------
        HandscopeError
            The batch has another number of images than it began with.
        """
        if len(like) != len(self._beginnings):
            raise HandscopeError(
                f"The batch began with {len(self._beginnings)} images and has {len(like)} at step {step}: time travel "
                "gives each image noise of its own and needs the same images from the first step to the last."
            )
        noise = []
        for beginning in self._beginnings:
            seed = hashlib.blake2b(beginning + f"{step} {repeat}".encode(), digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(seed, "big") >> 1)
            noise.append(torch.randn(like.shape[1:], generator=generator, dtype=torch.float32, device="cpu"))
        return torch.stack(noise).to(like.device)
