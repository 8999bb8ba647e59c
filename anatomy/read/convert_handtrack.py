"""From Handtrack.js's package to the weights that are shipped here.

    python -m handscope.anatomy.read.convert_handtrack PACKAGE

reads the small ssd320fpnlite out of the npm package handtrackjs 0.1.5 (its .tgz, or the folder it unpacks to), checks
that it is the file this was written for, and writes one safetensors file: the bytes that the source holds, and the
graph, with the scale of each tensor's bytes, as JSON in the metadata (graph.py says what it may contain). What follows
the two heads of the network (anchors, suppression) is in handtrack.py.
"""

from __future__ import annotations

import argparse
import base64
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ...errors import HandscopeError
from ...files import atomic, sha256
from .convert import _same
from .graph import WEIGHTS
from .handtrack import SIDE

PACKAGE = "handtrackjs 0.1.5"
FOLDER = "models/webmodel/ssd320fpnlite/int8"
SOURCES = {
    "model.json": "99d3a526710d01650b60a650c10836d42804b57a76dd8f09411bdc7c43873fcd",
    "group1-shard1of1.bin": "70164f725aefbbf8094a8ef4150dc10e906b6f0976b484ef8ec882d3eae4b812",
}
PICTURES = "StatefulPartitionedCall/map/TensorArrayV2Stack/TensorListStack"  # what the network itself is given
HEADS = ("StatefulPartitionedCall/concat", "StatefulPartitionedCall/concat_1")  # boxes and classes, raw


def convert(source: str | Path, folder: str | Path = WEIGHTS) -> Path:
    """Write the detector of the npm package into `folder`.

    Raises
    ------
    HandscopeError
        A file is missing, or is another than the one that this was written for.
    """
    nodes, tensors, scales = translate(*read_sources(source))
    described = {
        "source": f"ssd320fpnlite (int8) of {PACKAGE}, MIT",
        "sha256": SOURCES["group1-shard1of1.bin"],
        "outputs": list(HEADS),
        "bytes": scales,
        "nodes": nodes,
    }
    path = Path(folder) / "handtrack.safetensors"
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"graph": json.dumps(described, separators=(",", ":"))})
    return path


def read_sources(source: str | Path) -> tuple[dict[str, Any], bytes]:
    """The model and the bytes of its weights, each file checked by its hash."""
    source = Path(source)
    found: dict[str, bytes] = {}
    if source.is_dir():
        found = {path.name: path.read_bytes() for path in source.rglob("*") if FOLDER in path.as_posix()}
    elif source.is_file() and tarfile.is_tarfile(source):
        with tarfile.open(source) as package:
            for member in package.getmembers():
                if FOLDER in member.name and (file := package.extractfile(member)):
                    found[Path(member.name).name] = file.read()
    for name, expected in SOURCES.items():
        if name not in found or sha256(found[name]) != expected:
            raise HandscopeError(
                f"{source} holds no {FOLDER}/{name} with the SHA-256 {expected}: npm pack handtrackjs@0.1.5 has it."
            )
    return json.loads(found["model.json"]), found["group1-shard1of1.bin"]


def translate(
    model: dict[str, Any], data: bytes
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor], dict[str, list[float]]]:
    """Nodes and tensors in the form of graph.py, and the scale and the least value of each tensor's bytes."""
    source = _Source(model, data)
    for head in HEADS:
        source.visit(head)
    return source.nodes, source.tensors, source.scales


