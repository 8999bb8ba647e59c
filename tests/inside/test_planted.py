"""A circuit made by hand is found where it is, and nothing else at 5%: see made_circuit.py."""

from collections.abc import Iterator

import made_tiny
import numpy as np
import pandas as pd
import pytest
import torch
from handscope.analysis.statistics.rank_auc import Verdicts
from handscope.extract.address import Plan
from handscope.inside.attention import GROUPS, Groups, reading_attention
from handscope.inside.heads_stage import _paired
from handscope.inside.lens import BlockLens
from handscope.models.sampling import Sampling
from made_circuit import EARLY, FLAGGED, READER, STEPS, flagged_noise

PROMPTS = made_tiny.PROMPTS[:8] * 4
BAD = np.repeat([0, 1, 0, 1], 8)


def verdicts() -> Verdicts:
    return Verdicts.of(BAD, np.array(PROMPTS, object), permutations=999, folds=4)


def steps_of(sampling: Sampling) -> Iterator[tuple[int, torch.Tensor]]:
    """The latents before each step, of good and of bad samples: the flag is what makes them bad."""
    noise = sampling.noise(range(len(BAD)))
    latents = torch.stack([flagged_noise(one, bool(bad)) for one, bad in zip(noise, BAD)])
    for index in range(STEPS):
        yield STEPS - index, latents
        latents, _ = sampling.step(latents, PROMPTS, index)


def test_the_lens_sees_the_mark_from_the_block_that_reads_it_on(circuit_model):
    sampling = Sampling(circuit_model, STEPS)
    lens = BlockLens(sampling)
    cells, scores = [], []
    for step, latents in steps_of(sampling):
        said = lens.read(latents, PROMPTS, STEPS - step)
        for block in lens.blocks:
            cells.append((block, step))
            scores.append(said.velocity(block)[..., 1].mean(1).numpy())
    # Where nothing differs, it does so in the last digits of float32 alone.
    table = verdicts().table(np.stack(scores).round(5), directed=False)
    found = {cell for cell, p in zip(cells, table["p_family"]) if p <= 0.05}
    after = lens.blocks[lens.blocks.index(READER) :]
    assert found == {(block, step) for block in after for step in EARLY}
    change = np.stack(scores).reshape(STEPS, len(lens.blocks), -1)
    changed = np.abs(np.diff(change, axis=1)).max((0, 2)) > 1e-6
    assert [name for name, one in zip(lens.blocks[1:], changed) if one] == [READER]


@pytest.fixture
def one_head(circuit_model):
    """The circuit with heads that look at all tokens alike, but for those of the reader: as it was afterwards."""
    transformer = circuit_model.transformer
    blocks = circuit_model.family.blocks(transformer)
    parts = [
        getattr(block.attn, name)
        for key, block in blocks.items()
        for name in ("to_q", "to_k", "add_q_proj", "add_k_proj")
        if key != READER and getattr(block.attn, name, None) is not None
    ]
    before = [part.weight.detach().clone() for part in parts]
    with torch.no_grad():
        for part in parts:
            part.weight.zero_()
        yield circuit_model
        for part, weight in zip(parts, before):
            part.weight.copy_(weight)


def test_attention_finds_the_head_that_reads_the_mark(one_head):
    sampling = Sampling(one_head, STEPS)
    blocks = one_head.blocks
    looking = torch.zeros(len(BAD), 16, dtype=torch.bool)
    looking[:, list(FLAGGED)] = True
    text = {"text": torch.ones(len(BAD), 20, dtype=torch.bool)}
    cells, scores = [], []
    for step, latents in steps_of(sampling):
        plan = Plan(blocks, [step], of=STEPS)
        with reading_attention(one_head.transformer, plan, Groups(looking, text), [step]) as seen:
            sampling.step(latents, PROMPTS, STEPS - step)
        for block in blocks:
            for group in (*text, *GROUPS):
                values = seen[block, step][group]
                cells += [(block, head, step) for head in range(values.shape[1])]
                scores += list(values.T.numpy())
    table = verdicts().table(np.stack(scores).round(5), directed=False)
    assert {cell for cell, p in zip(cells, table["p_family"]) if p <= 0.05} == {(READER, 0, step) for step in EARLY}
    looks = dict(zip(cells, scores))
    for step in EARLY:
        marked = looks[READER, 0, step]  # the last group, the rest of the picture
        assert marked[BAD == 1].max() < 0.01 < marked[BAD == 0].min()


def test_a_head_that_differs_between_the_prompts_of_pairs_is_found():
    """Of 40 heads one looks at something 1.5 standard deviations more in the second member."""
    random = np.random.default_rng(3)
    pairs = pd.DataFrame({"prompts": np.zeros(24, int)})
    values = random.normal(size=(40, 48))
    values[:, 24:] += 3 * values[:, :24]  # pairs differ much more than their members do
    values[:, :24] *= 4
    values[7, 24:] += 1.5 * 1.4
    places = [{"block": "single.1", "head": head, "step": 2, "group": "count"} for head in range(40)]
    table = _paired(places, values, pairs, 999, 4, 0)
    assert list(np.flatnonzero(table["p_family"] <= 0.05)) == [7]
    assert table["dz"][7] > 0.5 and (table["units"] == 24).all()
