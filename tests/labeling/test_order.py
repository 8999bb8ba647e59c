"""Orders: the same whenever they are made, divided as promised, and a probe's doubt read as it should be."""

import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.extract.store.store import ActivationStore
from handscope.labeling.database.annotation import Annotation
from handscope.labeling.database.labels import Labels
from handscope.labeling.order import divide, make_order
from handscope.probes.logistic import LogisticProbe
from handscope.probes.saved import save_probe
from handscope.run.folder import COLUMNS, Run, sample_id


def made_run(folder, n):
    """A run of n samples, four a prompt, with no pictures: orders read none."""
    run, rows = Run(folder), {}
    for i in range(n):
        name = sample_id(f"prompt {i // 4}", i % 4)
        row = dict.fromkeys(COLUMNS, 1) | {"sample": name, "prompt": f"prompt {i // 4}", "seed": i % 4}
        rows[name] = row | {"image_sha256": "a" * 64}
    run.samples_dir.mkdir()
    run.write_metadata(rows)
    return run


def test_a_random_order_holds_every_sample_once_and_stays_when_the_run_grows(tmp_path):
    small, large = made_run(tmp_path / "a", 400), made_run(tmp_path / "b", 500)
    first, again, other, grown = (make_order(r, seed=s) for r, s in ((small, 3), (small, 3), (small, 4), (large, 3)))
    assert first == again and first.samples != other.samples and first.method == "random" and first.note == ""
    assert sorted(first.samples) == sorted(small.metadata())
    assert [s for s in grown.samples if s in small.metadata()] == list(first.samples)


def test_a_random_order_has_nothing_to_do_with_prompt_or_generation(tmp_path):
    run = made_run(tmp_path / "a", 2000)
    generated = {sample: i for i, sample in enumerate(run.metadata())}
    places = np.array([generated[sample] for sample in make_order(run).samples])
    assert abs(np.corrcoef(places, np.arange(2000))[0, 1]) < 0.08  # 3.5 standard errors of independent ranks
    assert abs(np.corrcoef(places[1:], places[:-1])[0, 1]) < 0.08


@pytest.mark.parametrize("names", [["ada", "ben"], ["ada", "ben", "cy", "dan"]])
def test_samples_are_divided_evenly_and_a_share_is_labelled_twice(tmp_path, names):
    run = made_run(tmp_path / "a", 4000)
    order = make_order(run, seed=1, double_share=0.1, annotators=names)
    held = {sample: [n for n in names if sample in set(order.queue(n))] for sample in order.samples[::10]}
    assert {len(who) for who in held.values()} == {1, 2}
    total = sum(len(order.queue(name)) for name in names)
    assert total == pytest.approx(4400, abs=70)  # 3.5 standard deviations of 4,000 draws of 0.1
    for name in names:
        assert len(order.queue(name)) == pytest.approx(4400 / len(names), rel=0.1)
        assert order.queue(name) == [s for s in order.samples if s in set(order.queue(name))]
    pairs = {tuple(who) for who in held.values() if len(who) == 2}
    assert len(pairs) == len(names) * (len(names) - 1) / 2
    assert order.queue("eve") == list(order.samples)
    assert divide(order.samples, names[::-1], 0.1, 1) == dict(order.assigned)


@pytest.mark.parametrize(("share", "times"), [(0.0, 1), (1.0, 2)])
def test_nothing_or_everything_twice(tmp_path, share, times):
    order = make_order(made_run(tmp_path / "a", 40), double_share=share, annotators=["ada", "ben", "cy"])
    assert sum(len(order.queue(name)) for name in ("ada", "ben", "cy")) == 40 * times
    assert sorted(make_order(made_run(tmp_path / "b", 40), annotators=["ada"]).queue("ada")) == sorted(order.samples)


def test_an_order_is_recorded_once(tmp_path):
    run = made_run(tmp_path / "a", 20)
    labels = Labels(run.labels_path)
    order = make_order(run, seed=5, annotators=["ada", "ben"], double_share=0.25)
    assert order.record(labels) == order.record(labels)
    row = labels.orders().iloc[-1]
    assert (row["method"], row["seed"], tuple(row["samples"])) == ("random", 5, order.samples)
    assert row["parameters"] == {"annotators": ["ada", "ben"], "double_share": 0.25}


