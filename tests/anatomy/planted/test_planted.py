"""Faults planted in pictures of sound hands: they change the hand, and the work itself tells nothing."""

import numpy as np
import pytest
import torch
from handscope.anatomy.measure.picture import features
from handscope.anatomy.planted.canvas import ROOM, SIDE, Canvas, filled, grid, placed, stretched
from handscope.anatomy.planted.faults import FAULTS, LEAST, elsewhere, plant, unharmed
from handscope.anatomy.planted.pairs import CROP, Pair, pair_of
from handscope.anatomy.planted.rank import Learnt, fit, folds_of_sources, held_out
from handscope.anatomy.read.detect import detect
from made_hands import open_hands


@pytest.fixture(scope="module")
def canvases() -> list[Canvas]:
    """Drawn open hands before one colour, as far as they are found."""
    pictures = list(open_hands(14, 3, 160))
    found = detect(pictures, search="plain", max_hands=1)
    made = [Canvas.of(pictures[i], found.region[k], found.points[k]) for k, i in enumerate(found.image.tolist())]
    made = [one for one in made if len(one.raised()) >= 4 and one.skin is not None]
    assert len(made) >= 5
    return made


def test_a_canvas_keeps_the_hand_upright_in_its_middle(canvases: list[Canvas]) -> None:
    for one in canvases:
        assert one.image.shape == (3, SIDE, SIDE) and one.up()[1] < -0.9
        assert (one.points - SIDE / 2).abs().max() < SIDE / ROOM
        assert one.body().sum() > 3 * one.palm**2 / 4


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_fault_changes_the_hand_and_nothing_far_from_it(canvases: list[Canvas], fault: str) -> None:
    random = torch.Generator().manual_seed(0)
    made = [(one, plant(one, fault, random)) for one in canvases]
    made = [(one, other) for one, other in made if other is not None]
    assert made, fault
    for one, other in made:
        changed = (other.image - one.image).abs().amax(0) > 0.08
        assert changed.sum() > LEAST * one.palm**2
        middle = one.points.mean(0)
        reach = (one.points - middle).norm(dim=1).max()
        assert not changed[(grid() - middle).norm(dim=-1) > 2.2 * reach].any()


def skin(canvas: Canvas, like: Canvas) -> float:
    """Pixels, in palm lengths squared, that look more like the hand than like the background of `like`."""
    assert like.skin is not None
    inside = like.image.sum(0) > 0  # black is outside the picture
    body, free = like.body() > 0.9, (like.skin < 0.1) & inside
    hand, rest = like.image[:, body].mean(1), like.image[:, free].mean(1)
    nearer = (canvas.image - hand[:, None, None]).norm(dim=0) < (canvas.image - rest[:, None, None]).norm(dim=0)
    return float((nearer & inside).sum()) / like.palm**2


@pytest.mark.parametrize(("fault", "more"), [("six", True), ("long", True), ("missing", False), ("short", False)])
def test_digits_come_and_go(canvases: list[Canvas], fault: str, more: bool) -> None:
    random = torch.Generator().manual_seed(1)
    made = [(one, plant(one, fault, random)) for one in canvases]
    change = [skin(other, one) - skin(one, one) for one, other in made if other is not None]
    assert len(change) >= 3 and (np.median(change) > 0.02 if more else np.median(change) < -0.02), change


def test_unharmed_changes_less_than_any_fault(canvases: list[Canvas]) -> None:
    random = torch.Generator().manual_seed(2)
    for one in canvases[:4]:
        body = one.body() > 0.5
        least = min(
            float((other.image - one.image).abs().mean())
            for other in (plant(one, fault, random) for fault in ("six", "missing", "bent", "tangled"))
            if other is not None
        )
        assert float((unharmed(one, random).image - one.image)[:, body].abs().mean()) < 0.2
        assert float((elsewhere(one, random).image - one.image)[:, one.body() > 0.99].abs().mean()) < 0.01
        assert least > 0


