"""The deepest block of a replay computes only what is read of it.

Few of its linear layers mix tokens or feed one that does: the others are needed at the tokens that are read and nowhere
else. A product of fewer rows may round otherwise, though: in the first forward a layer computes both, and where a bit
differs it computes every row ever after. From forward to forward only values change, not shapes, by which the libraries
choose how they multiply; so what held once holds again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from .hooks import Index


@contextmanager
def only_rows(layers: Sequence[tuple[nn.Module, Index]]) -> Iterator[None]:
    """Let linear layers compute the wanted rows of their output, and leave the others 0.

    Layers that are quantised, adapted, hooked or offloaded are left as they are.

    Parameters
    ----------
    layers : sequence of (module, index)
        `index` selects rows of a layer's input of shape (batch, tokens, width).
    """
    plain = [(layer, index) for layer, index in layers if isinstance(layer, nn.Linear) and _is_plain(layer)]
    for layer, index in plain:
        vars(layer)["forward"] = _Rows(layer, index)
    try:
        yield
    finally:
        for layer, _ in plain:
            del vars(layer)["forward"]


class _Rows:
    def __init__(self, layer: nn.Linear, index: Index) -> None:
        self.layer, self.index = layer, index
        self.same: bool | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.same is False:
            return functional.linear(x, self.layer.weight, self.layer.bias)
        rows = functional.linear(x[self.index], self.layer.weight, self.layer.bias)
        if self.same is None:
            whole = functional.linear(x, self.layer.weight, self.layer.bias)
            self.same = torch.equal(rows, whole[self.index])
            return whole
        output = rows.new_zeros(*x.shape[:-1], self.layer.out_features)
        output[self.index] = rows
        return output


def _is_plain(layer: nn.Linear) -> bool:
    hooked = layer._forward_hooks or layer._forward_pre_hooks or layer._compiled_call_impl or "forward" in vars(layer)
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and not hooked
