"""Train the finger-count head: ``python -m handscope.organism.training.counting.train STAGE FOLDER``.

Stages: ``draw`` writes the hands as shards into FOLDER; ``photos`` cuts the hands out of listed photographs;
``train`` learns from what is ready, and writes a checkpoint every fifty steps; ``ship`` fits temperatures and the
threshold of "unknown", and writes the weights that the package carries. Each takes up where it was killed.
``measure.py`` makes the numbers of ``count_card.md``.
"""

import json
import math
import sys
from collections import deque
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from ....anatomy.measure.count import FAULTS, RELATIONS, WEIGHTS, CountNetwork, Logits, count_fingers
from ....files import atomic
from ....progress import Progress, bars, quiet
from ..course import set_rate
from .augment import Composed, compose, photographed, textures
from .data import DrawnHands, draw
from .photos import cut, jittered, learnt

SHARD = 512
# Family, first seed and number of shards. No two parts share a seed.
PARTS = {"train": ("seen", 0, 60), "valid": ("seen", 9200, 2), "test": ("seen", 9000, 3), "unseen": ("unseen", 9100, 3)}
BATCH, STEPS, RATE, DECAY, AVERAGE = 64, 12000, 2e-3, 0.02, 0.998
PHOTOS, SAVE = 5, 50  # photographs a batch; steps between checkpoints
HALVES = (slice(None, BATCH), slice(BATCH, None))  # renders first, then photographs
# How much a mistake about each fault weighs: the rare and small ones more. `ship` takes it out of the probabilities.
EMPHASIS = torch.tensor([1.0, 1.0, 1.0, 1.5, 2.5, 2.5, 2.5])
RIGHT = 0.9  # share of counts that must be right among those that are not "unknown"
ECHO = 8  # every second batch is one of the last few again, mirrored: composing costs as much as learning


