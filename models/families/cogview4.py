"""CogView4: blocks that take and give (image, text)."""

from ..family import BlockList
from .around import Around

FAMILY = Around(
    name="CogView4",
    transformer="CogView4Transformer2DModel",
    lists=(
        BlockList(
            "transformer_blocks",
            "transformer_blocks",
            {("hidden_states", 0): ("image",), ("encoder_hidden_states", 1): ("text",)},
            (("image",), ("text",)),
        ),
    ),
    form="places",
)
