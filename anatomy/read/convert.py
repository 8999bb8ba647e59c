"""From MediaPipe's tflite files to the weights that are shipped here.

    python -m handscope.anatomy.read.convert WHEEL_OR_FOLDER

reads the four networks out of the mediapipe 0.10.21 wheel, or out of a folder that holds the four files, checks that
they are the files this was written for, and writes one safetensors file a network: float16 tensors, which is what the
sources hold, and the graph as JSON in the metadata (graph.py says what it may contain). Needs the PyPI package
`tflite`, which only reads the format.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from ...errors import HandscopeError
from ...files import atomic, sha256
from .graph import WEIGHTS

# What each network is called here, the name of its source, and the source's SHA-256.
SOURCES = {
    "palm_full": ("palm_detection_full.tflite", "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54"),
    "palm_lite": ("palm_detection_lite.tflite", "e9a4aaddf90dda56a87235303cf00e4c2d3fb28725f68fd88772997dac905c18"),
    "landmarks_full": ("hand_landmark_full.tflite", "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"),
    "landmarks_lite": ("hand_landmark_lite.tflite", "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6"),
}
WHEEL = "mediapipe 0.10.21"


def convert(source: str | Path, folder: str | Path = WEIGHTS) -> list[Path]:
    """Write the four networks of a mediapipe wheel, or of a folder of tflite files, into `folder`.

    Raises
    ------
    HandscopeError
        A file is missing, or is another than the one that the names of tensors and outputs were read from.
    """
    written = []
    for name, data in read_sources(source).items():
        nodes, tensors, outputs = translate(data)
        path = Path(folder) / f"{name}.safetensors"
        file, hashed = SOURCES[name]
        described = {"source": f"{file} of {WHEEL}, Apache-2.0", "sha256": hashed, "outputs": outputs, "nodes": nodes}
        with atomic(path) as temporary:
            # One entry only: safetensors writes several in an order of its own, another each time.
            save_file(tensors, temporary, {"graph": json.dumps(described, separators=(",", ":"))})
        written.append(path)
    return written


def read_sources(source: str | Path) -> dict[str, bytes]:
    """The bytes of the four tflite files, by the name that their networks have here, each checked by its hash."""
    source = Path(source)
    if source.is_dir():
        paths = {path.name: path for path in sorted(source.rglob("*.tflite"), reverse=True)}
        sources = {name: paths[file].read_bytes() for name, (file, _) in SOURCES.items() if file in paths}
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as wheel:
            members = {Path(member).name: member for member in wheel.namelist()}
            sources = {name: wheel.read(members[file]) for name, (file, _) in SOURCES.items() if file in members}
    else:
        raise HandscopeError(f"Expected the {WHEEL} wheel or a folder of its tflite files, found neither at {source}.")
    for name, (file, expected) in SOURCES.items():
        if name not in sources:
            raise HandscopeError(f"{source} holds no {file}; take the {WHEEL} wheel, which does.")
        if sha256(sources[name]) != expected:
            raise HandscopeError(
                f"{file} in {source} has the SHA-256 {sha256(sources[name])}, not {expected}; take it from {WHEEL}."
            )
    return sources


def translate(data: bytes) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor], list[str]]:
    """The nodes, tensors and output names of one tflite file, in the form of graph.py.

    Channels come first here, as torch has them; what tflite calls SAME padding is written out, since it is one wider
    at the far side where the stride is 2.
    """
    try:
        import tflite  # type: ignore[import-untyped]
    except ImportError as error:
        raise HandscopeError("Reading tflite files needs the package tflite: pip install tflite.") from error

    source = _Source(tflite, data)
    nodes: list[dict[str, Any]] = []
    for i in range(source.graph.OperatorsLength()):
        operator = source.graph.Operators(i)
        inputs, output = [int(index) for index in operator.InputsAsNumpy()], int(operator.Outputs(0))
        kind = source.kind(operator)
        if kind == "DEQUANTIZE":
            source.stored[output] = inputs[0]
        else:
            node: dict[str, Any] = {"in": [str(inputs[0])], "out": str(output)}
            nodes.append(node | _node(source, kind, operator, inputs, output))
    return nodes, source.tensors, [str(int(index)) for index in source.graph.OutputsAsNumpy()]


class _Source:
    """One tflite file while it is read.

    Attributes
    ----------
    stored : the float32 output of a DEQUANTIZE -> the float16 tensor that holds its values
    tensors : what nodes keep, by name
    """

    def __init__(self, tflite: Any, data: bytes) -> None:
        self.tflite = tflite
        self.model = tflite.Model.GetRootAsModel(data, 0)
        self.graph = self.model.Subgraphs(0)
        self.names = {value: key for key, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
        kinds = tflite.TensorType
        self.dtypes: dict[int, Any] = {
            kinds.FLOAT16: np.float16,
            kinds.FLOAT32: np.float32,
            kinds.INT32: np.int32,
        }
        self.stored: dict[int, int] = {}
        self.tensors: dict[str, torch.Tensor] = {}

    def kind(self, operator: Any) -> str:
        code = self.model.OperatorCodes(operator.OpcodeIndex())
        return self.names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]

    def shape(self, index: int) -> list[int]:
        return [int(length) for length in self.graph.Tensors(index).ShapeAsNumpy()]

    def values(self, index: int) -> np.ndarray:
        index = self.stored.get(index, index)
        tensor = self.graph.Tensors(index)
        raw = self.model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        return np.frombuffer(raw, self.dtypes[tensor.Type()]).reshape(self.shape(index))

    def keep(self, index: int, array: np.ndarray | None = None) -> str:
        """Keep the values of a tensor, or `array` in their place, under the name that is returned."""
        name = str(self.stored.get(index, index))
        self.tensors[name] = torch.from_numpy((self.values(index) if array is None else array).copy())
        return name

    def options(self, operator: Any, kind: str) -> Any:
        read, table = getattr(self.tflite, kind)(), operator.BuiltinOptions()
        read.Init(table.Bytes, table.Pos)
        return read


def _node(source: _Source, kind: str, operator: Any, inputs: list[int], output: int) -> dict[str, Any]:
    """What an operation does, for graph.py; its tensors are kept in `source`."""
    match kind:
        case "CONV_2D" | "DEPTHWISE_CONV_2D":
            return _convolution(source, operator, inputs, depthwise=kind != "CONV_2D")
        case "PRELU":
            return {"op": "prelu", "weight": source.keep(inputs[1], source.values(inputs[1]).reshape(-1))}
        case "ADD":
            return {"op": "add", "in": [str(index) for index in inputs]}
        case "MAX_POOL_2D":
            return {"op": "max_pool", "size": source.options(operator, "Pool2DOptions").FilterWidth()}
        case "PAD":
            return {"op": "pad_channels", "channels": int(source.values(inputs[1])[3, 1])}
        case "RESIZE_BILINEAR":
            return {"op": "resize", "size": source.values(inputs[1]).tolist()}
        case "RESHAPE":
            return {"op": "rows", "width": source.shape(output)[-1]}
        case "CONCATENATION":
            return {"op": "concat", "in": [str(index) for index in inputs]}
        case "MEAN":
            return {"op": "mean"}
        case "FULLY_CONNECTED":
            return {"op": "linear", "weight": source.keep(inputs[1]), "bias": source.keep(inputs[2])}
        case "LOGISTIC":
            return {"op": "sigmoid"}
    raise HandscopeError(f"The operation {kind} is in none of the four networks; graph.py does not know it.")


def _convolution(source: _Source, operator: Any, inputs: list[int], depthwise: bool) -> dict[str, Any]:
    tflite = source.tflite
    read = source.options(operator, "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions")
    # (out, height, width, in) of tflite, and (1, height, width, channel) of its depthwise form
    weight = source.values(inputs[1]).transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
    vertical, horizontal = (
        _same(length, size, read.StrideH()) if read.Padding() == tflite.Padding.SAME else (0, 0)
        for length, size in zip(source.shape(inputs[0])[1:3], weight.shape[2:], strict=True)
    )
    return {
        "op": "conv",
        "weight": source.keep(inputs[1], weight),
        "bias": source.keep(inputs[2]),
        "stride": read.StrideH(),
        "pad": [*horizontal, *vertical],
        "groups": weight.shape[0] if depthwise else 1,
        "relu6": read.FusedActivationFunction() == tflite.ActivationFunctionType.RELU6,
    }


def _same(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """What tflite's SAME padding adds before and after."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help=f"the {WHEEL} wheel, or a folder that holds its tflite files")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder to write to (default: the package's own)")
    arguments = parser.parse_args()
    for path in convert(arguments.source, arguments.out):
        print(f"{path}  {sha256(path)}")


if __name__ == "__main__":
    main()
