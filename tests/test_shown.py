"""What a notebook shows: names behind a dot, signatures, and objects in a line."""

import inspect
import subprocess
import sys

import handscope
import numpy as np
import pytest
from handscope import ActivationStore, Annotation, Labels, Plan, Run
from handscope.analysis import Moments, contrastive_sweep, plane
from handscope.probes import RidgeProbe, cross_validate

LONG = 240


def test_what_stands_behind_the_dot_is_public_and_can_be_had():
    assert {"probes", "analysis", "extract", "Run", "Annotation"} <= set(dir(handscope))
    assert not {"Any", "importlib", "TYPE_CHECKING", "errors"} & set(dir(handscope))
    for name in dir(handscope):
        assert getattr(handscope, name) is not None


@pytest.mark.process
def test_subpackages_are_reached_without_torch():
    code = "import sys, handscope as hs; hs.probes, hs.figures, hs.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_extract_has_the_signature_and_the_words_of_what_it_calls():
    from handscope.extract.extract import extract

    assert inspect.signature(handscope.extract) == inspect.signature(extract)
    assert inspect.getdoc(extract).splitlines()[0] in handscope.extract.__doc__


def test_a_run_and_what_lies_in_it_are_a_line(extracted_run):
    run = Run(extracted_run.path)
    samples = len(run.samples())
    assert f"{samples} samples" in repr(run) and str(run.path) in repr(run)
    assert run._repr_html_().count("<img") == min(6, samples)
    store = ActivationStore(run.activations_dir)
    assert f"{len(store.cells)} cells" in repr(store) and f"width {store.width}" in repr(store)
    verdicts = Labels(run.labels_path).table()["verdict"].value_counts()
    assert all(f"{n} {verdict}" in repr(Labels(run.labels_path)) for verdict, n in verdicts.items())
    assert max(map(len, map(repr, (run, store, Labels(run.labels_path))))) < LONG + len(str(run.path))


def test_labels_that_are_not_there_yet(tmp_path):
    assert "none yet" in repr(Labels(tmp_path / "labels.sqlite"))


def test_a_model_is_a_line(tiny_model):
    assert tiny_model.family.name in repr(tiny_model) and len(repr(tiny_model)) < LONG


def test_a_plan_is_what_one_would_write():
    for plan in (Plan(["double.1", "single.3"], [20, 3], of=20), Plan(None, [1], of=1, call="uncond")):
        assert eval(repr(plan)) == plan


def test_results_are_a_line_whatever_their_arrays():
    rng = np.random.default_rng(0)
    x, y, groups = rng.normal(size=(60, 5)).astype(np.float32), np.arange(60) % 2, np.arange(60) // 4
    results = [
        cross_validate(RidgeProbe(), x, y, groups, permutations=9),
        contrastive_sweep(x[y == 0], x[y == 1]),
        plane(x[y == 0], x[y == 1]),
        Moments.of(x),
        Annotation("a", "0" * 64, np.zeros((30, 40)), np.zeros((30, 40)), "good"),
    ]
    for result in results:
        assert "array" in repr(result) and "\n" not in repr(result)
        assert len(repr(result)) < 2 * LONG, result
    assert "<ndarray 30 × 40>" in repr(results[-1])