def test_geometry() -> None:
    dot = torch.zeros(1, SIDE, SIDE)
    dot[0, 60, 100] = 1  # y, x
    quarter = placed(dot, torch.tensor([80.0, 60.0]), torch.pi / 2)  # clockwise as seen: right of the pivot goes below
    assert quarter[0].flatten().argmax() == 80 * SIDE + 80
    longer = stretched(dot, torch.tensor([80.0, 60.0]), torch.tensor([1.0, 0.0]), 2.0)
    assert longer[0].flatten().argmax() == 60 * SIDE + 120
    x = torch.linspace(0, 1, SIDE).expand(3, SIDE, SIDE).contiguous()
    hole = ((grid() - SIDE / 2).norm(dim=-1) < 20).float()
    mended = filled(torch.where(hole > 0, torch.ones(()), x), hole, None, torch.Generator().manual_seed(0))
    assert (mended - x)[:, hole > 0].abs().mean() < 0.04  # from around it; what was in it is gone


@pytest.fixture(scope="module")
def made(canvases: list[Canvas]) -> list[Pair]:
    random = torch.Generator().manual_seed(3)
    behind = [torch.rand(3, SIDE, SIDE, generator=random) for _ in range(3)]
    pairs = [pair_of(canvases[i % len(canvases)], behind, random) for i in range(70)]
    return [one for one in pairs if one is not None]


def test_pairs_are_made_again(canvases: list[Canvas], made: list[Pair]) -> None:
    first, second = (pair_of(canvases[0], [], torch.Generator().manual_seed(7)) for _ in range(2))
    assert first is not None and second is not None and first.fault == second.fault
    assert torch.equal(first.sound, second.sound) and torch.equal(first.faulty, second.faulty)
    assert len(made) > 50 and len({one.fault for one in made}) >= 8
    assert made[0].sound.shape == (3, CROP, CROP) and made[0].sound.dtype == torch.uint8


def test_only_the_hand_tells(made: list[Pair]) -> None:
    """Judged on pairs that were not learnt from, by the same features, backgrounds and traces of work are chance."""
    right = {}
    for sound, faulty in (("sound", "faulty"), ("blind_sound", "blind_faulty")):
        with torch.no_grad():
            seen = [
                features(
                    torch.stack([getattr(one, name) for one in made]).float() / 255,
                    torch.stack([getattr(one, points) for one in made]),
                )
                for name, points in ((sound, "points_sound"), (faulty, "points_faulty"))
            ]
        views = [torch.stack([one, one]) for one in seen]
        names = [str(i % 5) for i in range(len(made))]
        pairs = Learnt(*views, [one.fault for one in made], names, np.ones(len(made)))
        a, b = held_out(pairs, folds_of_sources(names, 5), 1.0)
        right[sound] = float((b > a).mean())
    chance = 2.6 * 0.5 / len(made) ** 0.5
    assert abs(right["blind_sound"] - 0.5) < chance, right
    assert right["sound"] > 0.5 + chance, right


def test_the_ranking_is_the_ridge_regression_it_says() -> None:
    """The loss has no slope at the solution."""
    random = torch.Generator().manual_seed(4)
    sound, faulty = torch.randn(2, 40, 6, generator=random), torch.randn(2, 40, 6, generator=random) + 0.5
    head = fit(Learnt(sound, faulty, ["six"] * 40, ["a"] * 40, np.ones(40)), np.arange(40), 0.3)
    z, q = (((one.flatten(0, 1) - head.mean) / head.scale).clamp(-6, 6).double() for one in (sound, faulty))

    def slope(w: torch.Tensor) -> float:
        w = w.double().requires_grad_()
        loss = ((z @ w + 1) ** 2 + (q @ w - 1) ** 2 + ((q - z) @ w - 2) ** 2).mean() / 2 + 0.3 * (w @ w)
        return float(torch.autograd.grad(loss, w)[0].abs().max())

    assert slope(head.weight) < 1e-5 < 0.1 < slope(torch.zeros(6))


def test_sources_are_held_out_whole() -> None:
    sources = ["a"] * 10 + ["b"] * 5 + ["c"] * 4 + ["d"]
    folds = folds_of_sources(sources, 2)
    assert all(len(set(folds[np.array(sources) == name])) == 1 for name in "abcd")
    assert sorted(np.bincount(folds)) == [10, 10]
