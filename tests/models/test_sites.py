"""Sites inside the blocks of every family: against sums that a block makes, hooks written by hand, and edits."""

from pathlib import Path
from typing import Any

import handscope as hs
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.generate import draw
from handscope.models.model import Model, load
from made_families import save
from torch import Tensor, nn

STEPS, GUIDANCE = 2, 2.5
PROMPTS = ["an open hand", "an left hand"]
SIZES = {"sana": (32, 64)}
TWO_CALLS = {"flux2-klein", "qwen-image"}  # the conditional one and the other
FAMILIES = ["flux", "sd3", "sd3.5-medium", "flux2-klein", "flux2-dev", "qwen-image", "z-image", "sana"]


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    """A family's tiny model."""
    return request.param


@pytest.fixture(scope="module")
def model(name: str, tiny_pipe_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """It, loaded; its hooks are this file's own. Gates and norms are not those of a model that was never trained."""
    if name == "flux":
        model = load(str(tiny_pipe_folder))
    else:
        folder = tmp_path_factory.mktemp(name) / name
        save(name, folder)
        model = load(str(folder))
    torch.manual_seed(1)
    for path, weights in model.transformer.named_parameters():
        if "norm_q" in path or "norm_k" in path or "norm_added" in path:
            nn.init.uniform_(weights.data, 0.5, 2.0)
    return model


def drawn(model: Model, name: str) -> Tensor:
    """Final latents of two samples."""
    height, width = SIZES.get(name, (32, 32))
    made = draw(model, [(prompt, 3) for prompt in PROMPTS], STEPS, GUIDANCE, height, width).trajectories
    assert made is not None
    return torch.stack([path.latents[-1] for path in made])


def seen_in(model: Model, name: str, blocks: list[str], stream: str = "image", at: str = "output") -> dict[str, Tensor]:
    with hs.capture(model.transformer, hs.Plan(blocks, [1], of=STEPS, stream=stream, at=at)) as seen:
        drawn(model, name)
    return {block: seen[block, 1] for block in blocks}


def sites(model: Model, block: str, stream: str) -> list[str]:
    """What a block has of a stream, by the message that refuses what it has not."""
    with pytest.raises(HandscopeError, match="has no site 'nothing'") as refused:
        model.family.site(model.transformer, block, "nothing", stream)
    named = str(refused.value).partition("it has ")[2].partition(". Name")[0].split(", ")
    found = []
    for site in named:
        try:
            model.family.site(model.transformer, block, site, stream)
        except HandscopeError as error:
            assert f"no {stream} stream" in str(error)
        else:
            found.append(site)
    return found


@pytest.mark.parametrize("stream", ["image", "text"])
def test_a_block_adds_what_stands_behind_its_gates_to_its_stream(model: Model, name: str, stream: str) -> None:
    """In the order in which it does, so that sums are the same to the bit."""
    carrying = model.carrying(stream)
    if not carrying:
        pytest.skip("its blocks have no text")
    given = seen_in(model, name, carrying, stream, "input")
    for block in carrying:
        have = sites(model, block, stream)
        added = [site for site in have if site.endswith(".gated") or f"{site}.gated" not in have and site not in "qkv"]
        assert added, block
        values = seen_in(model, name, [block, *(f"{block}:{site}" for site in added)], stream)
        total = given[block]
        for site in added:
            total = total + values[f"{block}:{site}"]
            assert values[f"{block}:{site}"].abs().max() > 0
        assert torch.equal(total, values[block]), block


@pytest.mark.parametrize("stream", ["image", "text"])
def test_an_edit_of_a_site_that_changes_nothing_changes_no_bit(model: Model, name: str, stream: str) -> None:
    bare = drawn(model, name)
    for block in dict.fromkeys([*model.carrying(stream)[:1], *model.carrying(stream)[-1:]]):
        every = [f"{block}:{site}" for site in sites(model, block, stream)]
        every = [site for site in every if not (name == "sana" and site.endswith("gated"))]
        every += [f"{site}.1" for site in every if site[-1] in "qkv"]
        for site in every:
            with hs.edit(model.transformer, hs.Plan([site], [2, 1], of=STEPS, stream=stream, call="both"), kept):
                assert torch.equal(drawn(model, name), bare), site


def kept(values: Tensor, cell: Any) -> Tensor:
    return values


def test_twice_the_values_behind_a_gate_are_twice_those_before_it(model: Model, name: str) -> None:
    """Doubling is exact, so both edits must give the same bits, and other ones than no edit."""
    bare, block = drawn(model, name), model.carrying("image")[0]
    for site in sites(model, block, "image"):
        if site.endswith(".gated") and name != "sana":
            made = []
            for where in (site, site.removesuffix(".gated")):
                plan = hs.Plan([f"{block}:{where}"], [2], of=STEPS, call="both")
                with hs.edit(model.transformer, plan, lambda values, cell: 2 * values):
                    made.append(drawn(model, name))
            assert torch.equal(*made) and not torch.equal(made[0], bare), site


ATTENTION = {"z-image": "attention", "sana": "attn1"}


def test_queries_keys_and_values_are_what_hooks_by_hand_see(model: Model, name: str) -> None:
    """Of the first block, by head: the norm's output, or the projection's where there is no norm."""
    block = model.carrying("image")[0]
    attention = getattr(model.family.blocks(model.transformer)[block], ATTENTION.get(name, "attn"))
    heads, handles = attention.heads, []
    found: dict[str, list[Tensor]] = {letter: [] for letter in "qkv"}
    for letter in "qkv":
        norm = None if letter == "v" else getattr(attention, f"norm_{letter}", None)
        module = norm or getattr(attention, f"to_{letter}")

        def hook(module: nn.Module, args: Any, output: Tensor, letter: str = letter) -> None:
            found[letter].append(output)

        handles.append(module.register_forward_hook(hook))
    seen = seen_in(model, name, [f"{block}:{site}" for site in ("q", "k", "v", "q.1", "v.0")])
    for handle in handles:
        handle.remove()
    samples, tokens = seen[f"{block}:q"].shape[:2]
    for letter, calls in found.items():
        by_hand = calls[-2 if name in TWO_CALLS else -1]
        if by_hand.ndim == 4 and by_hand.shape[1] == heads and by_hand.shape[2] != heads:
            by_hand = by_hand.transpose(1, 2)
        by_hand = by_hand.flatten(2).unflatten(2, (heads, -1))
        # Of two halves the conditional one.
        rows = slice(samples) if name == "z-image" else slice(len(by_hand) - samples, None)
        assert torch.equal(seen[f"{block}:{letter}"], by_hand[rows, :tokens]), letter
    assert torch.equal(seen[f"{block}:q.1"], seen[f"{block}:q"][:, :, 1])
    assert torch.equal(seen[f"{block}:v.0"], seen[f"{block}:v"][:, :, 0])


def test_a_head_whose_values_are_none_is_a_projection_without_its_rows(model: Model, name: str) -> None:
    block = model.carrying("image")[0]
    attention = getattr(model.family.blocks(model.transformer)[block], ATTENTION.get(name, "attn"))
    with hs.edit(model.transformer, hs.Plan([f"{block}:v.1"], [2, 1], of=STEPS, call="both"), lambda v, cell: 0 * v):
        edited = drawn(model, name)
    rows = slice(len(attention.to_v.weight) // attention.heads, 2 * len(attention.to_v.weight) // attention.heads)
    kept = [(one, one.detach().clone()) for one in attention.to_v.parameters()]
    with torch.no_grad():
        for one, _ in kept:
            one[rows] = 0
        by_hand = drawn(model, name)
        for one, before in kept:
            one.copy_(before)
    assert torch.allclose(edited, by_hand, atol=1e-6) and not torch.equal(edited, drawn(model, name))
