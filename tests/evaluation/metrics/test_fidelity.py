"""Through torch-fidelity: what is said where it is missing; where it is installed, that its numbers are handed on."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.evaluation.metrics import named
from handscope.evaluation.metrics.fidelity import _network
from PIL import Image

SEEDED = np.random.default_rng(7)
X, Y = SEEDED.normal(size=(60, 8)), SEEDED.normal(0.4, 1.3, (60, 8))
VERSION_0_4_0 = {"fid": 3.562321356351468, "kid": 1.1929013829740933, "precision": 53 / 60, "recall": 29 / 60}
"""What its functions give for X and Y."""


@pytest.mark.parametrize("name", VERSION_0_4_0)
def test_without_it_a_sentence_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(HandscopeError, match=r"pip install 'handscope\[fidelity\]'"):
        named(f"torch-fidelity:{name}")(X, Y, None)


def test_missing_weights_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(HandscopeError, match="no weights"):
        named("inception", path=str(tmp_path / "none.pth"))([Image.new("RGB", (32, 32))])


@pytest.mark.parametrize("name", VERSION_0_4_0)
def test_its_numbers_are_handed_on(name: str) -> None:
    pytest.importorskip("torch_fidelity")
    found = named(f"torch-fidelity:{name}")(X, Y, np.arange(60) // 3)
    assert found.value == pytest.approx(VERSION_0_4_0[name], rel=1e-6)
    assert found.lo < found.value < found.hi and (found.n, found.m) == (60, 60)
    assert ("60 pictures" in found.warning) == (name in ("fid", "kid"))


def test_weights_that_are_more_than_tensors_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")

    class Worse:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Worse()))
    with pytest.raises(HandscopeError, match="does not hold the weights"):
        named("inception", path=str(path))([Image.new("RGB", (32, 32))])
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(HandscopeError, match="does not hold the weights"):
        named("inception", path=str(path))([Image.new("RGB", (32, 32))])
    assert not (tmp_path / "ran").exists()


def test_features_are_inceptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path / "weights.pth"
    with monkeypatch.context() as patch:  # random weights, made without a download
        patch.setattr(module, "load_state_dict_from_url", lambda *given, **named: {})
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.manual_seed(0)
        torch.save(module.FeatureExtractorInceptionV3("made", ["2048"]).state_dict(), path)
    found = named("inception", path=str(path))([Image.new("RGB", (32, 48), colour) for colour in ("red", "blue")])
    assert found.shape == (2, 2048) and np.isfinite(found).all() and np.abs(found[0] - found[1]).max() > 0
    _network.cache_clear()