def drawn(folder: Path, part: str, progress: Progress = quiet) -> list[Path]:
    """The shards of a part; those that are missing are drawn first."""
    family, seed, n = PARTS[part]
    paths = [folder / f"{part}-{number:03d}.safetensors" for number in range(n)]
    for number, path in enumerate(paths):
        if not path.exists():
            batches = [draw(64, (seed + number) * 100 + k, family) for k in range(SHARD // 64)]
            whole = {f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(DrawnHands)}
            with atomic(path) as temporary:
                save_file(whole, temporary)
        progress(f"draw {part}", number + 1, n)
    return paths


def read(paths: list[Path]) -> dict[str, Tensor]:
    """Shards as one table of tensors, the fields of `DrawnHands`."""
    parts = [load_file(path) for path in paths]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class Shards:
    """Hands on disk, read as they are picked; new shards join as they are drawn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables: list[dict[str, Tensor]] = []

    def refresh(self) -> int:
        """Look for new shards; the number of hands there are."""
        for path in sorted(self.folder.glob("train-*.safetensors"))[len(self.tables) :]:
            self.tables.append(load_file(path))
        return sum(len(table["count"]) for table in self.tables)

    def pick(self, n: int, g: torch.Generator) -> dict[str, Tensor]:
        """`n` hands at random."""
        which = torch.randint(len(self.tables), (n,), generator=g).tolist()
        places = [(self.tables[k], int(torch.randint(len(self.tables[k]["count"]), (1,), generator=g))) for k in which]
        names = ("pixels", "count", "relation", "fault")
        return {name: torch.stack([table[name][row] for table, row in places]) for name in names}


def loss(logits: Logits, composed: Composed, count: Tensor, fault: Tensor) -> Tensor:
    """Cross-entropies of the three groups, each over the pictures whose label holds."""
    n = len(count)
    relation = cross_entropy(logits.relation, composed.relation, reduction="none")
    digits = cross_entropy(logits.count, count, reduction="none")
    # What is wrong with a hand that cannot be read is no lesson.
    readable = composed.counted & (composed.relation != RELATIONS.index("unreadable"))
    faults = cross_entropy(logits.fault, fault, EMPHASIS, reduction="none")
    return ((relation * composed.sure).sum() + (digits * composed.counted).sum() + 0.8 * (faults * readable).sum()) / n


def photo_loss(logits: Logits) -> Tensor:
    """Of photographs of normal hands: five digits, or not to be read, and no fault; the raised are not known."""
    relation = logits.relation.log_softmax(1)
    normal = torch.logsumexp(relation[:, [RELATIONS.index("five"), RELATIONS.index("unreadable")]], 1)
    return -(normal + 0.5 * logits.fault.log_softmax(1)[:, 0]).mean()


def train(folder: Path, steps: int = STEPS, progress: Progress = quiet) -> CountNetwork:
    """Learn from the shards that are ready, looking for new ones now and then; returns the averaged network."""
    torch.manual_seed(0)
    network, average = CountNetwork(), CountNetwork()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    checkpoint, done = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["done"]
    else:
        average.load_state_dict(network.state_dict())
    shards, batches = Shards(folder), Batches(textures("seen", 1))
    photos = learnt(folder)
    log = (folder / "train.log").open("a")
    while done < steps:
        ready = shards.refresh()
        g = torch.Generator().manual_seed(done)
        total = 0.0
        for _ in range(min(SAVE, steps - done)):
            table, composed, pictures = batches.next(shards, done, g)
            if len(photos):
                chosen = photos[torch.randint(len(photos), (PHOTOS,), generator=g)]
                pictures = torch.cat([pictures, photographed(jittered(chosen, g), g)])
            warm = min(1.0, (done + 1) / 150)
            set_rate(optimizer, RATE * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done / steps))))
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(pictures.contiguous(memory_format=torch.channels_last))
            split = [Logits(*(group[part].float() for group in vars(logits).values())) for part in HALVES]
            value = loss(split[0], composed, table["count"], table["fault"])
            if len(photos):
                value = value + 0.15 * photo_loss(split[1])
            value.backward()
            optimizer.step()
            done += 1
            _follow(average, network, min(AVERAGE, done / (done + 20)))
            total += float(value.detach())
        log.write(f"{done} {total / SAVE:.4f} {ready}\n")
        log.flush()
        state = {"network": network.state_dict(), "average": average.state_dict(), "done": done}
        with atomic(checkpoint) as temporary:
            torch.save({**state, "optimizer": optimizer.state_dict()}, temporary)
        progress("train", done, steps)
    return average.eval()


class Batches:
    """Batches of composed pictures; every second one is one of the last few again, mirrored."""

    def __init__(self, pool: Tensor) -> None:
        self.pool = pool
        self.recent: deque[tuple[dict[str, Tensor], Composed]] = deque(maxlen=ECHO)

    def next(self, shards: Shards, step: int, g: torch.Generator) -> tuple[dict[str, Tensor], Composed, Tensor]:
        """The hands of a batch, what was composed of them, and the pictures to look at."""
        if step % 2 and len(self.recent) == ECHO:
            table, composed = self.recent.popleft()
            return table, composed, composed.pictures.flip(3)
        table = shards.pick(BATCH, g)
        composed = compose(table["pixels"], table["relation"], self.pool, g)
        self.recent.append((table, composed))
        return table, composed, composed.pictures


@torch.no_grad()
def _follow(average: CountNetwork, network: CountNetwork, keep: float) -> None:
    for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        mean.copy_(torch.lerp(now, mean, keep) if mean.is_floating_point() else now)


def calibrate(network: CountNetwork, folder: Path) -> dict[str, float]:
    """Set the temperatures, by likelihood, and the threshold of "unknown" on the part `valid`; returns what was found.

    The threshold is the lowest confidence above which nine counts in ten are right.
    """
    table, pool, g = read(drawn(folder, "valid")), textures("seen", 4), torch.Generator().manual_seed(5)
    pairs = zip(table["pixels"].split(BATCH), table["relation"].split(BATCH), strict=True)
    composed = [compose(*pair, pool, g) for pair in pairs]
    relation, sure, counted = (torch.cat([getattr(c, f) for c in composed]) for f in ("relation", "sure", "counted"))
    network.eval().temperature.fill_(1)
    with torch.no_grad():
        parts = [network(c.pictures) for c in composed]
    readable = counted & (relation != RELATIONS.index("unreadable"))
    groups = {"count": (table["count"], counted), "relation": (relation, sure), "fault": (table["fault"], readable)}
    numbers: dict[str, float] = {}
    scales = torch.linspace(0.5, 3, 251)
    for i, (name, (target, chosen)) in enumerate(groups.items()):
        logits = torch.cat([getattr(part, name) for part in parts])[chosen]
        losses = torch.stack([cross_entropy(logits / t, target[chosen]) for t in scales])
        network.temperature[i] = scales[losses.argmin()]
        numbers[f"temperature_{name}"] = round(float(network.temperature[i]), 3)
        numbers[f"loss_{name}"] = round(float(losses.min()), 4)
    with torch.no_grad():
        seen = [count_fingers(c.pictures, network) for c in composed]
    confidence = torch.cat([c.confidence for c in seen])[counted]
    right = torch.cat([c.probability.argmax(1) for c in seen])[counted] == table["count"][counted]
    order = confidence.argsort(descending=True)
    share = right[order].float().cumsum(0) / torch.arange(1, len(order) + 1)
    network.threshold = float(confidence[order][(share >= RIGHT).nonzero().max()])
    return numbers | {"threshold": round(network.threshold, 4)}


def ship(folder: Path, path: Path = WEIGHTS) -> None:
    """Calibrate the trained network and write it, in float16, with how it was made."""
    network = CountNetwork()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    network.load_state_dict(state["average"])
    with torch.no_grad():
        network.last.bias[-len(FAULTS) :] -= EMPHASIS.log()
    made: dict[str, Any] = {"renders": SHARD * len(list(folder.glob("train-*.safetensors"))), "steps": state["done"]}
    made |= calibrate(network, folder) | {"classes": {"relation": RELATIONS, "fault": FAULTS}}
    weights = {
        name: value.half().contiguous() for name, value in network.state_dict().items() if value.is_floating_point()
    }
    with atomic(path) as temporary:
        save_file(weights, temporary, {"handscope": json.dumps(made)})


def main(arguments: list[str]) -> None:
    """Run one stage."""
    if len(arguments) < 2 or arguments[0] not in ("draw", "photos", "train", "ship"):
        sys.exit("Usage: python -m handscope.organism.training.counting.train STAGE FOLDER [PHOTOGRAPHS]\n"
                 "STAGE is draw, photos, train or ship")
    stage, folder = arguments[0], Path(arguments[1])
    torch.set_num_threads(1)
    with bars() as progress:
        if stage == "draw":
            for part in PARTS:
                drawn(folder, part, progress)
        elif stage == "photos":
            cut(Path(arguments[2]), folder, progress)
        elif stage == "train":
            train(folder, progress=progress)
        else:
            ship(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
