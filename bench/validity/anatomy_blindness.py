"""What landmarks say of planted faults, and what the picture says: on renders, through the detector.

    python bench/validity/anatomy_blindness.py [--hands 240] [--size 160] [--seed 0]

A landmark network reports a sound hand whatever is drawn. This prints, for each fault that the renderer plants on open
hands, the share that is found, what the joint or the digit reads beside what was drawn, how often any-violation flags
it from landmarks alone, and the AUC of single pieces of evidence against sound hands (0.5 is chance).
"""

import argparse

import torch
from handscope.anatomy.judge.scores import any_violation, paper
from handscope.anatomy.measure.angles import joint_angles, side
from handscope.anatomy.measure.evidence import evidence
from handscope.anatomy.measure.limits import RATIOS
from handscope.anatomy.measure.ratios import digit_ratios
from handscope.anatomy.read.detect import detect
from handscope.anatomy.read.hands import Hands
from handscope.organism.captions import CAPTIONS
from handscope.organism.hands import FAULTS, pose_hands, sample_pose
from handscope.organism.render import Renders, render
from torch import Tensor

EVIDENCE = (
    "joints_sum", "ratio_sum", "presence_doubt", "points_mismatch", "sil_residual", "sil_joined", "sil_second",
    "arcs_more_most", "arcs_fewer_most", "web_most", "digit_apart_least", "digit_cover_least",
)  # fmt: skip
XRAY = torch.tensor([row.xray for row in RATIOS])
FALLS = ("digit_apart_least", "digit_cover_least")  # less of it speaks against the hand


def open_hands(n: int, fault: str, seed: int, size: int) -> Renders:
    generator = torch.Generator().manual_seed(seed)
    captions = [c for c in CAPTIONS if c.gesture == "five" and c.view == "back"]
    chosen = [captions[i] for i in torch.randint(len(captions), (n,), generator=generator).tolist()]
    hands = pose_hands(*sample_pose(["five"] * n, generator), generator, [fault] * n)
    return render(hands, chosen, generator, size)


def auc(bad: Tensor, good: Tensor) -> float:
    more = (bad[:, None] > good[None]).float() + 0.5 * (bad[:, None] == good[None]).float()
    return float(more.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hands", type=int, default=240)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found: dict[str, tuple[Renders, Hands, dict[str, Tensor]]] = {}
    for number, fault in enumerate(("", *FAULTS)):
        drawn = open_hands(args.hands if not fault else args.hands // 2, fault, args.seed + number, args.size)
        images = drawn.images.float() / 255
        hands = detect(images, max_hands=1)
        found[fault] = drawn, hands, evidence(images, hands)
    sound = found[""][2]
    print(f"| fault | drawn | found | presence | any-violation | paper | {' | '.join(EVIDENCE)} |")
    print("|" + "---|" * (6 + len(EVIDENCE)))
    for fault, (drawn, hands, seen) in found.items():
        right = side(hands.world, hands.right)
        angles, ratios = joint_angles(hands.world, right), digit_ratios(hands.world)
        count = torch.full((len(hands),), -1)
        flagged = [sum(not v.plausible for v in how(count, angles, ratios)) for how in (any_violation, paper)]
        values = [auc(*((-seen[k], -sound[k]) if k in FALLS else (seen[k], sound[k]))) for k in EVIDENCE]
        print(
            f"| {fault or 'none'} | {len(drawn.fault)} | {len(hands)} | {float(hands.presence.median()):.2f} | "
            f"{flagged[0] / len(hands):.2f} | {flagged[1] / len(hands):.2f} | "
            + " | ".join(f"{value:.2f}" for value in values)
            + " |"
        )
    _, hands, _ = found["backward"]
    angles = joint_angles(hands.world, side(hands.world, hands.right))
    planted = found["backward"][0].angles[hands.image]
    compare("degrees of a PIP joint bent back", planted, angles, planted < -40)
    drawn, hands, _ = found["proportion"]
    planted = drawn.ratios[hands.image]
    changed = (planted / XRAY).log().abs() > 0.35
    compare("length of a digit over the middle finger's", planted, digit_ratios(hands.world), changed)


def compare(what: str, planted: Tensor, read: Tensor, where: Tensor) -> None:
    drawn, seen = planted[where], read[where]
    low, middle, high = seen.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    together = float(torch.corrcoef(torch.stack([drawn, seen]))[0, 1])
    print(f"\n{what} (n = {len(drawn)}): drawn, median {float(drawn.median()):.2f}; read, median {middle:.2f},")
    print(f"quartiles {low:.2f} to {high:.2f}; correlation {together:.2f}")


if __name__ == "__main__":
    main()