def test_a_given_order_is_kept(tmp_path):
    run = made_run(tmp_path / "a", 8)
    names = list(run.metadata())
    assert make_order(run, "given", samples=names[5:2:-1]).samples == tuple(names[5:2:-1])
    assert make_order(run, "given").samples == tuple(names)
    assert "no random sample" in make_order(run, "given").note


def test_what_cannot_be_ordered_is_said(tmp_path):
    run = made_run(tmp_path / "a", 8)
    for arguments, message in (
        ({"method": "best"}, "one of random, uncertain, given, found 'best'"),
        ({"double_share": 1.5}, "from 0 to 1, found 1.5"),
        ({"annotators": ["ada", "ada"]}, "annotator 'ada' is named twice"),
        ({"method": "given", "samples": ["nobody"]}, "'nobody' among them"),
        ({"method": "uncertain"}, "no probes in"),
    ):
        with pytest.raises(HandscopeError, match=message):
            make_order(run, **arguments)
    with pytest.raises(HandscopeError, match="no samples in .* to label"):
        make_order(Run(tmp_path / "empty"))


@pytest.fixture
def probed(extracted_run, run_copy):
    """An extracted run with a probe at two steps of one block."""
    run = run_copy(extracted_run)
    store, random = ActivationStore(run.activations_dir), np.random.default_rng(0)
    for step in (4, 2):
        x, tokens = store.read("single.0", step)
        means = np.stack([x[tokens["sample"] == sample].mean(0) for sample in store.samples])
        probe = LogisticProbe(l2=10.0).fit(means, random.integers(0, 2, len(means)))
        metadata = {"block": "single.0", "step": step, "held_out_auc": 0.5 + step / 10}
        save_probe(probe, run.probes_dir / f"single.0_{step}.safetensors", metadata)
    return run


def test_the_most_uncertain_come_first_a_prompt_a_round(probed):
    from handscope.probes.saved import load_probe

    store = ActivationStore(probed.activations_dir)
    probes = [load_probe(path) for path in sorted(probed.probes_dir.glob("*.safetensors"))]
    slow = {}
    for sample in store.samples:
        given = []
        for probe in probes:
            x, tokens = store.read("single.0", probe.metadata_["step"], [sample])
            given.append(probe.decision_function(x[tokens["instance"] > 0].mean(0, keepdims=True))[0])
        slow[sample] = float(np.mean(given))
    order = make_order(probed, "uncertain")
    found = order.parameters["log_odds"]
    assert found == pytest.approx(slow, abs=2e-3) and order.parameters["scored"] == len(slow) == 48
    assert order.method == "uncertain" and "no random sample" in order.note
    # All samples of the fixture are labelled by a person, so they are one group.
    prompts = probed.samples().set_index("sample")["prompt"]
    for first in range(0, 48, 8):
        taken = list(order.samples[first : first + 8])
        assert prompts[taken].nunique() == 8
        doubts = [abs(found[sample]) for sample in taken]
        assert doubts == sorted(doubts)
        for sample in taken:  # the least sure that is left of its prompt
            left = [s for s in order.samples[first:] if prompts[s] == prompts[sample]]
            assert abs(found[sample]) == min(abs(found[s]) for s in left)


def test_samples_that_people_labelled_come_last(probed):
    for path in probed.path.glob("labels.sqlite*"):
        path.unlink()
    first = make_order(probed, "uncertain").samples
    grid = np.ones((4, 4), np.uint8)
    for sample, author in ((first[0], "ada"), (first[1], "handscope")):
        image = probed.metadata()[sample]["image_sha256"]
        Labels(probed.labels_path).add([Annotation(sample, image, grid, 0 * grid, "unsure", author=author)])
    order = make_order(probed, "uncertain").samples
    assert order[-1] == first[0] and order[0] == first[1]


def test_a_probe_without_activations_cannot_doubt(probed):
    for path in probed.activations_dir.rglob("*.h5"):
        path.unlink()
    with pytest.raises(HandscopeError, match="or label in random order"):
        make_order(probed, "uncertain")
