"""What the landmark network sees in a whole picture, for distances between sets of pictures."""

import numpy as np
import torch
from numpy.typing import NDArray

from .networks import LANDMARK_INPUT, load_landmarks


def landmark_features(pictures: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.float32]:
    """The landmark network's last features of whole pictures (n, height, width, 3): float32 of shape (n, 1152).

    A network that has seen real hands, in place of Inception, whose weights cannot be shipped. Guidance through the
    same network may lower the distance by fooling it.
    """
    network, embeddings = load_landmarks("full"), []
    with torch.no_grad():
        for first in range(0, len(pictures), batch_size):
            some = torch.from_numpy(pictures[first : first + batch_size]).permute(0, 3, 1, 2).float() / 255
            size = (LANDMARK_INPUT, LANDMARK_INPUT)
            some = torch.nn.functional.interpolate(some, size, mode="bilinear", antialias=True)
            embeddings.append(network(some).embedding)
    return torch.cat(embeddings).numpy()
