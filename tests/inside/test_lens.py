"""The block lens: the model's own output layer on each block, in every family, and translators."""

from pathlib import Path

import made_families
import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.inside.lens import BlockLens
from handscope.inside.translate import TranslatorSums, fitted
from handscope.models.family import Family
from handscope.models.model import load
from handscope.models.sampling import Sampling

PROMPTS = ["an open left hand", "an open left hand"]


@pytest.mark.parametrize("name", list(made_families.MAKERS))
def test_the_last_block_says_what_the_model_says(name: str, tmp_path: Path):
    made_families.save(name, tmp_path)
    lens = BlockLens(Sampling(load(str(tmp_path)), 3, 3.5, 32, 32))
    said = lens.read(lens.sampling.noise([0, 1]), PROMPTS, 1)
    assert torch.equal(said.velocity(lens.last), said.output)
    assert not torch.allclose(said.velocity(lens.blocks[0]), said.output)
    after = [lens.sampling.model.family.blocks(lens.sampling.model.transformer)[name] for name in lens.blocks]
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in after)


def test_a_block_says_what_the_model_says_without_the_blocks_behind_it(tiny_model):
    """Against a model whose later blocks are gone."""
    sampling = Sampling(tiny_model, 3)
    said = BlockLens(sampling).read(sampling.noise([3]), ["a left hand"], 1)
    blocks = tiny_model.transformer.single_transformer_blocks
    tiny_model.transformer.single_transformer_blocks = blocks[:1]
    try:
        _, output = sampling.step(said.latents, ["a left hand"], 1)
    finally:
        tiny_model.transformer.single_transformer_blocks = blocks
    torch.testing.assert_close(said.velocity("single.0"), output, rtol=1e-5, atol=1e-5)


def test_what_acts_behind_the_last_block_is_refused(tiny_model):
    lens = BlockLens(Sampling(tiny_model, 3))

    def rolled(module, args, output):
        return (output[0].roll(1, 1),)

    handle = tiny_model.transformer.register_forward_hook(rolled)
    try:
        with pytest.raises(HandscopeError, match="something acts between the two"):
            lens.read(lens.sampling.noise([0]), ["a left hand"], 0)
    finally:
        handle.remove()


def test_a_family_that_does_not_say_its_output_layer_is_refused_by_name():
    family = Family(name="Another", transformer="T", lists=(), width="w")
    with pytest.raises(HandscopeError, match="The family Another does not say which modules"):
        family.output_layer(None)


def test_a_translator_is_found_where_there_is_one():
    random = np.random.default_rng(0)
    x = torch.as_tensor(random.normal(size=(4000, 6)) * [1, 1, 2, 2, 1, 1] + 50, dtype=torch.float32)
    weights = torch.as_tensor(random.normal(size=(6, 6)), dtype=torch.float32)
    y = x @ weights + 3
    parts = [TranslatorSums(x[0]) for _ in range(2)]
    for part, rows in zip(parts, (slice(0, 2500), slice(2500, 4000))):
        part.add(x[rows][None], y[rows][None])
    translate = fitted(parts, ridge=1e-9)
    torch.testing.assert_close(translate(x), y, rtol=1e-3, atol=1e-2)
    # The closed form of scikit-learn, of what is added to the stream.
    from sklearn.linear_model import Ridge

    strength = 0.1 * float(x.var(0, unbiased=False).mean()) * len(x)
    reference = Ridge(strength).fit(x.double(), (y - x).double())
    found = fitted(parts, ridge=0.1)
    np.testing.assert_allclose(found(x) - x, reference.predict(x.double()), rtol=1e-3, atol=2e-3)


def test_the_translator_of_the_last_block_changes_nothing():
    x = torch.randn(50, 4)
    sums = TranslatorSums(x[0])
    sums.add(x, x)
    torch.testing.assert_close(fitted([sums])(x), x)
    with pytest.raises(HandscopeError, match="Expected tokens"):
        fitted([TranslatorSums(x[0])])
