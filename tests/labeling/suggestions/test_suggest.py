"""Suggestions: hand tokens where a hand is, a probe's map as the probe gives it, a reason for whatever is missing."""

import base64
import hashlib
import shutil

import numpy as np
import pytest
from handscope.anatomy.read import tokens as of_hands
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.store.store import ActivationStore
from handscope.labeling.agreement import iou
from handscope.labeling.database.labels import Labels
from handscope.labeling.order import make_order
from handscope.labeling.server.messages import Stroke
from handscope.labeling.server.session import Session
from handscope.labeling.suggestions.suggest import SUGGESTERS, Asked, suggestions
from handscope.organism.silhouette import hand_tokens, silhouette
from handscope.organism.study.shipped import ShippedLabels
from handscope.probes.logistic import LogisticProbe
from handscope.probes.saved import save_probe
from handscope.run.folder import Run


def test_every_source_that_is_missing_says_why(finished_run):
    sample = finished_run.samples()["sample"][0]
    before = Labels(finished_run.labels_path).last_revision()
    found = suggestions(finished_run, sample)
    assert not found.found and list(found.absent) == ["silhouette", "detector", "probe"]
    assert "organism" in found.absent["silhouette"] and "found no hand" in found.absent["detector"]
    assert "no probes" in found.absent["probe"]
    assert Labels(finished_run.labels_path).last_revision() == before


