"""What the finger-count head gets right on pictures it was not trained on.

``python -m handscope.organism.training.counting.measure FOLDER`` writes the numbers of ``count_card.md``
to FOLDER/measured.json; FOLDER holds the shards and the photographs of `train`.
"""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ....analysis.statistics.auc import PairWins, auc
from ....analysis.statistics.intervals import interval, picked_groups
from ....anatomy.measure.count import FAULTS, RELATIONS, Count, CountNetwork, count_fingers, load_count
from ....files import atomic
from ...captions import GESTURES, Caption
from ...hands import FAULTS as PLANTED
from ...render import render_dataset
from .augment import compose, textures
from .photos import narrowed
from .train import drawn, read

FIVE, UNREADABLE = RELATIONS.index("five"), RELATIONS.index("unreadable")
LABELS = Path(__file__).parents[3] / "datasets" / "hand_labels.csv"


def look(crops: Tensor, network: CountNetwork) -> Count:
    """`count_fingers` in batches, without gradients."""
    with torch.no_grad():
        parts = [count_fingers(batch, network) for batch in crops.split(64)]
    return Count(*(torch.cat([getattr(p, f) for p in parts]) for f in Count.__dataclass_fields__))


def composed(folder: Path, part: str, family: str) -> dict[str, Tensor]:
    """The held-out hands of a part in pictures, the same every time, with their labels."""
    table, pool = read(drawn(folder, part)), textures(family, 2 if family == "seen" else 3)
    g = torch.Generator().manual_seed(77)
    batches = zip(table.pop("pixels").split(64), table["relation"].split(64), strict=True)
    whole = [compose(*batch, pool, g) for batch in batches]
    return table | {
        name: torch.cat([getattr(part, name) for part in whole]) for name in ("pictures", "relation", "sure", "counted")
    }


def _auc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """`auc` to three places; None where one class is missing."""
    return round(float(auc(score, positive)), 3) if 0 < positive.sum() < len(positive) else None


def sensitivity(score: np.ndarray, positive: np.ndarray, negative: np.ndarray, alarms: float = 0.05) -> float | None:
    """Share of positives above the score that `alarms` of the negatives pass."""
    if not positive.any() or not negative.any():
        return None
    return round(float((score[positive] > np.quantile(score[negative], 1 - alarms)).mean()), 3)


def anomaly(count: Count) -> np.ndarray:
    """How much speaks against five digits: log-odds of "fewer or more" against "five"."""
    wrong = count.relation[:, [0, 2]].sum(1).clamp_min(1e-9).log() - count.relation[:, FIVE].clamp_min(1e-9).log()
    return wrong.numpy()


def on_renders(table: dict[str, Tensor], network: CountNetwork) -> dict[str, Any]:
    """Accuracy by count, gesture, view and tilt; faults; calibration."""
    counts = look(table["pictures"], network)
    truth, counted = table["count"], table["counted"]
    certain, right = counts.value >= 0, counts.value == truth

    def row(chosen: Tensor) -> dict[str, Any]:
        chosen = chosen & counted
        best = counts.probability.argmax(1) == truth
        return {
            "n": int(chosen.sum()),
            "accuracy": _share(best[chosen]),
            "known": _share(certain[chosen]),
            "accuracy_known": _share(right[chosen & certain]),
            "off_by_one_known": _share(((counts.value - truth).abs() <= 1)[chosen & certain]),
        }

    raised = table["raised"]
    open_hand, fist = raised == 31, raised == 0
    everything = torch.ones_like(counted)
    report: dict[str, Any] = {
        "all": row(everything),
        "count": {str(k): row(truth == k) for k in range(8)},
        "gesture": {
            "open": row(open_hand), "four fingers": row(raised == 30), "fist": row(fist),
            "other": row(~open_hand & ~fist & (raised != 30)),
        },  # fmt: skip
        "view": {"palm": row(table["back"] == 0), "back": row(table["back"] == 1)},
        "tilt": {
            "under 15": row(table["tilt"] < 15), "15 to 25": row((table["tilt"] >= 15) & (table["tilt"] < 25)),
            "over 25": row(table["tilt"] >= 25),
        },  # fmt: skip
    }
    sure = table["sure"].numpy()
    relation = table["relation"].numpy()
    readable = sure & (relation != UNREADABLE)
    report["unreadable_auc"] = _auc(counts.relation[:, UNREADABLE].numpy()[sure], relation[sure] == UNREADABLE)
    score = anomaly(counts)
    report["wrong_count"] = {
        "auc": _auc(score[readable], relation[readable] != FIVE),
        "auc_open": _auc(score[readable & open_hand.numpy()], (relation != FIVE)[readable & open_hand.numpy()]),
        "fewer_at_5": sensitivity(score, readable & (relation == 0), readable & (relation == FIVE)),
        "more_at_5": sensitivity(score, readable & (relation == 2), readable & (relation == FIVE)),
    }
    report["fault"] = by_fault(counts, table["fault"].numpy(), readable & table["counted"].numpy())
    report["calibration"] = confidence_against_accuracy(counts, truth, counted)
    return report


