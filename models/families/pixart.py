"""PixArt-Alpha and Sigma: image tokens alone, the text in cross-attention; half of the output is variance."""

from ..family import BlockList
from .around import Around

FAMILY = Around(
    name="PixArt",
    transformer="PixArtTransformer2DModel",
    lists=(BlockList("transformer_blocks", "transformer_blocks", {("hidden_states", 0): ("image",)}, (("image",),)),),
    form="places",
    positional=("hidden_states",),
    together=("uncond", "cond"),
    prediction="epsilon",
)
