"""Attention that is read while the model runs, in every family, against maps that are computed whole."""

from pathlib import Path

import made_families
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.capture import capture
from handscope.extract.hooks import following
from handscope.inside.attention import Groups, Look, attending, masses, reading_attention
from handscope.models.model import load
from handscope.models.sampling import Sampling

PROMPTS = ["an open left hand", "an open left hand"]
JOINT = [name for name in made_families.MAKERS if name != "sana"]


def looked(sampling: Sampling, prompts: list[str], see) -> list[str]:
    """Look at every block over image and text, at the first step."""
    transformer, family = sampling.model.transformer, sampling.model.family
    joint = {blocks.kind for blocks in family.lists if blocks.attends}
    blocks = [name for name in sampling.model.carrying("image") if name.rsplit(".", 1)[0] in joint]
    plan = Plan(blocks, [1], of=1, call="both")
    with following(transformer, [1]) as counter, attending(transformer, counter, plan, see):
        sampling.step(sampling.noise([0, 1][: len(prompts)]), prompts, 0)
    return blocks


@pytest.mark.parametrize("name", JOINT)
def test_the_sequence_is_ordered_as_the_family_says(name: str, tmp_path: Path):
    """Queries behind the rotation are as long as those before it, which are read where each stream's stand."""
    made_families.save(name, tmp_path)
    sampling = Sampling(load(str(tmp_path)), 3, 1.0, 32, 32)
    looks: list[Look] = []
    first = looked(sampling, PROMPTS, looks.append)[-1]
    plan = Plan([f"{first}:q"], [1], of=1)
    with capture(sampling.model.transformer, plan) as seen:
        sampling.step(sampling.noise([0, 1]), PROMPTS, 0)
    look = [one for one in looks if one.block == first][0]
    queries = look.query[look.call.rows["cond"]][:, :, look.places("image")].transpose(1, 2)
    own = seen[f"{first}:q", 1].reshape(queries.shape)
    torch.testing.assert_close(queries.norm(dim=-1), own.norm(dim=-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", JOINT)
def test_masses_are_those_of_the_whole_map(name: str, tmp_path: Path):
    made_families.save(name, tmp_path)
    sampling = Sampling(load(str(tmp_path)), 3, 3.5, 32, 32)
    random = torch.Generator().manual_seed(0)
    checked = []

    def see(look: Look) -> None:
        if "cond" not in look.call.rows:
            return
        image, text, rows = look.places("image"), look.places("text"), look.call.numbers("cond")
        looking = torch.rand((len(rows), image.stop - image.start), generator=random) < 0.3
        looking[:, 0] = True
        some = torch.rand((len(rows), text.stop - text.start), generator=random) < 0.5
        found = masses(look, Groups(looking, {"some": some, "others": ~some}))
        products = look.query @ look.key.transpose(-1, -2) * look.scale
        if look.mask is not None:
            products = products.masked_fill(~look.mask, -torch.inf) if look.mask.dtype == torch.bool else (
                products + look.mask
            )
        whole = products.softmax(-1)
        torch.testing.assert_close(whole @ look.value, look.output, rtol=1e-3, atol=1e-4)
        for number, row in enumerate(rows):
            of = whole[row][:, image][:, looking[number]]
            own = of[..., image][..., looking[number]]
            slow = {
                "some": of[..., text][..., some[number]].sum(-1).mean(1),
                "self": own.diagonal(dim1=1, dim2=2).mean(1),
                "subject": (own.sum(-1) - own.diagonal(dim1=1, dim2=2)).mean(1),
                "rest": of[..., image][..., ~looking[number]].sum(-1).mean(1),
            }
            for key, value in slow.items():
                torch.testing.assert_close(found[key][number], value, rtol=1e-4, atol=1e-6)
        checked.append(look.block)

    blocks = looked(sampling, PROMPTS, see)
    assert [*dict.fromkeys(checked)] == blocks


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, tiny_model, monkeypatch):
    made_families.save("sana", tmp_path)
    sana = load(str(tmp_path))
    plan = Plan(["transformer_blocks.0"], [1], of=1)
    everybody = Groups(torch.ones(1, 16, dtype=torch.bool))
    refused = pytest.raises(HandscopeError, match="The family Sana does not say in which order")
    with refused, reading_attention(sana.transformer, plan, everybody):
        pass
    sampling = Sampling(tiny_model, 3)
    block = tiny_model.transformer.transformer_blocks[0]
    monkeypatch.setattr(block.attn, "forward", lambda hidden_states, encoder_hidden_states, **more: (
        hidden_states, encoder_hidden_states,
    ))  # fmt: skip
    plan = Plan(["double.0"], [1], of=1)
    refused = pytest.raises(HandscopeError, match="another backend computes it")
    with refused, reading_attention(tiny_model.transformer, plan, everybody):
        sampling.step(sampling.noise([0]), ["a left hand"], 0)
    assert not block._forward_hooks


def test_reading_changes_no_bit(tiny_model):
    sampling = Sampling(tiny_model, 3)
    _, plain = sampling.step(sampling.noise([0]), ["a left hand"], 1)
    plan = Plan(["double.0", "single.1"], [1], of=1)
    with reading_attention(tiny_model.transformer, plan, Groups(torch.ones(1, 16, dtype=torch.bool))) as seen:
        _, again = sampling.step(sampling.noise([0]), ["a left hand"], 1)
    assert torch.equal(plain, again) and list(seen) == [("double.0", 1), ("single.1", 1)]
