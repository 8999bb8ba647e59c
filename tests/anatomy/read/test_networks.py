"""MediaPipe's networks in torch: the numbers of LiteRT, from the very files that mediapipe ships."""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from handscope.anatomy.read.convert import SOURCES, convert, read_sources
from handscope.anatomy.read.graph import WEIGHTS, Graph
from handscope.anatomy.read.networks import load_landmarks, load_palm
from handscope.errors import HandscopeError
from safetensors import safe_open

DATA = Path(__file__).parents[2] / "support" / "data"
sys.path.insert(0, str(DATA))

from make_references import CROPPED, KEPT, NETWORKS, network_input, run_litert  # noqa: E402

# Largest difference to LiteRT that summing in another order makes, by the length of an output: boxes and scores of the
# palm network (pixels, logits), presence and handedness, points (pixels) and world (metres).
TOLERANCE = {18: 1e-3, 2016: 1e-4, 1: 1e-5, 63: 2e-3}


def sources() -> Path | None:
    """Where mediapipe's tflite files are, if they are here: the folder MEDIAPIPE_TFLITE, or an installed mediapipe."""
    found = importlib.util.find_spec("mediapipe")
    installed = [Path(found.origin).parent] if found is not None and found.origin is not None else []
    named = [Path(os.environ["MEDIAPIPE_TFLITE"])] if "MEDIAPIPE_TFLITE" in os.environ else []
    return next((folder for folder in named + installed if any(folder.rglob("hand_landmark_full.tflite"))), None)


needs_sources = pytest.mark.skipif(
    sources() is None, reason="needs mediapipe 0.10.21, or the folder of its tflite files as MEDIAPIPE_TFLITE"
)


def ours(name: str, picture: str) -> list[np.ndarray]:
    x = torch.from_numpy(network_input(picture, NETWORKS[name][1])).permute(0, 3, 1, 2)
    with torch.no_grad():
        return [output[0].numpy() for output in Graph.load(WEIGHTS / f"{name}.safetensors")(x)]


def assert_alike(mine: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Every output of one is an output of the other: LiteRT lists them in an order of its own."""
    assert len(mine) == len(theirs)
    for output in mine:
        tolerance = TOLERANCE[output.shape[-1] if output.size != 2016 else 2016]
        gaps = [np.abs(other - output).max() for other in theirs if other.shape == output.shape]
        assert min(gaps) <= tolerance, (output.shape, gaps)


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_that_litert_gave(name: str) -> None:
    stored = np.load(DATA / "networks.npz")
    for picture in CROPPED:
        mine = [output[::KEPT] if output.shape == (2016, 18) else output for output in ours(name, picture)]
        theirs = [stored[key] for key in stored.files if key.startswith(f"{name}/{picture}/")]
        assert_alike(mine, theirs)


@needs_sources
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_litert(name: str) -> None:
    file, size = NETWORKS[name]
    (path,) = sources().rglob(file)
    assert_alike(ours(name, CROPPED[1]), run_litert(path, network_input(CROPPED[1], size)))


@needs_sources
def test_shipped_weights_are_what_the_script_makes(tmp_path: Path) -> None:
    for path in convert(sources(), tmp_path):
        assert path.read_bytes() == (WEIGHTS / path.name).read_bytes()


@needs_sources
def test_float16_is_what_the_sources_hold() -> None:
    import tflite

    for name, data in read_sources(sources()).items():
        graph = tflite.Model.GetRootAsModel(data, 0).Subgraphs(0)
        tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        model = tflite.Model.GetRootAsModel(data, 0)
        stored = {t.Type() for t in tensors if model.Buffers(t.Buffer()).DataLength()}
        assert tflite.TensorType.FLOAT32 not in stored, name


def test_notice_names_the_sources() -> None:
    notice = (WEIGHTS.parent / "NOTICE.md").read_text()
    for name, (file, hashed) in SOURCES.items():
        with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as weights:
            described = json.loads(weights.metadata()["graph"])
            assert all(weights.get_tensor(key).dtype == torch.float16 for key in weights.keys())  # noqa: SIM118
        assert described["sha256"] == hashed
        assert re.search(rf"{name}.safetensors \| \S+/{file} \| {hashed}", notice)


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HandscopeError, match="holds no palm_detection_full.tflite"):
        convert(tmp_path, tmp_path)
    for file, _ in SOURCES.values():
        (tmp_path / file).write_bytes(b"another")
    with pytest.raises(HandscopeError, match="SHA-256"):
        convert(tmp_path, tmp_path)
    with pytest.raises(HandscopeError, match="neither"):
        convert(tmp_path / "palm_detection_full.tflite", tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_another_size_is_refused() -> None:
    with pytest.raises(HandscopeError, match="'full' and 'lite'"):
        load_palm("huge")


@pytest.mark.parametrize("size", ["full", "lite"])
def test_a_batch_is_its_pictures(size: str) -> None:
    pictures = torch.rand(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    palm, landmarks = load_palm(size), load_landmarks(size)
    with torch.no_grad():
        boxes, scores = palm(pictures[..., :192, :192])
        seen = landmarks(pictures)
        for i in range(3):
            one = landmarks(pictures[i : i + 1])
            torch.testing.assert_close(one.points[0], seen.points[i], atol=1e-3, rtol=0)
            torch.testing.assert_close(one.world[0], seen.world[i], atol=1e-5, rtol=0)
            torch.testing.assert_close(one.embedding[0], seen.embedding[i], atol=1e-4, rtol=0)
            alone = palm(pictures[i : i + 1, :, :192, :192])
            torch.testing.assert_close(alone[0][0], boxes[i], atol=1e-3, rtol=0)
            torch.testing.assert_close(alone[1][0], scores[i], atol=1e-3, rtol=0)
    assert seen.embedding.shape == (3, {"full": 1152, "lite": 672}[size])
    torch.testing.assert_close(landmarks.features(pictures).detach(), seen.embedding)


@pytest.mark.parametrize("load, side", [(load_palm, 192), (load_landmarks, 224)])
def test_gradients_are_finite_differences(load, side: int) -> None:
    """In float64, along random directions, of a random mixture of all outputs."""
    network = load("lite").double()
    generator = torch.Generator().manual_seed(1)
    picture = torch.rand(1, 3, side, side, generator=generator, dtype=torch.float64)

    def mixture(x: torch.Tensor) -> torch.Tensor:
        mixed = torch.Generator().manual_seed(2)
        outputs = network.graph(x)
        return sum((o * torch.randn(o.shape, generator=mixed, dtype=o.dtype)).sum() / o.numel() ** 0.5 for o in outputs)

    moved = picture.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(mixture(moved), moved)
    step = 1e-9  # small, so that no unit crosses the bend of its PReLU or ReLU6 on the way
    for _ in range(3):
        direction = torch.randn(picture.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            difference = (mixture(picture + step * direction) - mixture(picture - step * direction)) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-4, atol=1e-6)
