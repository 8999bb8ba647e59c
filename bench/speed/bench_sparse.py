"""Training of sparse autoencoders beside libraries that train them: tokens a second of CPU time, and what is explained.

``python bench/speed/bench_sparse.py [TOKENS.pt] [PASSES]``; a library that is not installed is left out. Each updates
on the same tokens, in batches of 1,024, with Adam at the same rate, on one thread. `dictionary-learning` and `sparsify`
are given tokens less their mean and over their scale, as they expect; their own trainers add no more work than their
updates.
"""

import inspect
import sys
import time
from collections.abc import Callable

import torch
from handscope.inside.sparse import RATE, train
from torch import Tensor

FEATURES, K, BATCH = 1024, 16, 1024


def explained(x: Tensor, made: Tensor) -> float:
    """Share of variance."""
    return 1 - float((x - made).square().sum() / (x - x.mean(0)).square().sum())


def own(x: Tensor, passes: int) -> dict[str, Callable[[], float]]:
    """This project's."""
    return {
        f"handscope {kind}": lambda kind=kind: explained(x, train(x, FEATURES, K, kind, passes, BATCH)(x))
        for kind in ("top_k", "batch_top_k")
    }


def dictionary_learning(x: Tensor, passes: int) -> dict[str, Callable[[], float]]:
    """dictionary-learning's trainers."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    def run(trainer: type) -> float:
        steps = passes * len(x) // BATCH
        settings = {"activation_dim": x.shape[1], "dict_size": FEATURES, "k": K, "layer": 0, "lm_name": "none"}
        made = trainer(steps=steps, device="cpu", lr=RATE, seed=0, warmup_steps=0, **settings)
        for step in range(steps):
            made.update(step, x[torch.randint(len(x), (BATCH,))])
        with torch.no_grad():
            return explained(x, made.ae(x))

    return {f"dictionary-learning {one.__name__}": lambda one=one: run(one) for one in (TopKTrainer, BatchTopKTrainer)}


def sparsify(x: Tensor, passes: int) -> dict[str, Callable[[], float]]:
    """sparsify's coder with a loop around it: its trainer takes a language model and no tokens."""
    from sparsify import SparseCoder, SparseCoderConfig

    def run() -> float:
        coder = SparseCoder(x.shape[1], SparseCoderConfig(num_latents=FEATURES, k=K), "cpu", torch.float32)
        optimiser = torch.optim.Adam(coder.parameters(), RATE, fused=True)
        for _ in range(passes * len(x) // BATCH):
            optimiser.zero_grad()
            coder(x[torch.randint(len(x), (BATCH,))]).fvu.backward()
            optimiser.step()
            coder.set_decoder_norm_to_unit_norm()
        with torch.no_grad():
            return 1 - float(coder(x).fvu)

    return {"sparsify": run}


def sae_lens(x: Tensor, passes: int) -> dict[str, Callable[[], float]]:
    """SAELens's training modules with a loop around them."""
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    known = inspect.signature(TrainStepInput).parameters
    more = {"is_logging_step": False} if "is_logging_step" in known else {}

    def run(module: type, config: type) -> float:
        made = module(config(d_in=x.shape[1], d_sae=FEATURES, k=K, device="cpu"))
        optimiser = torch.optim.Adam(made.parameters(), RATE, fused=True)
        dead = torch.zeros(FEATURES, dtype=torch.bool)
        for step in range(passes * len(x) // BATCH):
            some = x[torch.randint(len(x), (BATCH,))]
            given = TrainStepInput(sae_in=some, coefficients={}, dead_neuron_mask=dead, n_training_steps=step, **more)
            optimiser.zero_grad()
            made.training_forward_pass(given).loss.backward()
            optimiser.step()
        with torch.no_grad():
            return explained(x, made(x))

    return {
        "SAELens top-k": lambda: run(TopKTrainingSAE, TopKTrainingSAEConfig),
        "SAELens batch top-k": lambda: run(BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    }


def main() -> None:
    """Time each in turn, three times."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    path = sys.argv[1] if len(sys.argv) > 1 else None
    passes = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    x = torch.load(path) if path else torch.randn(20_480, 32) @ torch.randn(32, 128) + 0.1 * torch.randn(20_480, 128)
    scaled = (x - x.mean(0)) / (x - x.mean(0)).square().mean().sqrt()
    runs: dict[str, Callable[[], float]] = {}
    for library in (own, dictionary_learning, sparsify, sae_lens):
        try:
            runs |= library(scaled, passes)
        except ImportError as error:
            print(f"{library.__name__}: left out ({error})")
    for name, run in runs.items():
        seconds, shares = [], []
        for _ in range(3):
            begun = time.process_time()
            shares.append(run())
            seconds.append(time.process_time() - begun)
        tokens = passes * len(x) / sorted(seconds)[1]
        print(f"{name:40} {tokens:9,.0f} tokens a second   {shares[0]:.3f} explained", flush=True)


if __name__ == "__main__":
    main()
