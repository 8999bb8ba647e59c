"""Moments and scatters: exact to merge in any order, and stable where the textbook formula is not."""

import numpy as np
import pytest
import torch
from handscope.analysis import Moments
from handscope.analysis.moments import coarse_channels
from handscope.analysis.scatter import Scatter, stream_moments
from handscope.analysis.subject_tokens import SubjectTokens
from handscope.errors import HandscopeError
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=6), st.randoms(use_true_random=False), st.integers(0, 2**32 - 1)
)
def test_parts_merge_to_the_whole_in_any_order(sizes, random, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(rng.normal(0, 100), 3, (size, 4)) for size in sizes]
    whole = np.concatenate(parts)
    random.shuffle(parts)
    while len(parts) > 1:
        first, second = parts.pop(random.randrange(len(parts))), parts.pop(random.randrange(len(parts)))
        merged = (first if isinstance(first, Moments) else Moments.of(first)) + (
            second if isinstance(second, Moments) else Moments.of(second)
        )
        parts.insert(random.randrange(len(parts) + 1), merged)
    found = parts[0] if isinstance(parts[0], Moments) else Moments.of(parts[0])
    assert found.count == len(whole)
    if len(whole):
        np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found.m2, whole.var(0) * len(whole), rtol=1e-9, atol=1e-9)


def test_a_massive_channel_keeps_its_variance():
    x = np.random.default_rng(0).normal(0, 10, (4000, 2)) + [6000, 0]
    x = x.astype(np.float32)
    exact = x.astype(np.float64).var(0)
    parts = sum((Moments.of(part) for part in np.array_split(x, 7)[1:]), Moments.of(np.array_split(x, 7)[0]))
    np.testing.assert_allclose(parts.variance, exact, rtol=1e-9)
    pooled = Moments.by(x, np.arange(len(x)) % 50, 50).pool(np.ones(50))
    np.testing.assert_allclose(pooled.variance, exact, rtol=1e-9)
    naive = np.square(x).mean(0) - np.square(x.mean(0))
    assert abs(naive[0] / exact[0] - 1) > 1e-3


@pytest.mark.parametrize("mean, sd", [(3000, 300), (3000, 30), (6000, 10), (0, 1)])
def test_bfloat16_channels_far_from_zero_against_the_exact_reference(mean, sd):
    noise = torch.from_numpy(np.random.default_rng(1).normal(mean, sd, (6000, 5)))
    x = noise.to(torch.bfloat16).float().numpy()
    # bfloat16 values times 2^8 are whole numbers here, and whole numbers of Python are exact.
    exact = [
        float(len(x) * sum(v * v for v in column) - sum(column) ** 2) / len(x) ** 2 / 2**40
        for column in ([int(v) for v in np.float64(x[:, k]) * 2**20] for k in range(5))
    ]
    index = np.random.default_rng(2).integers(0, 40, len(x))
    found, scatters = stream_moments(chunks(x, 700), index, 40, np.zeros(len(x), int))
    np.testing.assert_allclose(found.pool(np.ones(40)).variance, exact, rtol=1e-10)
    np.testing.assert_allclose(scatters[0].moments.variance, exact, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_pooling_by_weights_is_repeating_the_samples(seed, n):
    rng = np.random.default_rng(seed)
    index = np.concatenate([np.arange(n), rng.integers(0, n, 20)])
    x = rng.normal(50, 1, (len(index), 3))
    weights = rng.integers(0, 3, n)
    weights[rng.integers(n)] = 1
    repeated = np.concatenate([x[np.repeat(np.flatnonzero(index == k), weights[k])] for k in range(n)])
    pooled = Moments.by(x, index, n).pool(weights[None])
    assert pooled.count[0] == len(repeated)
    np.testing.assert_allclose(pooled.mean[0], repeated.mean(0), rtol=1e-10)
    np.testing.assert_allclose(pooled.m2[0], repeated.var(0) * len(repeated), rtol=1e-7, atol=1e-9)


def test_a_set_without_tokens_has_count_zero_and_changes_nothing():
    x = np.random.default_rng(0).normal(size=(6, 2))
    found = Moments.by(x, [0, 0, 2, 2, 2, 2], 3)
    assert found.count.tolist() == [2, 0, 4]
    np.testing.assert_allclose(found.mean[2], x[2:].mean(0))
    np.testing.assert_allclose(found.pool([1, 5, 1]).mean, x.mean(0))


def test_a_row_of_minus_one_is_left_out():
    x = np.arange(12.0).reshape(6, 2)
    found = Moments.by(x, [1, -1, 0, 1, -1, 0], 2)
    assert found.count.tolist() == [2, 2]
    np.testing.assert_allclose(found.mean, [x[[2, 5]].mean(0), x[[0, 3]].mean(0)])


@given(st.floats(-6e4, 6e4, width=32), st.integers(1, 400))
def test_a_constant_channel_has_variance_zero_exactly(value, n):
    x = np.full((n, 2), value, np.float32)
    found = Moments.by(x, np.arange(n) % 3, 3)
    assert (found.m2 == 0).all()
    assert (found.mean[found.count > 0] == np.float32(value)).all()


def test_widths_that_differ_are_refused():
    with pytest.raises(HandscopeError, match="widths must agree"):
        Moments.of(np.ones((2, 3))) + Moments.of(np.ones((2, 4)))
    with pytest.raises(HandscopeError, match="width 3 .* one of 4"):
        stream_moments([(np.ones((2, 3)), np.arange(2)), (np.ones((2, 4)), np.arange(2))], np.zeros(2, int), 1)


def chunks(x, rows, seed=None):
    """Chunks as a store gives them; with a seed, tokens in another order."""
    order = np.arange(len(x)) if seed is None else np.random.default_rng(seed).permutation(len(x))
    for start in range(0, len(x), rows):
        yield x[order[start : start + rows]], order[start : start + rows]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("tensors", [False, True])
def test_one_pass_is_the_plain_computation(seed, tensors):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(5000, 6)) @ rng.normal(size=(6, 6)) + [0, 3000, 0, 5, 0, 0]).astype(np.float32)
    index, classes = rng.integers(-1, 30, len(x)), rng.integers(-1, 2, len(x))
    moments, scatters = stream_moments(chunks(x, 900, seed), index, 30, classes, device="cpu" if tensors else None)
    exact = x.astype(np.float64)
    for one in range(30):
        np.testing.assert_allclose(moments.mean[one], exact[index == one].mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.variance[one], exact[index == one].var(0), rtol=1e-9)
    for one in (0, 1):
        expected = np.cov(exact[classes == one], rowvar=False)
        np.testing.assert_allclose(scatters[one].covariance, expected, rtol=0, atol=2e-6 * expected.max())
        np.testing.assert_allclose(scatters[one].mean, exact[classes == one].mean(0), rtol=1e-6, atol=1e-6)


