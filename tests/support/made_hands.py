"""Examined hands made by hand, for tests that need no network, and folders of rendered ones for those that do."""

from collections.abc import Sequence
from pathlib import Path

import torch
from handscope.anatomy.measure.examine import Examined
from handscope.anatomy.measure.limits import reference_ratios
from handscope.anatomy.read.hands import Hands
from PIL import Image


def examined(
    images: Sequence[int], pictures: int, evidence: dict[str, Sequence[float]] | None = None, count: int = 5
) -> Examined:
    """Straight hands, one for each entry of `images`, at the middle of a 200-pixel picture, with this evidence."""
    m = len(images)
    base = torch.tensor([[60.0 + 20 * digit, 100.0] for digit in range(5)])
    digits = torch.stack([base + torch.tensor([0.0, -15.0 * joint]) for joint in range(4)], 1).reshape(20, 2)
    points = torch.cat([torch.tensor([[100.0, 170.0]]), digits])
    points = torch.cat([points, torch.zeros(21, 1)], 1).expand(m, 21, 3).clone()
    hands = Hands(
        image=torch.tensor(images, dtype=torch.long),
        region=torch.tensor([100.0, 100.0, 160.0, 0.0]).expand(m, 4).clone(),
        points=points,
        world=points / 1000,
        presence=torch.full((m,), 0.9),
        right=torch.full((m,), 0.8),
        embedding=torch.zeros(m, 0),
        found_by=["palm"] * m,
    )
    return Examined(
        pictures,
        hands,
        torch.zeros(m, 15),
        reference_ratios()[0].expand(m, 5).clone(),
        torch.full((m,), count),
        torch.full((m,), 0.9),
        {name: torch.tensor(values, dtype=torch.float32) for name, values in (evidence or {}).items()},
    )


def rendered(folder: Path, n: int, seed: int = 5, corrupt: bool = False, size: int = 192) -> list[Path]:
    """Write `n` renders of open hands as PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, image in enumerate(open_hands(n, seed, size, corrupt)):
        paths.append(folder / f"{'bad' if corrupt else 'good'}_{i:02d}.png")
        Image.fromarray((image * 255).byte().permute(1, 2, 0).contiguous().numpy()).save(paths[-1])
    return paths


def open_hands(n: int, seed: int, size: int = 192, corrupt: bool = False) -> torch.Tensor:
    """Renders (n, 3, size, size) in [0, 1] of hands with five fingers raised: the plain search finds most of them."""
    from handscope.organism.captions import CAPTIONS
    from handscope.organism.hands import FAULTS, pose_hands, sample_pose
    from handscope.organism.render import render

    captions = [caption for caption in CAPTIONS if caption.gesture == "five"]
    generator = torch.Generator().manual_seed(seed)
    chosen = [captions[i] for i in torch.randint(len(captions), (n,), generator=generator).tolist()]
    faults = [FAULTS[i % len(FAULTS)] if corrupt else "" for i in range(n)]
    hands = pose_hands(*sample_pose(["five"] * n, generator), generator, faults)
    return render(hands, chosen, generator, size).images.float() / 255
