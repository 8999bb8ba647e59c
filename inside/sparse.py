"""Sparse autoencoders: a token as a sum of few features, in the files that SAELens reads.

Of each token the `k` largest of many features are kept (top-k, Gao et al. 2024, https://arxiv.org/abs/2406.04093), or
of a batch the largest so that a token has `k` in the mean (batch top-k, Bussmann et al. 2024,
https://arxiv.org/abs/2412.06410), which afterwards is a threshold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from ..errors import HandscopeError
from ..files import atomic, refuse_unusable

KINDS = ("top_k", "batch_top_k")


@dataclass(frozen=True, eq=False)
class SparseCoder:
    """A fitted autoencoder of tokens.

    Attributes
    ----------
    w_enc, b_enc : Tensors of shape (width, features) and (features,), float32
    w_dec, b_dec : Tensors of shape (features, width) and (width,), float32; rows of `w_dec` have length 1
    kind : one of `KINDS`
    k : int, features of a token; in the mean for ``batch_top_k``
    threshold : float, above which a feature of ``batch_top_k`` is kept
    about : dict, what it was fitted to, in plain values
    """

    w_enc: Tensor
    b_enc: Tensor
    w_dec: Tensor
    b_dec: Tensor
    kind: str
    k: int
    threshold: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def features(self) -> int:
        return len(self.b_enc)

    def encode(self, tokens: Tensor) -> Tensor:
        """Activities (..., features) of tokens (..., width): at least 0, and 0 for most."""
        before = (tokens.float() - self.b_dec) @ self.w_enc + self.b_enc
        if self.kind == "batch_top_k":
            return before.relu() * (before > self.threshold)
        values, places = before.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(before).scatter_(-1, places, values.relu())

    def decode(self, activities: Tensor) -> Tensor:
        """Tokens (..., width), float32, of activities (..., features)."""
        return activities @ self.w_dec + self.b_dec

    def __call__(self, tokens: Tensor) -> Tensor:
        """The reconstruction of tokens (..., width), in their dtype."""
        return self.decode(self.encode(tokens)).to(tokens.dtype)

    def save(self, folder: Path) -> None:
        """Write ``cfg.json`` and ``sae_weights.safetensors`` as SAELens writes them.

        >>> SAE.load_from_disk(folder)                                  # doctest: +SKIP
        """
        said = {
            "d_in": self.w_enc.shape[0],
            "d_sae": self.features,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {**self.about, "kind": self.kind, "k": self.k},
        }
        weights = {"W_enc": self.w_enc, "b_enc": self.b_enc, "W_dec": self.w_dec, "b_dec": self.b_dec}
        if self.kind == "batch_top_k":
            said["architecture"] = "jumprelu"
            weights["threshold"] = torch.full_like(self.b_enc, self.threshold)
        else:
            said |= {"architecture": "topk", "k": self.k, "rescale_acts_by_decoder_norm": False}
        with atomic(folder / "sae_weights.safetensors") as temporary:
            save_file({name: tensor.contiguous().cpu() for name, tensor in weights.items()}, temporary)
        with atomic(folder / "cfg.json") as temporary:
            temporary.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> SparseCoder:
        """Read what `save` wrote.

        Raises
        ------
        HandscopeError
            A file is missing or damaged, or is of another architecture of SAELens.
        """
        path = folder / "cfg.json"
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            path = folder / "sae_weights.safetensors"
            weights = load_file(path)
            about = dict(said["metadata"])
            kind, k = about.pop("kind"), about.pop("k")
            threshold = float(weights["threshold"][0]) if kind == "batch_top_k" else 0.0
            w_enc, b_enc, w_dec, b_dec = (weights[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
            return cls(w_enc, b_enc, w_dec, b_dec, kind, k, threshold, about)
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            refuse_unusable(error, path)
            raise HandscopeError(
                f"Expected a sparse autoencoder that handscope wrote in {folder}, and {path.name} is missing, damaged "
                f"or of another kind ({error}): run features again."
            ) from error


RATE = 2e-3
START = 3**-0.5
"""Length of the encoder's first rows: with rows as long as the decoder's, the first reconstructions are too large."""
EVERY = 4
"""The loss of dead features is of every fourth token: the same gradient in the mean, at a quarter of the cost."""
AUXILIARY = 1 / 32
"""How much what dead features make of the rest of a token counts, as in Gao et al."""


def train(
    tokens: Tensor, features: int, k: int, kind: str = "top_k", passes: int = 20, batch: int = 1024, seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> SparseCoder:  # fmt: skip
    """Fit a sparse autoencoder.

    Parameters
    ----------
    tokens : Tensor of shape (n, width)
    features, k : int
        As of `SparseCoder`.
    passes : int
        How often each token is seen.
    seed : of the first weights and the order of tokens

    Raises
    ------
    HandscopeError
        The kind is not known, or there are fewer features than `k`, or no tokens.

    Notes
    -----
    Adam on the mean squared error, in units in which a token has a mean square of 1 about the mean; rows of the decoder
    are kept at length 1. The loss of dead features, which no token has activated in a whole pass, is that of Gao et
    al.: half a width of them reconstruct what the others leave. Decoding, and the gradient of the encoder, take the few
    rows that are active instead of all.
    """
    if kind not in KINDS:
        raise HandscopeError(f"Expected the kind to be {' or '.join(KINDS)}, found {kind!r}.")
    if not 1 <= k <= features or len(tokens) < 2:
        raise HandscopeError(f"Expected tokens, and k from 1 to {features}, found {len(tokens)} tokens and k {k}.")
    torch_state = torch.Generator().manual_seed(seed)
    mean = tokens.float().mean(0)
    scale = (tokens.float() - mean).square().mean().sqrt().clamp(min=1e-12)
    x = (tokens.float() - mean) / scale
    width = x.shape[1]
    start = functional.normalize(torch.randn(features, width, generator=torch_state), dim=1).to(x.device)
    encoder, w_dec = (START * start).requires_grad_(), start.requires_grad_()
    b_enc, b_dec = (torch.zeros(size, device=x.device, requires_grad=True) for size in (features, width))
    optimiser = torch.optim.Adam([encoder, b_enc, w_dec, b_dec], RATE, fused=True)
    batch = min(batch, len(x))
    of_pass = len(x) // batch
    updates = passes * of_pass
    idle = torch.zeros(features, dtype=torch.long, device=x.device)
    for update in range(updates):
        for group in optimiser.param_groups:  # falls over the last fifth
            group["lr"] = RATE * min(1.0, 5 * (1 - update / updates))
        if update % of_pass == 0:
            order = torch.randperm(len(x), generator=torch_state).to(x.device)
        at = update % of_pass * batch
        some = x[order[at : at + batch]]
        values, starts, places = _Encode.apply(some, b_dec, encoder, b_enc, k, kind)
        rest = some - _summed(w_dec, values, places, starts) - b_dec
        loss = rest.square().sum(1).mean()
        active = torch.zeros(features, dtype=torch.bool, device=x.device)
        active[places[values > 0]] = True
        idle = torch.where(active, 0, idle + batch)
        dead = idle > len(x)
        if dead.any():
            few = (some - b_dec.detach())[::EVERY], dead, encoder, b_enc, w_dec, rest.detach()[::EVERY]
            loss = loss + AUXILIARY * _auxiliary(*few)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            w_dec /= w_dec.norm(dim=1, keepdim=True)
    # Back to the units of the tokens: activities grow with them, the rows of the decoder keep their length.
    with torch.no_grad():
        parts = encoder.T.clone(), b_enc * scale, w_dec.clone(), mean + b_dec * scale
        fitted = SparseCoder(*parts, kind, k, 0.0, dict(about or {}))
        if kind == "batch_top_k":
            fitted = replace(fitted, threshold=_threshold(fitted, tokens[order[:CALIBRATED].cpu()]))
    return fitted


CALIBRATED = 16_384
"""Tokens that the threshold of batch top-k is chosen on."""


def _threshold(coder: SparseCoder, tokens: Tensor) -> float:
    """Above which a token has `k` active features in the mean."""
    activities = coder.encode(tokens).flatten()
    many = coder.k * len(tokens)
    return float(activities.kthvalue(len(activities) - many).values) if many < len(activities) else 0.0


class _Encode(torch.autograd.Function):
    """The activities that are kept. Backward, what was not kept costs nothing, where a dense layer takes all of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b_dec: Tensor, encoder: Tensor, b_enc: Tensor, k: int, kind: str) -> Any:
        """Of those kept, one behind another: activities, the place of each token's first, and features."""
        x = x - b_dec
        before = torch.addmm(b_enc, x, encoder.T).relu_()  # first: the largest are found sooner among many zeros
        many = len(x)
        if kind == "top_k":
            values, places = before.topk(k, dim=1, sorted=False)
            values, places = values.flatten(), places.flatten()
            row = torch.arange(many, device=x.device).repeat_interleave(k)
        else:
            values, chosen = before.flatten().topk(k * many, sorted=False)
            chosen, order = chosen.sort()
            values, row, places = values[order], chosen // before.shape[1], chosen % before.shape[1]
        starts = torch.searchsorted(row, torch.arange(many, device=x.device))
        ctx.save_for_backward(x, encoder, values, row, places)
        ctx.mark_non_differentiable(starts, places)
        return values, starts, places

    @staticmethod
    def backward(ctx: Any, given: Tensor, _starts: Tensor, _places: Tensor) -> Any:
        x, encoder, values, row, places = ctx.saved_tensors
        given = given * (values > 0)
        # Feature by feature, the sum of the tokens that it was kept of.
        order = places.argsort()
        count = places.bincount(minlength=len(encoder))
        of_encoder = _summed(x, given[order], row[order], count.cumsum(0) - count)
        of_bias = torch.zeros_like(encoder[:, 0]).index_add_(0, places, given)
        return None, -(of_bias @ encoder), of_encoder, of_bias, None, None


def _summed(rows: Tensor, weights: Tensor, places: Tensor, starts: Tensor) -> Tensor:
    """Chosen rows, weighted and summed group by group; `starts` has the place of each group's first."""
    return functional.embedding_bag(places, rows, starts, mode="sum", per_sample_weights=weights)


def _auxiliary(
    x: Tensor, dead: Tensor, encoder: Tensor, b_enc: Tensor, w_dec: Tensor, rest: Tensor
) -> Tensor:
    """The error of what dead features make of the rest, the largest half width of them."""
    of = dead.nonzero()[:, 0]
    few = min(max(x.shape[1] // 2, 1), len(of))
    values, places = torch.addmm(b_enc[of], x, encoder[of].T).topk(few, dim=1, sorted=False)
    starts = torch.arange(0, places.numel(), few, device=x.device)
    made = _summed(w_dec, values.relu().flatten(), of[places].flatten(), starts)
    return (made - rest).square().sum(1).mean()
