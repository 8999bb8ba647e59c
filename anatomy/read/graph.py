"""A small feed-forward network that is data: a list of nodes and the tensors they use.

    graph = Graph.load(WEIGHTS / "palm_full.safetensors")
    boxes, scores = graph(pictures)

A node is ``{"op": name, "in": [names], "out": name, ...}``; `OPERATIONS` lists the kinds and what else each
takes. The file holds no code, and reading it runs none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).parents[1] / "weights"
Node = dict[str, Any]


class Graph(nn.Module):
    """Runs the nodes in their order; differentiable, for any batch size and floating type (``.double()``).

    Parameters
    ----------
    nodes : list of dict. The first node's first input is the network's input.
    outputs : names of the tensors that `forward` returns, in order
    tensors : by the name that nodes use, float
    """

    def __init__(self, nodes: list[Node], outputs: list[str], tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.nodes, self.outputs = nodes, outputs
        self.input = nodes[0]["in"][0]
        for name, tensor in tensors.items():
            # Four-dimensional weights lie channels last, which is what the CPU's convolutions want.
            tensor = tensor.float()
            self.register_buffer(
                f"t{name}", tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
            )
        last = {name: i for i, node in enumerate(nodes) for name in node["in"]}
        self._done_with = [[name for name, at in last.items() if at == i] for i in range(len(nodes))]

    @classmethod
    def load(cls, path: str | Path) -> Graph:
        """A graph from a safetensors file whose metadata hold the nodes as JSON."""
        with safe_open(path, "pt") as file:
            described = json.loads(file.metadata()["graph"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, (scale, least) in described.get("bytes", {}).items():  # stored as bytes: the numbers are these
            tensors[name] = tensors[name].float() * scale + least
        return cls(described["nodes"], described["outputs"], tensors)

    def forward(self, x: Tensor, outputs: list[str] | None = None) -> list[Tensor]:
        """The outputs for a batch (n, channels, height, width), or the tensors called `outputs`, and no more than they
        need.
        """
        outputs = self.outputs if outputs is None else outputs
        held = {self.input: x.contiguous(memory_format=torch.channels_last)}
        kept = {self.input, *outputs}
        for node, done in zip(self.nodes, self._done_with):
            first, *others = (held[name] for name in node["in"])
            spare = node["in"][0] in done and node["in"][0] not in kept and not torch.is_grad_enabled()
            if node["op"] == "add" and spare:  # in place: to fetch new memory takes as long as to add
                held[node["out"]] = first.add_(*others)
            else:
                held[node["out"]] = OPERATIONS[node["op"]](self, node, first, *others)
            for name in done:
                if name not in outputs:
                    del held[name]
            if node["out"] in outputs and all(name in held for name in outputs):
                break
        return [held[name] for name in outputs]

    def _tensor(self, name: str) -> Tensor:
        return self.get_buffer(f"t{name}")


def _conv(graph: Graph, node: Node, x: Tensor) -> Tensor:
    left, right, top, bottom = node["pad"]
    weight, bias = graph._tensor(node["weight"]), graph._tensor(node["bias"])
    if left == right and top == bottom:
        x = F.conv2d(x, weight, bias, node["stride"], (top, left), groups=node["groups"])
    else:
        x = F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, node["stride"], groups=node["groups"])
    return F.relu6(x, inplace=True) if node["relu6"] else x  # nobody else holds x


def _rows(graph: Graph, node: Node, x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, node["width"])


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "conv": _conv,  # weight (out, in / groups, h, w), bias, stride, pad [left, right, top, bottom], groups, relu6
    "prelu": lambda graph, node, x: F.prelu(x, graph._tensor(node["weight"])),  # weight (channels,)
    "add": lambda graph, node, a, b: a + b,
    "max_pool": lambda graph, node, x: F.max_pool2d(x, node["size"]),
    "pad_channels": lambda graph, node, x: F.pad(x, (0, 0, 0, 0, 0, node["channels"])),
    "resize": lambda graph, node, x: F.interpolate(x, node["size"], mode="bilinear", align_corners=False),
    "double": lambda graph, node, x: F.interpolate(x, scale_factor=2.0, mode="nearest"),
    "rows": _rows,  # (n, c, h, w) -> (n, h * w * c / width, width), a place's channels together
    "concat": lambda graph, node, *x: torch.cat(x, 1),
    "mean": lambda graph, node, x: x.mean((2, 3)),
    "linear": lambda graph, node, x: F.linear(x, graph._tensor(node["weight"]), graph._tensor(node["bias"])),
    "sigmoid": lambda graph, node, x: torch.sigmoid(x),
}
