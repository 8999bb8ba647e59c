"""Wan 2.1 and 2.2: image tokens of all frames, frame after frame; the text is in cross-attention.

Frames stand below each other in the token grid: of 5 latent frames of 8 by 12 tokens, it has 40 rows and 12 columns.
Wan 2.2 has two transformers, of which each makes some of the steps: a plan's `of` is the number that one makes.
"""

from ..family import BlockList
from .around import Around

FAMILY = Around(
    name="Wan",
    transformer="WanTransformer3DModel",
    lists=(BlockList("blocks", "blocks", {("hidden_states", 0): ("image",)}, (("image",),)),),
    form="places",
)
