"""DiT: image tokens alone, class and time in the modulation; half of the output is variance. Pictures are square."""

from ..family import BlockList
from .around import Around

FAMILY = Around(
    name="DiT",
    transformer="DiTTransformer2DModel",
    lists=(BlockList("transformer_blocks", "transformer_blocks", {("hidden_states", 0): ("image",)}, (("image",),)),),
    text="class_labels",
    form="places",
    positional=("hidden_states",),
    together=("cond", "uncond"),
    prediction="epsilon",
)
