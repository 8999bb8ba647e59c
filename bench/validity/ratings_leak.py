"""What a leak does to a classifier that is fitted to ratings: python bench/validity/ratings_leak.py

Pictures of one prompt are alike in their features and in their ratings, and nothing else ties the two: a classifier
that is asked about new prompts can know nothing. Ratings are of three points, 0, 0.5 and 1. What it seems to know is
Kendall's tau-b of its predictions with the ratings: in sample, over folds of pictures (as of a classifier that is
fitted to some of the pictures of a model and judges others of it), over folds of prompts; and where prompts share
noises that decide both, over folds of prompts and over blocks of prompts and noises. Then where there is something to
know.
"""

import numpy as np
from handscope.analysis.statistics.rank_correlation import kendall
from handscope.evaluation.ratings import PENALTIES, held_out_ratings
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PROMPTS, EACH, WIDTH, REPEATS = 20, 10, 100, 20


def drawn(
    random: np.random.Generator, signal: float, by_noise: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, ratings, prompts and noises; half of the variance of each is of the prompt, or of the noise."""
    prompt, seed = np.divmod(np.arange(PROMPTS * EACH), EACH)
    noise = seed if by_noise else np.arange(len(prompt))
    group = seed if by_noise else prompt
    quality = random.normal(size=len(prompt))
    of_group = random.normal(size=group.max() + 1)[group]
    rating = np.digitize(of_group + quality, [-0.6, 0.6]) / 2
    features = random.normal(size=(group.max() + 1, WIDTH))[group] + random.normal(size=(len(prompt), WIDTH))
    features[:, 0] += signal * quality
    return features, rating, prompt, noise


def main() -> None:
    print(f"tau-b with the ratings, mean of {REPEATS} (standard deviation); {PROMPTS} prompts of {EACH} pictures")
    for text, signal, by_noise in (
        ("nothing to know, prompts alike", 0.0, False),
        ("nothing to know, noises alike", 0.0, True),
        ("something to know", 4.0, False),
    ):
        found: dict[str, list[float]] = {}
        for number in range(REPEATS):
            x, y, prompt, noise = drawn(np.random.default_rng(number), signal, by_noise)
            each = np.arange(len(y))
            ways = {
                "in sample": make_pipeline(StandardScaler(), RidgeCV(PENALTIES)).fit(x, y).predict(x),
                "folds of pictures": held_out_ratings(x, y, each, each),
                "folds of prompts": held_out_ratings(x, y, prompt, each),
            }
            if by_noise:
                ways["prompts and noises"] = held_out_ratings(x, y, prompt, noise)
            for name, predicted in ways.items():
                found.setdefault(name, []).append(kendall(predicted, y, prompt).value)
        said = [f"{name} {np.mean(values):.2f} ({np.std(values):.2f})" for name, values in found.items()]
        print(f"{text}: {', '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
