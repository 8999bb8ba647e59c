"""Attribution patching against small changes, linear sites, and the circuit that it must find."""

import numpy as np
import pytest
import torch
from handscope.extract.address import Block, Cell
from handscope.guidance.attribution import attributed, exact
from handscope.guidance.interchange import Drawn, Interchange
from handscope.models.model import Model
from made_circuit import EARLY, READER, SITES, WRITER, circuit_pairs
from made_circuit import STEPS as CIRCUIT_STEPS
from made_tiny import PROMPTS, STEPS

MASKS = np.zeros((2, 16), bool)
MASKS[0, [1, 5, 6]] = MASKS[1, [2, 3]] = True
BLOCKS = ["double.0", "double.1:attn.gated", "single.0:q", "single.1", "single.2"]


@pytest.fixture(scope="module")
def close(tiny_model: Model) -> tuple[Interchange, Drawn, Drawn]:
    """Donors whose noise is the recipients' and a hundredth of another: close enough for first order."""
    interchange = Interchange(tiny_model, STEPS, 3.5, 32, 32)
    noise, other = (interchange.sampling.noise(seeds) for seeds in ([0, 1], [2, 3]))
    return (
        interchange,
        interchange.drawn(PROMPTS[:2], noise),
        interchange.drawn(PROMPTS[:2], noise + 0.01 * (other - noise)),
    )


@pytest.mark.parametrize("step", [4, 2])
def test_close_donors_are_estimated_well(close, step: int) -> None:
    interchange, recipients, donors = close
    found = attributed(interchange, recipients, donors, BLOCKS, step, MASKS)
    measured = exact(interchange, recipients, donors, BLOCKS, step, MASKS)
    assert list(found) == list(measured) == [Cell(Block.parse(block), step) for block in BLOCKS]
    for cell, values in measured.items():
        assert np.allclose(found[cell], values, atol=0.01 + 0.05 * np.abs(values).max()), cell
    assert max(np.abs(values).max() for values in measured.values()) > 0.1


def test_a_forward_counts_as_a_share_of_the_way(close, tiny_model: Model) -> None:
    """All tokens of the last block are all that the output sees: the whole way, exactly and to first order nearly."""
    interchange, recipients, donors = close
    everything = np.ones((2, 16), bool)
    cell = Cell(Block.parse("single.2"), 3)
    measured = exact(interchange, recipients, donors, ["single.2"], 3, everything)[cell]
    # The latents that the velocity is taken from are the recipient's still.
    assert ((measured > 0.05) & (measured < 1.0)).all()
    before, goal = interchange.clean(recipients, 3), interchange.clean(donors, 3)
    latents = recipients.at(3)
    sigma = interchange.sampling.sigmas[1]
    velocity = (donors.at(3) - goal) / sigma
    by_hand = latents - sigma * velocity
    way = ((by_hand - before) * (goal - before)).flatten(1).sum(1) / (goal - before).flatten(1).square().sum(1)
    assert np.allclose(measured, way.detach().numpy(), atol=1e-3)


def test_nothing_is_left_behind(close, tiny_model: Model) -> None:
    interchange, recipients, donors = close
    tiny_model.transformer.enable_gradient_checkpointing()
    try:
        attributed(interchange, recipients, donors, ["single.0"], 2, MASKS)
        assert tiny_model.transformer.is_gradient_checkpointing
    finally:
        tiny_model.transformer.disable_gradient_checkpointing()
    assert all(weights.grad is None for weights in tiny_model.transformer.parameters())
    assert torch.equal(interchange.patched(recipients, 2, MASKS), recipients.final)


def test_a_planted_circuit_is_found_by_its_gradient(circuit_model: Model) -> None:
    interchange, recipients, donors, masks = circuit_pairs(circuit_model)
    found = set()
    for step in range(CIRCUIT_STEPS, 0, -1):
        for cell, values in attributed(interchange, recipients, donors, SITES, step, masks).items():
            if values.any():
                assert (values > 0).all()
                found.add((str(cell.block), step))
    assert found == {(site, step) for site in (f"{WRITER}:mlp.gated", f"{READER}:both.gated") for step in EARLY}
