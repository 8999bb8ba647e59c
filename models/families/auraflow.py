"""AuraFlow: joint blocks, then single ones; eight learned tokens stand before the text."""

from ..family import BlockList
from .around import Around

_TEXT = ("register", "text")

FAMILY = Around(
    name="AuraFlow",
    transformer="AuraFlowTransformer2DModel",
    lists=(
        BlockList(
            "joint_transformer_blocks",
            "joint_transformer_blocks",
            {("encoder_hidden_states", 1): _TEXT, ("hidden_states", 0): ("image",)},
            (_TEXT, ("image",)),
        ),
        BlockList(
            "single_transformer_blocks",
            "single_transformer_blocks",
            {("hidden_states", 0): (*_TEXT, "image")},
            ((*_TEXT, "image"),),
        ),
    ),
    form="places",
    positional=("hidden_states",),
    together=("uncond", "cond"),
    end=1.0,
    registers=8,
)
