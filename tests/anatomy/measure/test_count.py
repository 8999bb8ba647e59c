"""The finger-count head: what it answers on held-out hands, when it says "unknown", its gradients, and its data."""

import subprocess
import sys

import pytest
import torch
from handscope.anatomy.measure import count
from handscope.anatomy.measure.count import (
    FAULTS,
    RELATIONS,
    CountNetwork,
    count_evidence,
    count_fingers,
    digits,
    load_count,
)
from handscope.errors import HandscopeError
from handscope.organism.render import render_dataset
from handscope.organism.training.counting import train
from handscope.organism.training.counting.augment import CROP, compose, textures
from handscope.organism.training.counting.data import SIZE, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

FIVE, UNREADABLE = RELATIONS.index("five"), RELATIONS.index("unreadable")


@pytest.fixture(scope="module")
def hands():
    return draw(64, 4_000_000)


@pytest.fixture(scope="module")
def composed(hands):
    return compose(hands.pixels, hands.relation, textures("seen", 99, 24), torch.Generator().manual_seed(3))


def test_weights_are_half_precision_and_small():
    assert count.WEIGHTS.stat().st_size < 2_000_000
    with safe_open(count.WEIGHTS, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    state = load_count().state_dict()
    assert all(torch.isfinite(value).all() for value in state.values())


def test_every_weight_of_the_network_comes_from_the_file():
    with safe_open(count.WEIGHTS, "pt") as file:
        stored = set(file.keys())
    wanted = {name for name, value in CountNetwork().state_dict().items() if value.is_floating_point()}
    assert stored == wanted


def test_damaged_or_missing_weights_are_named(tmp_path, monkeypatch):
    load_count.cache_clear()
    try:
        for content in (None, b"", count.WEIGHTS.read_bytes()[:1000]):
            path = tmp_path / "count.safetensors"
            if content is not None:
                path.write_bytes(content)
            monkeypatch.setattr(count, "WEIGHTS", path)
            with pytest.raises(HandscopeError, match=r"count\.safetensors cannot be read .* install handscope again"):
                load_count()
    finally:
        load_count.cache_clear()


@pytest.mark.parametrize("shape", [(3, 96, 96), (2, 1, 96, 96)])
def test_a_wrong_shape_is_refused(shape):
    with pytest.raises(HandscopeError, match=r"shape \(m, 3, s, s\), found"):
        count_fingers(torch.zeros(shape))


@pytest.mark.process
def test_counting_needs_neither_the_organism_nor_the_training_code():
    code = (
        "import sys, torch, handscope.anatomy.measure.count as c; c.count_fingers(torch.rand(1, 3, 96, 96));"
        "print([m for m in sys.modules if 'organism' in m or 'counting' in m])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_batch_answers_as_one_by_one(composed):
    with torch.no_grad():
        whole = count_fingers(composed.pictures[:6])
        single = [count_fingers(picture[None]) for picture in composed.pictures[:6]]
    for name in ("probability", "value", "confidence", "relation", "fault", "embedding"):
        alone = torch.cat([getattr(one, name) for one in single])
        torch.testing.assert_close(getattr(whole, name), alone, rtol=1e-4, atol=1e-4)
    assert count_fingers(torch.zeros(0, 3, 96, 96)).value.shape == (0,)


@settings(deadline=None, max_examples=8)
@given(side=st.sampled_from([32, 96, 112, 224]), seed=st.integers(0, 1000), flat=st.booleans())
def test_answers_are_probabilities_whatever_the_crop(side, seed, flat):
    crops = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))
    crops = crops.mean((2, 3), keepdim=True).expand_as(crops) if flat else crops
    found = count_fingers(crops)
    for group in (found.probability, found.relation, found.fault):
        torch.testing.assert_close(group.sum(1), torch.ones(2))
    confident = found.confidence >= load_count().threshold
    assert torch.equal(found.value, torch.where(confident, found.probability.argmax(1), -1))
    assert all(torch.isfinite(column).all() and column.shape == (2,) for column in count_evidence(found).values())


