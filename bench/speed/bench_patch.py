"""Seconds of a cell of interchange over those of its remaining steps, of sites over bare generation, of attribution.

    python bench/speed/bench_patch.py [--batch 16] [--repeats 5] [--threads 1]

The organism, noises 0, 1, … as recipients and others as donors. In each repeat every variant runs in turn; CPU time of
the process, and medians of the ratios within a repeat.

cell        the recipients drawn on from a step with the donors' values at a third of the tokens, over the same steps
            drawn on without: single.1 at steps 20, 8 and 1; the donors' values are there already and serve all blocks
with values the same, and a sixth of the forward that reads the donors' values for all six blocks
sites       a generation with a capture of attention, MLP and queries of every block at every step, over a bare one
first order the estimate of all blocks of a step, over one forward
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import handscope
import numpy as np
import torch
from handscope.extract.address import Plan
from handscope.extract.capture import capture
from handscope.guidance.attribution import attributed
from handscope.guidance.interchange import Interchange
from handscope.models.model import load
from handscope.run.prompts import read_prompts

STEPS = 20
DATASETS = Path(handscope.__file__).parent / "datasets"
SITES = {"double": ("attn", "attn.gated", "mlp.gated", "q"), "single": ("both.gated", "q")}


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = load("organism")
    interchange = Interchange(model, STEPS)
    prompts = (read_prompts(DATASETS / "study_prompts.txt") * given.batch)[: given.batch]
    seeds = range(given.batch)
    recipients, donors = (
        interchange.drawn(prompts, interchange.sampling.noise([first + seed for seed in seeds])) for first in (0, 1000)
    )
    tokens = recipients.final.shape[1]
    masks = np.arange(given.batch * tokens).reshape(given.batch, tokens) % 3 == 0
    ratios: dict[str, list[float]] = {}

    def ratio(name: str, value: float) -> None:
        ratios.setdefault(name, []).append(value)

    sites = [f"{block}:{site}" for block in model.blocks for site in SITES[block.split(".")[0]]]
    for _ in range(given.repeats):
        for step in (20, 8, 1):
            plan = Plan(["single.1"], [step], of=STEPS)
            values = interchange.values(donors, plan, masks)
            plain = seconds(lambda: interchange.patched(recipients, step, masks))  # noqa: B023
            cell = seconds(lambda: interchange.patched(recipients, step, masks, values))  # noqa: B023
            every = Plan(model.blocks, [step], of=STEPS)
            read = seconds(lambda: interchange.values(donors, every, masks))  # noqa: B023
            ratio(f"cell at step {step}", cell / plain)
            ratio(f"with values at step {step}", (cell + read / len(model.blocks)) / plain)
        forward = seconds(lambda: interchange.patched(recipients, 1, masks))
        estimate = seconds(lambda: attributed(interchange, recipients, donors, model.blocks, 8, masks))
        ratio("first order", estimate / forward)
        bare = seconds(lambda: interchange.patched(recipients, STEPS, masks))

        def captured() -> None:
            with capture(model.transformer, Plan(sites, range(STEPS, 0, -1), of=STEPS), masks):
                interchange.patched(recipients, STEPS, masks)

        ratio(f"capture at {len(sites)} sites, every step", seconds(captured) / bare)
    for name, found in ratios.items():
        print(f"{name:34} {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})")
    print(f"a forward of {given.batch}: {forward / given.batch * 1000:.1f} ms a sample")


if __name__ == "__main__":
    main()
