"""bfloat16 as its bits in uint16: to float32, and what of it is not finite."""

import numpy as np
from numpy.typing import NDArray

SIGN, INFINITY = 0x8000, 0x7F80


def to_float32(bits: NDArray[np.uint16], out: NDArray[np.float32]) -> None:
    """Write the numbers that `bits` stands for into `out`, of the same shape; exact, NaN payloads included.

    torch converts a buffer that is already in memory faster than numpy does.
    """
    import torch

    torch.from_numpy(out).copy_(torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16))


def count_not_finite(bits: NDArray[np.uint16]) -> tuple[int, int]:
    """How many NaN and how many infinities are among the bits.

    >>> count_not_finite(np.array([0x7FC0, 0xFF80, 0x3F80], np.uint16))
    (1, 1)
    """
    magnitude = bits & np.uint16(SIGN - 1)
    if magnitude.size == 0 or magnitude.max() < INFINITY:
        return 0, 0
    return int(np.count_nonzero(magnitude > INFINITY)), int(np.count_nonzero(magnitude == INFINITY))