class _Source:
    """A TensorFlow.js graph while it is read, from its outputs back to the pictures.

    Attributes
    ----------
    weights : name -> bytes in their shape, scale, least value
    sides : name of a tensor -> its height and width, as far as it has them
    """

    def __init__(self, model: dict[str, Any], data: bytes) -> None:
        self.operations = {node["name"]: node for node in model["modelTopology"]["node"]}
        self.weights: dict[str, tuple[np.ndarray, float, float]] = {}
        at = 0
        for one in model["weightsManifest"][0]["weights"]:
            packed = one.get("quantization", {})
            dtype = np.dtype(packed.get("dtype", one["dtype"]))
            count = int(np.prod(one["shape"], dtype=int))
            values = np.frombuffer(data, dtype, count, at).reshape(one["shape"])
            at += values.nbytes
            self.weights[one["name"]] = values, packed.get("scale", 1.0), packed.get("min", 0.0)
        self.sides: dict[str, int] = {PICTURES: SIDE}
        self.nodes: list[dict[str, Any]] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self.scales: dict[str, list[float]] = {}

    def visit(self, name: str) -> None:
        """Add what makes a tensor, after what makes its inputs."""
        if name in self.sides:
            return
        operation = self.operations[name]
        kind, inputs = operation["op"], [one for one in operation["input"] if not one.startswith("^")]
        if kind in ("_FusedConv2D", "FusedDepthwiseConv2dNative", "DepthwiseConv2dNative"):
            self._convolution(name, operation, inputs, depthwise=kind != "_FusedConv2D")
        elif kind == "AddV2":
            self._add(name, "add", inputs, 1)
        elif kind == "Reshape" and "nearest_neighbor_upsampling" in name:
            # Each row and column twice: two stackings and a reshape there.
            first = self.operations[inputs[0]]["input"][0]
            self._add(name, "double", [self.operations[first]["input"][0]], 2)
        elif kind == "Reshape":
            self._add(name, "rows", inputs[:1], 0, width=int(self.weights[inputs[1]][0][-1]))
        elif kind == "ConcatV2":
            self._add(name, "concat", inputs[:-1], 0)
        else:
            raise HandscopeError(f"The operation {kind} of {name} is not one that graph.py knows.")

    def _add(self, name: str, kind: str, inputs: list[str], larger: int, **rest: Any) -> None:
        for one in inputs:
            self.visit(one)
        self.nodes.append({"op": kind, "in": inputs, "out": name, **rest})
        self.sides[name] = larger * self.sides[inputs[0]]

    def _convolution(self, name: str, operation: dict[str, Any], inputs: list[str], depthwise: bool) -> None:
        self.visit(inputs[0])
        attributes = operation["attr"]
        fused = [base64.b64decode(one) for one in attributes.get("fused_ops", {}).get("list", {}).get("s", [])]
        stride = int(attributes["strides"]["list"]["i"][1])
        # (height, width, in, out) there, and (height, width, channel, 1) of its depthwise form
        weight = self._keep(inputs[1], (2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        out, _, kernel, _ = self.tensors[weight].shape
        bias = self._keep(inputs[2]) if len(inputs) > 2 else self._zeros(out)
        side = self.sides[inputs[0]]
        pad = _same(side, kernel, stride) if base64.b64decode(attributes["padding"]["s"]) == b"SAME" else (0, 0)
        self.nodes.append(
            {
                "op": "conv",
                "in": inputs[:1],
                "out": name,
                "weight": weight,
                "bias": bias,
                "stride": stride,
                "pad": [*pad, *pad],
                "groups": out if depthwise else 1,
                "relu6": b"Relu6" in fused,
            }
        )
        self.sides[name] = (side + sum(pad) - kernel) // stride + 1

    def _keep(self, name: str, order: tuple[int, ...] = (0,)) -> str:
        """Keep the bytes of a tensor under a number; the heads of all grids share theirs."""
        values, scale, least = self.weights[name]
        number = str(list(self.weights).index(name))
        self.tensors[number] = torch.from_numpy(values.transpose(order).copy())
        self.scales[number] = [scale, least]
        return number

    def _zeros(self, length: int) -> str:
        self.tensors[f"zeros{length}"] = torch.zeros(length)
        return f"zeros{length}"


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help=f"the .tgz of {PACKAGE}, or the folder that it unpacks to")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder to write to (default: the package's own)")
    arguments = parser.parse_args()
    path = convert(arguments.source, arguments.out)
    print(f"{path}  {sha256(path)}")


if __name__ == "__main__":
    main()
