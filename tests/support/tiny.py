"""What the small runs of the tests are made of: prompts, seeds, steps, and labels with a signal in them."""

import numpy as np

PROMPTS = [
    f"a {side} hand, {view} view, five fingers raised, {skin} skin, {background} background"
    for side in ("left", "right")
    for view in ("palm", "back")
    for skin, background in (("light", "blue"), ("brown", "green"))
]
SEEDS = range(6)
STEPS = 4


def named(prompt: str, number: int) -> str:
    """The sample that `generate` makes of a prompt for a seed."""
    from handscope.run.folder import sample_id
    from handscope.run.prompts import own_seed

    return sample_id(prompt, own_seed(prompt, number))


def hand_made_labels(run) -> list:
    """One hand a sample, at a place that its seed decides.

    It is bad when the red of its image there is above the median of its prompt, so that the verdict is in the
    activations; of each prompt's six, the two in the middle are leaning, and every eleventh sample is unsure.
    """
    from handscope.labeling.database.labels import Annotation

    samples = run.samples()
    hands = {}
    for row in samples.itertuples():
        hand = np.zeros((4, 4), np.uint8)
        top, left = row.seed % 2, row.seed // 2 % 2
        hand[top : top + 3, left : left + 3] = 1
        hands[row.sample] = hand
    samples["red"] = [
        run.image(sample)[..., 0][np.kron(hands[sample], np.ones((8, 8))) > 0].mean() for sample in samples["sample"]
    ]
    annotations = []
    for _, group in samples.groupby("prompt", sort=False):
        verdicts = ("good", "good", "good?", "bad?", "bad", "bad")
        for verdict, row in zip(verdicts, group.sort_values("red").itertuples(), strict=True):
            hand = hands[row.sample]
            verdict = "unsure" if row.Index % 11 == 10 else verdict
            label = {"g": 2, "b": 3, "u": 0}[verdict[0]]
            annotations.append(
                Annotation(
                    row.sample,
                    row.image_sha256,
                    np.where(hand > 0, label, 1),
                    hand,
                    verdict,
                    ("count",) if label == 3 else (),
                    "test",
                    "hand",
                )
            )
    return annotations