def test_resized_crops_answer_alike(composed):
    """A crop at 192 pixels is the crop at 96 seen larger."""
    larger = torch.nn.functional.interpolate(composed.pictures[:24], (192, 192), mode="bilinear")
    with torch.no_grad():
        a, b = count_fingers(composed.pictures[:24]).relation, count_fingers(larger).relation
    assert (a - b).abs().mean() < 0.1


def test_every_column_of_evidence_can_be_followed_from_the_pictures(hands, composed):
    """A small step along a column's gradient raises that column, also in pictures that must be resized first."""
    fewer = composed.pictures[hands.relation == RELATIONS.index("fewer")][:4]
    crops = torch.nn.functional.interpolate(fewer, (144, 144), mode="bilinear").requires_grad_()
    before = count_evidence(count_fingers(crops))
    for name, column in before.items():
        free = column.abs() < 12  # a column that is cut off there stays where it is
        assert free.any(), name
        (gradient,) = torch.autograd.grad(column.sum(), crops, retain_graph=True)
        step = 0.002 * gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
        with torch.no_grad():
            after = count_evidence(count_fingers(crops + step))[name]
        assert (after > column)[free].all(), name


def test_a_step_against_the_gradient_makes_five_digits_likelier(hands, composed):
    """What guidance relies on."""
    crop = composed.pictures[hands.relation == RELATIONS.index("more")][:4].clone().requires_grad_()
    before = load_count()(crop).relation.log_softmax(1)[:, FIVE]
    (gradient,) = torch.autograd.grad(before.sum(), crop)
    step = 0.002 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    with torch.no_grad():
        after = load_count()(crop + step).relation.log_softmax(1)[:, FIVE]
    assert (after > before).all()


def test_what_shows_no_hand_is_unknown():
    plain = torch.rand(8, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(8, 3, 96, 96)
    found = count_fingers(plain)
    assert (found.value == -1).all()
    assert (digits(found) == -1).all()


def test_digits_and_evidence_follow_the_probabilities():
    relation = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.1, 0.8, 0.1, 0.0], [0.0, 0.4, 0.6, 0.0], [0.1, 0.2, 0.1, 0.6]])
    fault = torch.zeros(4, len(FAULTS))
    fault[:, 0], fault[:, 3] = torch.tensor([1.0, 0.5, 0.1, 0.5]), torch.tensor([0.0, 0.5, 0.9, 0.5])
    one = torch.zeros(4)
    found = count.Count(torch.zeros(4, 8), one.long(), one, relation, fault, torch.zeros(4, 96))
    assert digits(found).tolist() == [4, 5, 6, -1]
    columns = count_evidence(found)
    assert list(columns)[:4] == ["count_fewer", "count_more", "count_unreadable", "count_six"]
    torch.testing.assert_close(columns["count_more"][2], torch.tensor(1.5).log())
    torch.testing.assert_close(columns["count_fused"], torch.tensor([1e-9, 1.0, 9.0, 1.0]).log().clamp(-12, 12))
    torch.testing.assert_close(columns["count_any_fault"][1:], torch.tensor([1.0, 9.0, 1.0]).log())


def test_drawing_is_the_same_for_the_same_seed_and_no_other(hands):
    again, other = draw(64, 4_000_000), draw(64, 4_000_001)
    assert torch.equal(again.pixels, hands.pixels)
    assert not torch.equal(other.count, hands.count)


