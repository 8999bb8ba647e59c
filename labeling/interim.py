"""Stands in for order, suggest and agreement until they are here."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd


@dataclass
class Order:
    method: str
    seed: int
    samples: tuple
    note: str = ""

    def queue(self, annotator):
        return list(self.samples)

    def record(self, labels):
        return labels.record_order(self.method, self.seed, self.samples, {})


@dataclass
class Suggestions:
    found: list = field(default_factory=list)
    absent: dict = field(default_factory=dict)


def make_order(run, method="random", seed=0, double_share=0.1, annotators=()):
    names = sorted(run.metadata())
    return Order(method, seed, tuple(names[i] for i in np.random.default_rng(seed).permutation(len(names))))


def agreement(run):
    return pd.DataFrame(columns=["measure", "of", "value", "low", "high", "samples", "prompts", "note"])


def review_queue(run):
    return pd.DataFrame(columns=["sample", "disagreement", "why", "reviewed"])


def suggestions(run, sample):
    return Suggestions()
