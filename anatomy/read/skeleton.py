"""The 21 landmarks of a hand, in MediaPipe's order: which belong to which digit, joint and bone."""

import torch

DIGITS = ("thumb", "index", "middle", "ring", "little")
JOINTS = tuple(
    f"{digit} {joint}"
    for digit in DIGITS
    for joint in (("CMC", "MCP", "IP") if digit == "thumb" else ("MCP", "PIP", "DIP"))
)
PAIRS = tuple(zip(DIGITS[:-1], DIGITS[1:]))  # neighbouring digits

WRIST = 0
CHAINS = torch.arange(1, 21).reshape(5, 4)  # the landmarks of each digit, base to tip
BASES = (5, 9, 13, 17)  # MCP joints of the four fingers

# The bones that are drawn as capsules: three of each digit, and the palm's rays. A row is start, end.
DIGIT_BONES = torch.stack([CHAINS[:, :-1], CHAINS[:, 1:]], -1).reshape(15, 2)
PALM_BONES = torch.tensor([(0, 5), (0, 9), (0, 13), (0, 17), (0, 1), (5, 9), (9, 13), (13, 17), (1, 5)])
