"""What blocks return, as the table of another library has it that nobody here wrote: cache-dit."""

import made_around
import made_families
import pytest
from cache_dit.caching.block_adapters.block_registers import BlockAdapterRegister
from diffusers import DiffusionPipeline
from handscope.models.registry import family_of

STREAM = {"hidden_states": "image", "encoder_hidden_states": "text"}
AROUND = ["chroma", "auraflow", "lumina2", "hidream", "cogview4", "krea2", "pixart", "dit", "wan_picture"]


def as_list(value: object) -> list:
    """What the table gives bare where there is one list of blocks, and in a list of lists where there are several."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("name", [*made_families.MAKERS, *AROUND])
def test_the_streams_that_a_block_returns(name: str) -> None:
    whole = made_families.MAKERS[name]() if name in made_families.MAKERS else made_around.make(name)
    model = whole.transformer
    known = BlockAdapterRegister.get_adapter(whole if isinstance(whole, DiffusionPipeline) else model)
    own = {model.get_submodule(one.path): one for one in family_of(model).lists}
    lists = as_list(known.blocks)
    assert lists
    for blocks, pattern in zip(lists, as_list(known.forward_pattern), strict=True):
        gives = own[blocks].gives
        assert len(gives) == len(pattern.Out)
        assert all(STREAM[stream] in tensor for stream, tensor in zip(pattern.Out, gives, strict=True))
