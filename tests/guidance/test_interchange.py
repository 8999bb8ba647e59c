"""Interchange against hooks written by hand, the circuit that it must find, and a sample with itself."""

import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.guidance.interchange import Drawn, Interchange, elsewhere, share_of_way
from handscope.models.model import Model
from made_circuit import EARLY, READER, SITES, WRITER, circuit_pairs
from made_circuit import STEPS as CIRCUIT_STEPS
from made_tiny import PROMPTS, STEPS

MASKS = np.zeros((2, 16), bool)
MASKS[0, [1, 5, 6]] = MASKS[1, [2, 3]] = True


@pytest.fixture(scope="module")
def pair(tiny_model: Model) -> tuple[Interchange, Drawn, Drawn]:
    """Recipients and donors of one prompt each, at other noises."""
    interchange = Interchange(tiny_model, STEPS, 3.5, 32, 32)
    drawn = [interchange.drawn(PROMPTS[:2], interchange.sampling.noise(seeds)) for seeds in ([0, 1], [2, 3])]
    return interchange, drawn[0], drawn[1]


@pytest.mark.parametrize("step", [4, 2, 1])
@pytest.mark.parametrize("block", ["double.1", "single.2", "double.0:q", "single.0:both.gated"])
def test_a_sample_with_itself_changes_no_bit(pair, block: str, step: int) -> None:
    interchange, recipients, _ = pair
    values = interchange.values(recipients, Plan([block], [step], of=STEPS), MASKS)
    assert torch.equal(interchange.patched(recipients, step, MASKS, values), recipients.final)
    assert torch.equal(interchange.patched(recipients, step, MASKS, latents=recipients.at(step)), recipients.final)


def test_a_donor_is_what_hooks_by_hand_put_in(pair, tiny_model: Model) -> None:
    """Both blocks of a window at step 2 of 4, in one generation after the other, from the noise on."""
    interchange, recipients, donors = pair
    blocks, sampling = tiny_model.family.blocks(tiny_model.transformer), interchange.sampling
    kept: dict[str, torch.Tensor] = {}

    def drawn_on(drawn: Drawn, hook) -> torch.Tensor:
        x = drawn.at(STEPS)
        for index in range(STEPS):
            names = ("double.1", "single.0") if index == 2 else ()
            handles = [blocks[name].register_forward_hook(hook(name)) for name in names]
            x, _ = sampling.step(x, drawn.prompts, index)
            for handle in handles:
                handle.remove()
        return x

    def keeping(name):
        return lambda module, args, output: kept.update({name: output[1].clone()})

    def putting(name):
        def hook(module, args, output):
            image = output[1].clone()
            for row, mask in enumerate(MASKS):
                image[row, mask] = kept[name][row, mask]
            return output[0], image

        return hook

    drawn_on(donors, keeping)
    by_hand = drawn_on(recipients, putting)
    values = interchange.values(donors, Plan(["double.1", "single.0"], [2], of=STEPS), MASKS)
    made = interchange.patched(recipients, 2, MASKS, values)
    assert torch.equal(made, by_hand) and not torch.equal(made, recipients.final)


def test_latents_of_the_region_are_put_in_at_their_step(pair) -> None:
    interchange, recipients, donors = pair
    everything = np.ones((2, 16), bool)
    assert torch.equal(interchange.patched(recipients, 2, everything, latents=donors.at(2)), donors.final)
    made = interchange.patched(recipients, 2, MASKS, latents=donors.at(2))
    way = share_of_way(made, recipients.final, donors.final, MASKS)
    assert ((way > 0.1) & (way < 1.5)).all()
    assert np.allclose(share_of_way(donors.final, recipients.final, donors.final, MASKS), 1)


def test_only_what_remains_is_drawn(pair, tiny_model: Model) -> None:
    interchange, recipients, donors = pair
    values = interchange.values(donors, Plan(["single.0"], [3], of=STEPS), MASKS)
    before = interchange.sampling.calls
    interchange.patched(recipients, 3, MASKS, values)
    assert interchange.sampling.calls - before == 3 * 2
    with pytest.raises(HandscopeError, match="single.0/3 lies before it"):
        interchange.patched(recipients, 2, MASKS, values)


def test_tokens_elsewhere_are_as_many_and_others() -> None:
    drawn = elsewhere(MASKS, seed=0)
    assert (drawn.sum(1) == MASKS.sum(1)).all() and not (drawn & MASKS).any()
    assert (elsewhere(~MASKS, seed=0) == MASKS).all()


def test_a_planted_circuit_is_found_and_nothing_else(circuit_model: Model) -> None:
    """The writer's MLP and the reader, where the writer's gate is open; no other site, step or token."""
    interchange, recipients, donors, masks = circuit_pairs(circuit_model)
    found = set()
    for site in SITES:
        for step in range(CIRCUIT_STEPS, 0, -1):
            values = interchange.values(donors, Plan([site], [step], of=CIRCUIT_STEPS), masks)
            made = interchange.patched(recipients, step, masks, values)
            if not torch.equal(made, recipients.final):
                assert (share_of_way(made, recipients.final, donors.final, masks) > 0).all()
                found.add((site, step))
            other = elsewhere(masks, seed=step)
            values = interchange.values(donors, Plan([site], [step], of=CIRCUIT_STEPS), other)
            moved = interchange.patched(recipients, step, other, values) - recipients.final
            # What the reader found stands at every token; the mark at flagged ones alone.
            assert (site == f"{READER}:both.gated" and step in EARLY) or not moved.any()
    assert found == {(site, step) for site in (f"{WRITER}:mlp.gated", f"{READER}:both.gated") for step in EARLY}