def test_tensors_of_bfloat16_are_read_as_they_are():
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16) * 7 + 900
    np.testing.assert_array_equal(Moments.of(x).m2, Moments.of(x.float().numpy()).m2)
    np.testing.assert_allclose(Scatter.of(x).covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-5, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=5).filter(any), st.integers(0, 2**32 - 1))
def test_scatters_merge_to_the_whole(sizes, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(rng.normal(0, 100), 3, (size, 3)) for size in sizes if size]
    merged = Scatter.of(parts[0])
    for part in parts[1:]:
        merged = Scatter.of(part) + merged
    x = np.concatenate(parts)
    np.testing.assert_allclose(merged.mean, x.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.scatter, (x - x.mean(0)).T @ (x - x.mean(0)), rtol=1e-7, atol=1e-7)


def test_saved_parts_of_two_machines_merge_to_the_same_bits(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3))
    index = np.arange(40) % 4
    for name, part in (("a", x[:17]), ("b", x[17:])):
        Moments.by(part, index[: len(part)], 4).save(tmp_path / f"{name}.safetensors")
        Scatter.of(part).save(tmp_path / f"{name}_scatter.safetensors")
    direct = Moments.by(x[:17], index[:17], 4) + Moments.by(x[17:], index[:23], 4)
    loaded = Moments.load(tmp_path / "a.safetensors") + Moments.load(tmp_path / "b.safetensors")
    for name in ("count", "mean", "m2"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(direct, name))
    whole = Scatter.load(tmp_path / "a_scatter.safetensors") + Scatter.load(tmp_path / "b_scatter.safetensors")
    np.testing.assert_allclose(whole.covariance, np.cov(x, rowvar=False), rtol=1e-12)
    with pytest.raises(HandscopeError, match="does not hold a scatter"):
        Scatter.load(tmp_path / "a.safetensors")
    with pytest.raises(HandscopeError, match="is missing"):
        Moments.load(tmp_path / "c.safetensors")


def test_channels_below_the_bfloat16_spacing_are_named_with_their_reason():
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal([6000, 6000, 1, 5, 0], [10, 300, 0.2, 0, 1e-4], (4000, 5))).to(torch.bfloat16)
    found = coarse_channels(Moments.of(x))
    assert list(found) == [0]
    assert "spacing 32 at its mean 6" in found[0]
    assert x[:, 0].double().var() > 1.5 * 10**2


class Cells:
    """A store of one cell with chunks of three rows, to read the tokens of."""

    def __init__(self, x, tokens):
        self.x, self.tokens, self.width, self.unstored = x, tokens, x.shape[1], {}

    def chunks(self, block, step, rows=3, where=None):
        for start in range(0, len(where), rows):
            yield self.x[where[start : start + rows]], where[start : start + rows]


@pytest.fixture
def hands():
    import pandas as pd

    rng = np.random.default_rng(0)
    tokens = pd.DataFrame({"sample": list("aaabbbbbccdd"), "instance": [1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0]})
    x = rng.normal(size=(12, 4)).astype(np.float32)
    x[:, 2] = 7
    return SubjectTokens(Cells(x, tokens), ["d", "c", "a", "b"]), x, tokens


def test_hand_tokens_are_summed_up_chunk_by_chunk(hands):
    from handscope.extract.address import Block, Cell

    hands, x, tokens = hands
    assert hands.samples == ["c", "a", "b"]
    moments, norms = hands.read(Cell(Block.parse("double.0"), 3))
    for k, sample in enumerate(hands.samples):
        own = x[(tokens["sample"] == sample) & (tokens["instance"] > 0)].astype(np.float64)
        np.testing.assert_allclose(moments.mean[k], own.mean(0))
        np.testing.assert_allclose(moments.variance[k], own.var(0), atol=1e-15)
        np.testing.assert_allclose(norms[k], np.linalg.norm(own, axis=1).mean())
    assert (moments.m2[:, 2] == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_name_the_cell_and_their_number(hands, value):
    from handscope.extract.address import Block, Cell

    hands, x, _ = hands
    x[[0, 9], 1] = value
    x[2, 1] = value
    with pytest.raises(HandscopeError, match="double.0 at step 3 .* in 2 of 8 tokens"):
        hands.read(Cell(Block.parse("double.0"), 3))
