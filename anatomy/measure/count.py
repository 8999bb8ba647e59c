"""How many fingers a picture of a hand shows: read from the pixels, since landmarks always report five.

A small convolutional network over a hand crop, trained on this project's renders; what it can be trusted with, and what
not, is measured in ``count_card.md``.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ...errors import HandscopeError

WEIGHTS = Path(__file__).parents[1] / "weights" / "count.safetensors"
SIDE = 96  # pixels; other crops are resized to it
COUNTS = 8  # 0 to 7 raised digits
RELATIONS = ("fewer", "five", "more", "unreadable")
FAULTS = ("none", "six", "four", "fused", "backward", "proportion", "detached")
CHANNELS = (24, 48, 96, 128)
MARGIN = 1.25  # the landmarks' region cuts off tips and thumbs; the count's is larger by this


@dataclass(frozen=True)
class Count:
    """What m crops show.

    Attributes
    ----------
    probability : (m, 8), of 0 to 7 raised digits whose tips can be seen.
    value : (m,) long, the likeliest of them, or -1 for "unknown": the crop is unreadable, or the confidence too low.
    confidence : (m,), the probability of that value, times that of a readable crop.
    relation : (m, 4), probabilities that the hand has fewer digits than five, five, more, or that this cannot be read
        from the crop, as of a fist; raised or folded does not matter here.
    fault : (m, 7), probabilities in the order of FAULTS, of the faults that the renders were given. Faults of
        generators look different; take it as evidence to be weighed, not as a diagnosis.
    embedding : (m, 96), what the network's last layer reads, for a scorer that is fitted to labels of its own.
    """

    probability: Tensor
    value: Tensor
    confidence: Tensor
    relation: Tensor
    fault: Tensor
    embedding: Tensor


@dataclass(frozen=True)
class Logits:
    """Of m crops, calibrated: count (m, 8), relation (m, 4), fault (m, 7), and the embedding (m, 96) behind them.

    Differentiable.
    """

    count: Tensor
    relation: Tensor
    fault: Tensor
    embedding: Tensor


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(x + self.second_norm(self.second(inner)))


class CountNetwork(nn.Module):
    """Crops (m, 3, s, s) in [0, 1], the hand roughly upright as `anatomy.crop` cuts it -> `Logits`.

    Attributes
    ----------
    threshold : confidence below which a count is "unknown".
    temperature : (3,) divisors of the three groups of logits, fitted on renders that were not trained on.
    """

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (before, width) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False)):
            kernel = 5 if i == 0 else 3
            layers += [nn.Conv2d(before, width, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [_Residual(width) for _ in range(2 if i == 2 else 1)]
        self.body = nn.Sequential(*layers)
        self.where = nn.Conv2d(CHANNELS[-1], 12, 1)
        cells = (SIDE // 2 ** len(CHANNELS)) ** 2
        self.hidden = nn.Linear(CHANNELS[-1] + 12 * cells, 96)
        self.last = nn.Linear(96, COUNTS + len(RELATIONS) + len(FAULTS))
        self.register_buffer("temperature", torch.ones(3))
        self.threshold = 0.5

    def forward(self, crops: Tensor) -> Logits:
        if crops.ndim != 4 or crops.shape[1] != 3:
            raise HandscopeError(
                f"Expected hand crops of shape (m, 3, s, s), found {tuple(crops.shape)}: cut them with anatomy.crop."
            )
        if crops.shape[-2:] != (SIDE, SIDE):
            crops = interpolate(crops, (SIDE, SIDE), mode="bilinear", antialias=True)
        seen = self.body(crops * 2 - 1)
        pooled = torch.cat([seen.mean((2, 3)), self.where(seen).flatten(1)], 1)
        embedding = torch.relu(self.hidden(pooled))
        count, relation, fault = self.last(embedding).split([COUNTS, len(RELATIONS), len(FAULTS)], 1)
        for_count, for_relation, for_fault = self.temperature
        return Logits(count / for_count, relation / for_relation, fault / for_fault, embedding)


@cache
def load_count() -> CountNetwork:
    """The shipped head, in evaluation mode, on the CPU; the same object at every call, its parameters frozen.

    Raises HandscopeError where the weights are missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    network = CountNetwork()
    try:
        with safe_open(WEIGHTS, "pt") as file:
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
            left = network.load_state_dict(weights, strict=False)
            # Batches are counted in training only, and are not shipped.
            lacking = [name for name in left.missing_keys if not name.endswith("num_batches_tracked")]
            if lacking or left.unexpected_keys:
                raise ValueError(f"other tensors than expected: {[*lacking, *left.unexpected_keys][0]}")
            network.threshold = float(json.loads(file.metadata()["handscope"])["threshold"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise HandscopeError(f"The weights in {WEIGHTS} cannot be read ({error}): install handscope again.") from error
    return network.float().eval().requires_grad_(False)


def count_region(region: Tensor) -> Tensor:
    """The regions (m, 4) to count fingers in, about those that landmarks are read in."""
    return region * region.new_tensor([1.0, 1.0, MARGIN, 1.0])


def count_fingers(crops: Tensor, network: CountNetwork | None = None) -> Count:
    """Count the raised digits in hand crops of shape (m, 3, s, s), values in [0, 1]; 96 pixels are what it looks at.

    Differentiable in the crops, except for `value`. Mirrored hands need no care: it learnt both sides.

    >>> crops = crop(images, count_region(hands.region), SIDE, hands.image)     # doctest: +SKIP
    >>> count_fingers(crops).value                                              # doctest: +SKIP
    tensor([5, 4, -1])
    """
    network = network or load_count()
    logits = network(crops)
    probability, relation = logits.count.softmax(1), logits.relation.softmax(1)
    best, value = probability.max(1)
    confidence = best * (1 - relation[:, -1])
    return Count(
        probability,
        torch.where(confidence >= network.threshold, value, torch.full_like(value, -1)),
        confidence,
        relation,
        logits.fault.softmax(1),
        logits.embedding,
    )


def digits(count: Count) -> Tensor:
    """How many digits the hand has, raised or folded: (m,) long, 4 for fewer than five, 6 for more, -1 for unknown."""
    return torch.tensor([4, 5, 6, -1], device=count.relation.device)[count.relation.argmax(1)]


def count_evidence(count: Count) -> dict[str, Tensor]:
    """Named columns (m,) for a scorer to weigh: log-odds against "five" and against "no fault", within +-12.

    ``count_fewer``, ``count_more`` and ``count_unreadable`` come from the relation, ``count_six`` and so on from the
    faults, and ``count_any_fault`` from all of them together. Differentiable.
    """

    def odds(a: Tensor, b: Tensor) -> Tensor:
        return (a.clamp_min(1e-9).log() - b.clamp_min(1e-9).log()).clamp(-12, 12)

    five, none = count.relation[:, 1], count.fault[:, 0]
    columns = {f"count_{RELATIONS[i]}": odds(count.relation[:, i], five) for i in (0, 2, 3)}
    columns |= {f"count_{FAULTS[i]}": odds(count.fault[:, i], none) for i in range(1, len(FAULTS))}
    return columns | {"count_any_fault": odds(1 - none, none)}
