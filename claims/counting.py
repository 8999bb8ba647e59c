"""Whether a text encoder's embedding of a prompt says how many: which number word stands there, and how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..analysis.statistics.nulls import p_value
from ..errors import HandscopeError
from ..models.embedded import ORGANISMS
from ..models.model import Model
from ..organism.captions import CAPTIONS
from ..progress import Progress, quiet

Array = NDArray[np.float64]
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
TEMPLATES = (
    "a photo of {n} fingers", "a hand with {n} fingers raised", "{n} apples on a table", "a drawing of {n} boats",
    "there are {n} people in the room", "exactly {n} coins, seen from above", "a row of {n} trees", "{n} red balloons",
)  # fmt: skip
RIDGE = 0.1
"""Of the mean eigenvalue of the kernel."""


@dataclass(frozen=True, eq=False)
class Counting:
    """What one embedding says of number.

    Attributes
    ----------
    embedding : str
    n, numbers : int, prompts and number words
    accuracy, chance, p : float, of telling which word stands in prompts of templates that were not fitted to; chance is
        the mean of the null in which words are permuted inside templates
    order, order_p : float, Kendall's tau-b of true and predicted size of words that were not fitted to, whatever the
        template; its null maps words to sizes by chance. NaN with fewer than five words
    predicted : array of shape (numbers,), the size of each word, from the others
    """

    embedding: str
    n: int
    numbers: int
    accuracy: float
    chance: float
    p: float
    order: float
    order_p: float
    predicted: Array


def prompts_of(words: Sequence[str] | None = None, organism: bool = False) -> tuple[list[str], list[str], list[int]]:
    """Prompts, the template of each, and the number that each names.

    The organism knows nothing but its captions: its templates are what these say beside the gesture.
    """
    if organism:
        rows = [(str(one), str(one).replace(f" {one.gesture} ", " {n} "), NUMBERS[one.gesture]) for one in CAPTIONS]
    else:
        chosen = words or list(NUMBERS)
        rows = [(t.format(n=word), t, NUMBERS[word]) for t in TEMPLATES for word in chosen]
    prompts, templates, numbers = zip(*rows)
    return list(prompts), list(templates), list(numbers)


def counting(model: Model, permutations: int = 999, seed: int = 0, progress: Progress = quiet) -> list[Counting]:
    """Each embedding that the model's pipeline makes of prompts, as vectors: ``pooled``, and the mean over tokens."""
    prompts, templates, numbers = prompts_of(organism=model.name in ORGANISMS)
    encoded = model.encode(prompts, progress=progress)
    vectors: dict[str, list[Array]] = {}
    for prompt in prompts:
        for name, tensor in encoded.embeddings(prompt).items():
            if tensor.is_floating_point():
                values = tensor.float().numpy()
                vectors.setdefault(name, []).append(values if values.ndim == 1 else values.mean(0))
    return [
        of_vectors(name, np.stack(rows).reshape(len(rows), -1), templates, numbers, permutations, seed)
        for name, rows in vectors.items()
    ]


def of_vectors(
    name: str, x: Array, templates: Sequence[str], numbers: Sequence[int], permutations: int = 999, seed: int = 0
) -> Counting:
    """As `counting`, of vectors (n, d).

    Raises
    ------
    HandscopeError
        There is one template, or one number.
    """
    value, random = np.asarray(numbers, np.float64), np.random.default_rng(seed)
    template = np.unique(np.asarray(templates), return_inverse=True)[1].ravel()
    levels, word = np.unique(value, return_inverse=True)
    if template.max() < 1 or len(levels) < 2:
        raise HandscopeError("Expected prompts of two templates and two numbers or more.")
    x = x.astype(np.float64)
    target = np.eye(len(levels))[word]
    by_template = [(template != one, template == one) for one in range(int(template.max()) + 1)]
    maps = [_map(x[train], x[test]) for train, test in by_template]

    def accuracy(labels: Array) -> float:
        right = [
            ((m @ labels[train]).argmax(1) == labels[test].argmax(1)).mean()
            for m, (train, test) in zip(maps, by_template)
        ]
        return float(np.mean(right))

    null = np.array([accuracy(target[_inside(template, random)]) for _ in range(permutations)])
    observed = accuracy(target)
    order, order_p, predicted = np.nan, np.nan, np.full(len(levels), np.nan)
    if len(levels) >= 5:
        by_word = [(word != one, word == one) for one in range(len(levels))]
        sizes = [_map(x[train], x[test]).mean(0) for train, test in by_word]

        def told(of: Array) -> Array:
            return np.array([m @ of[word[train]] for m, (train, _) in zip(sizes, by_word)])

        logs = np.log(levels)
        predicted = told(logs)
        order = _tau(predicted, logs)
        drawn = [random.permutation(logs) for _ in range(permutations)]
        order_p = p_value(order, np.array([_tau(told(one), one) for one in drawn]))
        predicted = np.exp(predicted)
    return Counting(
        name, len(x), len(levels), observed, float(null.mean()), p_value(observed, null), order, order_p, predicted
    )


def _map(train: Array, test: Array) -> Array:
    """What turns targets of training rows into predictions of test rows by ridge regression: (n_test, n_train)."""
    middle = train.mean(0)
    train, test = train - middle, test - middle
    kernel = train @ train.T
    inverse = np.linalg.inv(kernel + RIDGE * np.trace(kernel) / len(kernel) * np.eye(len(kernel)))
    weights = test @ train.T @ inverse
    return weights + (1 - weights.sum(1, keepdims=True)) / len(train)


def _inside(template: NDArray[np.intp], random: np.random.Generator) -> NDArray[np.intp]:
    """A permutation of rows inside templates."""
    order = np.lexsort((random.random(len(template)), template))
    out = np.empty(len(template), np.intp)
    out[np.argsort(template, kind="stable")] = order
    return out


def _tau(a: Array, b: Array) -> float:
    pairs = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
    return float(pairs.sum() / (len(a) * (len(a) - 1)))