def test_a_hands_region_is_its_palm_and_what_is_near_a_bone():
    points = np.zeros((21, 2))
    points[0] = 50, 90
    for finger, x in enumerate((20, 35, 48, 61, 74)):
        heights = (70, 60, 50, 42) if finger == 0 else (55, 38, 24, 12)
        points[1 + 4 * finger : 5 + 4 * finger] = [(x, y) for y in heights]
    found = of_hands.tokens_near(points, 96, 96, (24, 24))
    reach = of_hands.FINGER * np.hypot(points[9, 0] - 50, points[9, 1] - 90) + of_hands.REACH * 4
    assert found[round(75 / 4), 48 // 4]  # in the palm, far from a finger
    assert not found[2, 0] and not found[22, 22]
    samples = np.linspace(0, 1, 400)[:, None]
    for row, column in np.argwhere(~found):  # nothing outside is near a bone
        centre = np.array([4 * column + 2, 4 * row + 2])
        for a, b in of_hands._BONES:
            along = points[a] + samples * (points[b] - points[a])
            assert np.linalg.norm(along - centre, axis=1).min() > reach - 0.1
    mirrored = of_hands.tokens_near(points * [-1, 1] + [96, 0], 96, 96, (24, 24))
    assert np.array_equal(mirrored, found[:, ::-1])


def test_the_detector_finds_the_tokens_of_drawn_hands(tmp_path):
    shipped = ShippedLabels.load()
    chosen = shipped.table.index[shipped.table["verdict"] == "good"][::57][:6]
    overlaps = []
    for sample in chosen:
        image = np.array(shipped.reference(sample))
        try:
            found = SUGGESTERS["detector"](Asked(Run(tmp_path), sample, image, (12, 12), None))
        except HandscopeError:
            continue
        assert found.score is not None and found.score > 0.5
        assert (found.labels == np.where(found.instances > 0, 0, 1)).all()
        overlaps.append(iou(found.instances, hand_tokens(silhouette(image), 12, 12).astype(np.uint8)))
    assert len(overlaps) >= 4 and np.median(overlaps) > 0.6


def test_a_silhouette_is_suggested_for_the_organism_only(finished_run, run_copy):
    run = run_copy(finished_run)
    run.write_settings({"provenance": {**run.settings.get("provenance", {}), "name": "organism"}})
    sample = run.samples()["sample"][0]
    (found,) = [one for one in suggestions(run, sample).found if one.source == "silhouette"]
    expected = hand_tokens(silhouette(run.image(sample)), 4, 4)
    assert np.array_equal(found.instances, expected) and np.array_equal(found.labels, np.where(expected, 0, 1))


# The probe's map


@pytest.fixture
def probed(extracted_run, run_copy):
    run = run_copy(extracted_run)
    x, _ = ActivationStore(run.activations_dir).read("single.0", 2)
    probe = LogisticProbe(l2=10.0).fit(x[:200], np.random.default_rng(0).integers(0, 2, 200))
    metadata = {"block": "single.0", "step": 2, "held_out_auc": 0.8, "input": "token"}
    save_probe(probe, run.probes_dir / "single.0_2.safetensors", metadata)
    return run, probe


@pytest.fixture(autouse=True)
def no_networks(request, monkeypatch):
    """The detector's search takes seconds on a picture without hands: only the tests that are about it run it."""

    def not_asked(asked):
        raise HandscopeError("Not asked.")

    if "detector" not in request.node.name and "says_why" not in request.node.name:
        monkeypatch.setitem(SUGGESTERS, "detector", not_asked)


def the_map(run, sample, model=None):
    (found,) = [one for one in suggestions(run, sample, model).found if one.source == "probe"]
    assert not found.labels.any() and not found.instances.any()
    return found


def test_the_probes_map_is_what_it_says_of_the_stored_tokens(probed):
    run, probe = probed
    sample = run.samples()["sample"][3]
    found = the_map(run, sample)
    x, tokens = ActivationStore(run.activations_dir).read("single.0", 2, [sample])
    expected = np.full((4, 4), np.nan)
    expected[tokens["row"], tokens["col"]] = probe.decision_function(x)
    np.testing.assert_allclose(found.map, expected, rtol=1e-4, atol=1e-4)
    assert np.isnan(found.map).sum() == 7 and found.score == pytest.approx(np.nanmean(expected), abs=1e-4)


def test_with_the_model_the_map_covers_every_token(probed, tiny_model, finished_run, tmp_path):
    # As an extraction of all tokens would.
    run, probe = probed
    shutil.copytree(finished_run.path, tmp_path / "whole")
    whole = Run(tmp_path / "whole")
    store = extract(tiny_model, whole, Plan(["single.0"], [2], of=4), tokens="all")
    sample = run.samples()["sample"][3]
    x, _ = store.read("single.0", 2, [sample])
    found = the_map(run, sample, tiny_model)
    # The store holds bfloat16, the replay float32.
    np.testing.assert_allclose(found.map.ravel(), probe.decision_function(x), rtol=0.05, atol=0.05)
    shutil.copytree(run.probes_dir, whole.probes_dir)
    np.testing.assert_allclose(the_map(whole, sample).map.ravel(), probe.decision_function(x), rtol=1e-4, atol=1e-4)


def test_a_sample_that_was_not_extracted_has_no_map(probed):
    run, _ = probed
    sample = run.samples()["sample"][3]
    for path in (run.activations_dir / "store.h5", run.activations_dir / "shards" / f"{sample}.h5"):
        path.unlink(missing_ok=True)
    assert "extract that cell with --tokens all" in suggestions(run, sample).absent["probe"]


# From the page to the activations


def test_what_is_painted_is_what_extract_reads(tiny_model, finished_run, run_copy):
    run = run_copy(finished_run)
    for path in run.path.glob("labels.sqlite*"):
        path.unlink()
    finished, draft, corrected = run.samples()["sample"][[0, 1, 7]]
    session = Session(run, make_order(run))

    def paint(sample, cells, done, base=None, label=3):
        labels, hands = np.ones(16, np.uint8), np.zeros(16, np.uint8)
        labels[cells], hands[cells] = label, 1
        verdict = {3: "bad", 2: "good"}[label] if done else None
        image = run.metadata()[sample]["image_sha256"]
        stroke = Stroke(
            uid=hashlib.sha256(f"{sample}{cells}{base}{done}".encode()).hexdigest(),
            annotator="ada",
            image_sha256=image,
            base=base,
            labels=base64.b64encode(labels.tobytes()).decode(),
            instances=base64.b64encode(hands.tobytes()).decode(),
            faults={},
            verdict=verdict,
            done=done,
            seconds=1.0,
        )
        return session.write(sample, "paint", stroke)[0]

    paint(finished, [5, 6, 9], True)
    paint(draft, [0, 1], False)
    paint(corrected, [2], True, base=paint(corrected, [12, 13, 14], True), label=2)
    plan = Plan(["single.0"], [2], of=4)
    tokens = extract(tiny_model, run, plan, tokens="hand").tokens
    found = sorted(zip(tokens["sample"], 4 * tokens["row"] + tokens["col"], tokens["label"], tokens["instance"]))
    assert found == sorted([(finished, 5, 3, 1), (finished, 6, 3, 1), (finished, 9, 3, 1), (corrected, 2, 2, 1)])
    # A later stroke that takes a token away changes what its token is, and no shard.
    shards = {path: path.stat().st_mtime_ns for path in (run.activations_dir / "shards").glob("*.h5")}
    newest = Labels(run.labels_path).newest(finished, "ada")
    paint(finished, [5, 6], True, base=newest.revision)
    tokens = extract(tiny_model, run, plan, tokens="hand").tokens
    assert (tokens["instance"] > 0).sum() == 3
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
