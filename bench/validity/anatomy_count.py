"""The finger-count head beside a probe on the landmark network's features: the same held-out hands, and the time.

``python bench/validity/anatomy_count.py FOLDER [N]`` prints a table. FOLDER holds the shards of
``handscope.organism.training.counting.train``.
Both learn from pictures composed alike: the head from all of its training, the probes (logistic regression on the
pooled features of the frozen network) from N pictures, since each costs a pass through that network.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from handscope.analysis.statistics.auc import auc
from handscope.anatomy.measure.count import RELATIONS, count_fingers, load_count
from handscope.anatomy.read.networks import LANDMARK_INPUT, LandmarkNetwork, load_landmarks
from handscope.organism.training.counting.augment import compose, textures
from handscope.organism.training.counting.measure import FIVE, UNREADABLE, anomaly, composed, look
from handscope.organism.training.counting.train import Shards
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import interpolate


def features(pictures: Tensor, network: LandmarkNetwork) -> np.ndarray:
    """Pooled features (n, width) of pictures (n, 3, s, s)."""
    with torch.no_grad():
        parts = [network.features(interpolate(p, LANDMARK_INPUT, mode="bilinear")) for p in pictures.split(16)]
    return torch.cat(parts).numpy()


def learnt_from(folder: Path, n: int) -> dict[str, Tensor]:
    """`n` training pictures with their labels."""
    shards, g = Shards(folder), torch.Generator().manual_seed(123)
    shards.refresh()
    pool = textures("seen", 1)
    table = shards.pick(n, g)
    made = [compose(*p, pool, g) for p in zip(table["pixels"].split(64), table["relation"].split(64), strict=True)]
    return table | {k: torch.cat([getattr(m, k) for m in made]) for k in ("pictures", "relation", "sure", "counted")}


def main(folder: Path, n: int) -> None:
    torch.set_num_threads(1)
    tables = {"seen": composed(folder, "test", "seen"), "unseen": composed(folder, "unseen", "unseen")}
    kept = {}
    for name, table in tables.items():
        readable = (table["sure"] & (table["relation"] != UNREADABLE)).numpy()
        kept[name] = readable, (table["relation"] != FIVE).numpy()[readable]
    print(f"{'':34}{'AUC seen':>10}{'unseen':>10}{'accuracy of the count, seen':>30}{'unseen':>10}")
    row = []
    for name, table in tables.items():
        found, (readable, wrong), counted = look(table["pictures"], load_count()), kept[name], table["counted"]
        right = (found.probability.argmax(1) == table["count"])[counted].float().mean()
        row.append((float(auc(anomaly(found)[readable], wrong)), float(right)))
    print(f"{'count head':34}{row[0][0]:10.3f}{row[1][0]:10.3f}{row[0][1]:30.3f}{row[1][1]:10.3f}")
    train = learnt_from(folder, n)
    for size in ("lite", "full"):
        network = load_landmarks(size)
        x, counted = features(train["pictures"], network), train["counted"].numpy()
        readable = (train["sure"] & (train["relation"] != UNREADABLE)).numpy()
        probe, counter = (make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=300)) for _ in range(2))
        probe.fit(x[readable], (train["relation"] != FIVE).numpy()[readable])
        counter.fit(x[counted], train["count"].numpy()[counted])
        row = []
        for name, table in tables.items():
            x, (readable, wrong), counted = features(table["pictures"], network), kept[name], table["counted"].numpy()
            right = float((counter.predict(x[counted]) == table["count"].numpy()[counted]).mean())
            row.append((float(auc(probe.decision_function(x[readable]), wrong)), right))
        label = f"probe on landmark features, {size}"
        print(f"{label:34}{row[0][0]:10.3f}{row[1][0]:10.3f}{row[0][1]:30.3f}{row[1][1]:10.3f}")
    crops, times = torch.rand(16, 3, 96, 96), []
    with torch.no_grad():
        for _ in range(15):
            start = time.process_time()
            count_fingers(crops)
            times.append((time.process_time() - start) / len(crops))
    print(f"\n{1 / statistics.median(times):.0f} hands a second of CPU, batch 16, one thread (median of 15)")
    print(f"Relations: {', '.join(RELATIONS)}; probes learnt from {n} pictures.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("pictures", type=int, nargs="?", default=3000, help="that probes learn from (default 3000)")
    arguments = parser.parse_args()
    main(arguments.folder, arguments.pictures)