def by_fault(counts: Count, fault: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """AUC and sensitivity at 5% false alarms of each fault against no fault: of p(no fault), of its own kind's odds."""
    log = counts.fault.clamp_min(1e-9).log().numpy()
    anything, none = -log[:, 0], chosen & (fault == 0)
    rows: dict[str, Any] = {}
    for i, name in enumerate(FAULTS[1:], 1):
        its, both = chosen & (fault == i), chosen & ((fault == i) | (fault == 0))
        odds = log[:, i] - log[:, 0]
        rows[name] = {
            "n": int(its.sum()),
            "auc": _auc(anything[both], fault[both] == i),
            "at_5": sensitivity(anything, its, none),
            "auc_own": _auc(odds[both], fault[both] == i),
            "at_5_own": sensitivity(odds, its, none),
        }
    rows["any"] = {
        "n": int((chosen & (fault > 0)).sum()),
        "auc": _auc(anything[chosen], fault[chosen] > 0),
        "at_5": sensitivity(anything, chosen & (fault > 0), none),
    }
    return rows


def confidence_against_accuracy(counts: Count, truth: Tensor, counted: Tensor) -> dict[str, Any]:
    """Mean confidence against accuracy of the likeliest count, in tenths; expected calibration error."""
    best, guess = counts.probability[counted].max(1)
    confidence, right = best.numpy(), (guess == truth[counted]).numpy()
    place = np.minimum((confidence * 10).astype(int), 9)
    bins, error = [], 0.0
    for its in (place == k for k in range(10)):
        if its.any():
            said, was = float(confidence[its].mean()), float(right[its].mean())
            bins.append({"n": int(its.sum()), "confidence": round(said, 3), "accuracy": round(was, 3)})
            error += its.mean() * abs(said - was)
    return {"bins": bins, "expected_error": round(float(error), 3)}


def on_organism_renders(network: CountNetwork, n: int = 300) -> dict[str, Any]:
    """Renders of the organism's own training family, half with faults; the whole picture is the crop."""
    good, bad = render_dataset(n, 990_001), render_dataset(n, 990_002, corrupt=True)
    counts = look(torch.cat([good.images, bad.images]).float() / 255, network)
    truth = torch.cat([good.count, bad.count])
    fault = np.array([0] * n + [FAULTS.index(name) for name in bad.fault])
    assert set(bad.fault) <= set(PLANTED)
    score, wrong = anomaly(counts), np.isin(fault, [1, 2])
    return {
        "accuracy": _share(counts.probability.argmax(1) == truth),
        "known": _share(counts.value >= 0),
        "accuracy_known": _share((counts.value == truth)[counts.value >= 0]),
        "false_alarms": _share((counts.relation.argmax(1) != FIVE)[:n] & (counts.relation.argmax(1) != UNREADABLE)[:n]),
        "wrong_count_auc": _auc(score[wrong | (fault == 0)], wrong[wrong | (fault == 0)]),
        "fault": by_fault(counts, fault, np.ones(2 * n, bool)),
    }


def generated() -> tuple[Tensor, list[dict[str, str]]]:
    """The labelled pictures of the organism (640, 3, 96, 96) in [0, 1], and their rows of the CSV."""
    with LABELS.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with Image.open(LABELS.with_suffix(".webp")) as sheet:
        pixels = torch.from_numpy(np.array(sheet.convert("RGB"))).permute(2, 0, 1)
    side = pixels.shape[2] // 20
    pictures = [
        pixels[:, r * side : (r + 1) * side, c * side : (c + 1) * side]
        for r, c in ((int(row["row"]), int(row["column"])) for row in rows)
    ]
    return torch.stack(pictures).float() / 255, rows


def on_generated(network: CountNetwork) -> dict[str, Any]:
    """Labelled pictures of the organism: does the head find what the labels call a count fault, within a prompt?"""
    pictures, rows = generated()
    counts = look(pictures, network)
    asked = torch.tensor([sum(GESTURES[Caption.parse(row["prompt"]).gesture]) for row in rows])
    prompt = np.array([row["prompt"] for row in rows])
    good = np.array([row["verdict"] in ("good", "good?") for row in rows])
    bad = np.array([row["verdict"] in ("bad", "bad?") for row in rows])
    count = bad & np.array(["count" in row["kinds"].split() for row in rows])
    p_asked = counts.probability.gather(1, asked[:, None])[:, 0].clamp_min(1e-9)
    scores = {
        "against the asked count": -p_asked.log().numpy(),
        "against five digits": anomaly(counts),
        "any fault": -counts.fault[:, 0].clamp_min(1e-9).log().numpy(),
    }
    agreed = (counts.value == asked).numpy()
    certain = (counts.value >= 0).numpy()
    return {
        "good": int(good.sum()),
        "bad": int(bad.sum()),
        "count_faults": int(count.sum()),
        "known_of_good": _share(torch.from_numpy(certain[good])),
        "asked_count_of_good_known": _share(torch.from_numpy(agreed[good & certain])),
        "asked_count_of_count_faults_known": _share(torch.from_numpy(agreed[count & certain])),
        "count_faults_within_prompt": {k: within(s, count, good, prompt) for k, s in scores.items()},
        "all_bad_within_prompt": {k: within(s, bad, good, prompt) for k, s in scores.items()},
    }


def on_photographs(folder: Path, network: CountNetwork) -> dict[str, Any]:
    """False alarms on photographs of normal hands (those that were learnt from apart), and on some without a hand."""
    report = {}
    for part in ("test", "learnt", "none"):
        counts = look(narrowed(load_file(folder / f"photos-{part}.safetensors")["crops"]), network)
        best = counts.relation.argmax(1)
        report[part] = {
            "hands": len(best),
            "five": _share(best == FIVE),
            "unreadable": _share(best == UNREADABLE),
            "fewer": _share(best == 0),
            "more": _share(best == 2),
            "fault_likelier_than_none": _share(counts.fault.argmax(1) > 0),
            "known_count": _share(counts.value >= 0),
            "counts": counts.value.tolist(),
            "against_five": [round(float(v), 2) for v in anomaly(counts)],
        }
    return report


def within(score: np.ndarray, positive: np.ndarray, negative: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """AUC over pairs of one group, and its 95% interval from a bootstrap over groups."""
    chosen = (positive | negative) & np.isin(group, np.intersect1d(group[positive], group[negative]))
    pairs = PairWins.of(score[chosen], positive[chosen], group[chosen])
    groups = len(pairs.wins)
    return {
        "auc": round(float(pairs.within_auc(np.ones((1, groups)))[0]), 3),
        "interval": [round(q, 3) for q in interval(pairs.within_auc(picked_groups(groups, 2000)))],
        "prompts": groups,
    }


def _share(chosen: Tensor) -> float | None:
    return round(float(chosen.float().mean()), 3) if len(chosen) else None


def measure(folder: Path, network: CountNetwork) -> dict[str, Any]:
    """Every measurement."""
    return {
        "seen families": on_renders(composed(folder, "test", "seen"), network),
        "unseen families": on_renders(composed(folder, "unseen", "unseen"), network),
        "organism renders": on_organism_renders(network),
        "generated": on_generated(network),
        "photographs": on_photographs(folder, network),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    with atomic(place / "measured.json") as temporary:
        temporary.write_text(json.dumps(measure(place, load_count()), indent=1) + "\n", encoding="utf-8")