def test_labels_say_what_was_drawn(hands):
    """A slow count from the parts: raised digits, less those taken, more those grown."""
    raised = torch.tensor([bin(bits).count("1") for bits in hands.raised.tolist()])
    relation, number = hands.relation, hands.count
    assert hands.pixels.shape == (64, 5, SIZE, SIZE)
    assert ((relation != FIVE) | (number == raised)).all()
    assert ((relation != RELATIONS.index("more")) | (number > 0)).all()
    assert ((relation != RELATIONS.index("fewer")) | (number < raised)).all()
    assert (relation[raised == 0] == UNREADABLE).all()
    assert (relation[hands.fault == FAULTS.index("six")] == RELATIONS.index("more")).all()
    assert set(relation.tolist()) == {0, 1, 2, 3}


def test_families_of_appearance_differ():
    """Natural skins are redder than they are blue; those of the test are of any hue, or grey."""

    def red_over_blue(family):
        pixels = draw(24, 4_000_002, family).pixels.float()
        fingers = pixels[:, 4:] > 0
        return ((pixels[:, 0:1] - pixels[:, 2:3]) * fingers).sum((1, 2, 3)) / fingers.sum((1, 2, 3)).clamp_min(1)

    assert (red_over_blue("seen") > 15).all()
    assert (red_over_blue("unseen") < 15).sum() > 8


def test_composed_pictures_and_where_labels_hold(hands, composed):
    assert composed.pictures.shape == (64, 3, CROP, CROP)
    assert composed.pictures.min() >= 0
    assert composed.pictures.max() <= 1
    changed = composed.relation != hands.relation
    assert (composed.relation[changed] == UNREADABLE).all()
    assert not (changed & composed.counted).any()
    assert not (composed.counted & ~composed.sure).any()
    assert 0.5 < composed.counted.float().mean() < 0.95


def test_held_out_hands_are_counted(hands, composed):
    """Floors well below the measured rates, with 64 hands."""
    with torch.no_grad():
        found = count_fingers(composed.pictures)
    counted = composed.counted
    known = counted & (found.value >= 0)
    assert known.sum() > 0.5 * counted.sum()
    assert (found.value == hands.count)[known].float().mean() > 0.75
    wrong = found.relation[:, 0] + found.relation[:, 2]
    readable = counted & (composed.relation != UNREADABLE)
    bad, good = wrong[readable & (composed.relation != FIVE)], wrong[readable & (composed.relation == FIVE)]
    assert (bad[:, None] > good[None]).float().mean() > 0.75


def test_the_organisms_renders_are_counted():
    """Another renderer path, camera and set of colours than was trained on; the whole picture is the crop."""
    good = render_dataset(48, 4_000_003)
    with torch.no_grad():
        found = count_fingers(good.images.float() / 255)
    assert (found.probability.argmax(1) == good.count).float().mean() > 0.6


def test_training_takes_up_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SHARD", 64)
    monkeypatch.setattr(train, "BATCH", 8)
    monkeypatch.setattr(train, "textures", lambda family, seed: textures(family, seed, 12))
    monkeypatch.setattr(train, "PARTS", {"train": ("seen", 0, 1)})
    (shard,) = train.drawn(tmp_path, "train")
    before = shard.stat().st_mtime_ns
    train.train(tmp_path, steps=2)
    first = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    network = train.train(tmp_path, steps=3)
    second = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (first["done"], second["done"]) == (2, 3)
    assert train.drawn(tmp_path, "train") == [shard]
    assert shard.stat().st_mtime_ns == before
    assert not torch.equal(first["network"]["last.bias"], second["network"]["last.bias"])
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


@pytest.mark.parametrize("change", ["one is missing", "one too many"])
def test_weights_of_another_form_are_refused(tmp_path, monkeypatch, change):
    with safe_open(count.WEIGHTS, "pt") as file:
        weights, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    if change == "one is missing":
        weights.pop(next(name for name in weights if name.endswith("weight")))
    else:
        weights["another"] = torch.zeros(1)
    save_file(weights, tmp_path / "count.safetensors", metadata)
    monkeypatch.setattr(count, "WEIGHTS", tmp_path / "count.safetensors")
    with pytest.raises(HandscopeError, match="other tensors than expected"):
        load_count.__wrapped__()
