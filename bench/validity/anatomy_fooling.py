"""Does following the loss on pixels mend a hand, or fool the network? Judged by the network that was not followed.

    python bench/validity/anatomy_fooling.py [--hands 3] [--steps 20] [--out PNG]

Pixels of malformed renders are moved (Adam, 0.01 a step) down the loss as the full landmark network reads it: on one
fixed crop, and as `robust_loss` with four random views. Both are then read by the full network, which was followed,
and by the lite one, which was not. A loss that falls while the drawing keeps its fault (look at --out) is a network
that was fooled.
"""

import argparse

import torch
from handscope.anatomy.measure.soft import robust_loss, soft_loss
from handscope.anatomy.read.detect import detect, read
from handscope.anatomy.read.hands import Hands
from handscope.anatomy.read.networks import LandmarkNetwork, load_landmarks
from handscope.organism.render import render_dataset
from PIL import Image
from torch import Tensor


def cost(pixels: Tensor, hands: Hands, network: LandmarkNetwork) -> Tensor:
    seen = read(pixels, hands.region, network)
    return soft_loss(seen.world, seen.presence, right=seen.right.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hands", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", help="also draw the pictures: as drawn, after a fixed crop, after random views")
    args = parser.parse_args()
    full, lite = load_landmarks("full"), load_landmarks("lite")
    images = render_dataset(8 * args.hands, seed=5, size=128, corrupt=True).images.float() / 255
    hands = detect(images, max_hands=1, search="plain")
    with torch.no_grad():
        loss = cost(images[hands.image], hands, full)
    worst = loss.argsort(descending=True)[: args.hands]
    hands = hands.select(worst)
    start = images[hands.image]
    print(f"{len(hands)} malformed renders, {args.steps} steps; medians over hands\n")
    print("| pixels | loss, full (followed) | loss, lite (not followed) | mean change of a pixel |\n|---|---|---|---|")
    rows = []
    generator = torch.Generator().manual_seed(0)
    for name, views in (("as drawn", None), ("one fixed crop", 0), ("four random views", 4)):
        pixels = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([pixels], lr=0.01)
        for _ in range(0 if views is None else args.steps):
            optimiser.zero_grad()
            if views:
                value = robust_loss(pixels, hands.region, [full], generator, views=views)
            else:
                value = cost(pixels, hands, full)
            value.sum().backward()
            optimiser.step()
            pixels.data.clamp_(0, 1)
        rows.append(torch.cat(list(pixels.detach()), 2))
        with torch.no_grad():
            followed, other = (float(cost(pixels, hands, network).median()) for network in (full, lite))
        change = float((pixels.detach() - start).abs().mean())
        print(f"| {name} | {followed:.2f} | {other:.2f} | {change:.4f} |", flush=True)
    if args.out:
        sheet = (torch.cat(rows, 1).permute(1, 2, 0) * 255).round().to(torch.uint8)
        Image.fromarray(sheet.numpy()).save(args.out)


if __name__ == "__main__":
    main()
