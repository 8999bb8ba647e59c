"""Sparse autoencoders: their gradients against dense ones, their files, and features that are there to be found."""

import json
from pathlib import Path

import pytest
import torch
from handscope.errors import HandscopeError
from handscope.inside.sparse import KINDS, SparseCoder, _auxiliary, _Encode, _summed, train
from safetensors.torch import load_file


def made(many: int = 4000, width: int = 16, features: int = 24, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens that are sums of two or so of `features` directions, about a mean; and the directions."""
    random = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(features, width, generator=random), dim=1)
    active = torch.rand(many, features, generator=random) < 2 / features
    sizes = 1 + torch.rand(many, features, generator=random)
    return (active * sizes) @ directions + 3.0, directions


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_a_dense_autoencoder(kind: str):
    x, start = made(32)
    w_dec = start.clone().double().requires_grad_()
    encoder = torch.randn(24, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    b_enc, b_dec = torch.full((24,), 0.1).double().requires_grad_(), torch.full((16,), 0.2).double().requires_grad_()
    parameters = [encoder, b_enc, w_dec, b_dec]
    x = x.double()
    values, starts, places = _Encode.apply(x, b_dec, encoder, b_enc, 3, kind)
    loss = (x - _summed(w_dec, values, places, starts) - b_dec).square().sum(1).mean()
    found = torch.autograd.grad(loss, parameters)
    before = ((x - b_dec) @ encoder.T + b_enc).relu()
    if kind == "top_k":
        kept = torch.zeros_like(before).scatter(1, before.topk(3, dim=1).indices, 1.0)
    else:
        kept = (before >= before.flatten().topk(3 * len(x)).values.min()).double()
    slow = (x - (before * kept) @ w_dec - b_dec).square().sum(1).mean()
    torch.testing.assert_close(loss, slow)
    for one, other in zip(found, torch.autograd.grad(slow, parameters), strict=True):
        torch.testing.assert_close(one, other)


def test_dead_features_learn_what_the_others_leave():
    x, w_dec = made(40)
    encoder, b_enc, dead = w_dec.clone().requires_grad_(), torch.zeros(24), torch.zeros(24, dtype=torch.bool)
    dead[[3, 7, 20]] = True
    rest = torch.randn(40, 16, generator=torch.Generator().manual_seed(2))
    loss = _auxiliary(x, dead, encoder, b_enc, w_dec, rest)
    activities = (x @ encoder[dead].T).relu()  # there are fewer than half a width
    torch.testing.assert_close(loss, (activities @ w_dec[dead] - rest).square().sum(1).mean())
    of = torch.autograd.grad(loss, encoder)[0].abs().sum(1) > 0
    assert of[dead].all() and not of[~dead].any()


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_are_there_are_found(kind: str):
    x, directions = made()
    coder = train(x, 24, 2, kind, passes=40, batch=256)
    held, _ = made(1000)
    explained = 1 - float((coder(held) - held).square().sum() / (held - held.mean(0)).square().sum())
    assert explained > 0.75  # tokens with three or more cannot be
    best = (coder.w_dec @ directions.T).amax(0)
    assert (best > 0.9).float().mean() > 0.8
    torch.testing.assert_close(coder.w_dec.norm(dim=1), torch.ones(24))
    active = (coder.encode(x) > 0).sum(1).float().mean()
    assert 1 < active <= 2.05
    again = train(x, 24, 2, kind, passes=2, batch=256, seed=5)
    other = train(x, 24, 2, kind, passes=2, batch=256, seed=5)
    assert torch.equal(again.w_enc, other.w_enc) and again.threshold == other.threshold


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_those_of_saelens(kind: str, tmp_path: Path):
    """As SAELens 6.54 reads them, with its formulas: TopKSAE and JumpReLUSAE."""
    x, _ = made(200)
    coder = train(x, 24, 2, kind, passes=3, batch=50, about={"block": "single.1"})
    coder.save(tmp_path)
    said, weights = json.loads((tmp_path / "cfg.json").read_text()), load_file(tmp_path / "sae_weights.safetensors")
    before = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    if said["architecture"] == "topk":
        values, places = before.topk(said["k"], dim=-1)
        activities = torch.zeros_like(before).scatter_(-1, places, values.relu())
    else:
        assert said["architecture"] == "jumprelu"
        activities = before.relu() * (before > weights["threshold"])
    torch.testing.assert_close(coder.encode(x), activities)
    torch.testing.assert_close(coder(x), activities @ weights["W_dec"] + weights["b_dec"])
    again = SparseCoder.load(tmp_path)
    assert torch.equal(again(x), coder(x)) and again.about == {"block": "single.1"} and again.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_saelens_reads_them(kind: str, tmp_path: Path):
    sae_lens = pytest.importorskip("sae_lens", reason="SAELens needs thirty packages, and the tests do without")
    x, _ = made(200)
    coder = train(x, 24, 2, kind, passes=3, batch=50)
    coder.save(tmp_path)
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path))
    torch.testing.assert_close(theirs.encode(x), coder.encode(x))
    torch.testing.assert_close(theirs(x), coder(x))


def test_what_cannot_be_fitted_or_read_is_refused(tmp_path: Path):
    x, _ = made(20)
    for settings, words in (({"kind": "gated"}, "kind to be top_k"), ({"k": 25}, "k from 1 to 24")):
        with pytest.raises(HandscopeError, match=words):
            train(x, 24, **{"k": 2} | settings)
    with pytest.raises(HandscopeError, match=r"cfg.json is missing, damaged"):
        SparseCoder.load(tmp_path)
