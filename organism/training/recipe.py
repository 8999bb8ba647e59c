"""What is trained, on what, and for how long."""

from dataclasses import dataclass, replace

from ...models.embedded import Organism
from .. import model as parts
from ..architectures import ARCHITECTURES, Architecture


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and for how long.

    `codec_batch` and `batch` are pictures a step, shared among the processes; a stage ends after its steps, so that
    neither the machine nor the number of processes decides what an organism has seen. `seed` is that of the training;
    the pictures are the same for all. `compile` costs one or two minutes before the first step; `bfloat16` is quick on
    a GPU or a CPU with avx512_bf16 and slow elsewhere.
    """

    architecture: str = "FLUX.1"
    seed: int = 0
    size: int = 96
    shards: int = 48
    shard_size: int = 512
    codec_channels: tuple[int, int, int] = parts.CODEC_CHANNELS
    codec_batch: int = 8
    codec_steps: int = 3360
    codec_rate: float = 2e-3
    decoder_steps: int = 0
    decoder_rate: float = 1e-3
    heads: int = 4
    double: int = 2
    single: int = 4
    batch: int = 32
    steps: int = 2347
    muon_rate: float = 4e-3
    adam_rate: float = 2e-3
    warm_up: int = 100
    average: float = 0.998
    caption_dropout: float = 0.1
    compile: bool = True
    bfloat16: bool = False
    save_every: float = 150.0

    @property
    def draws(self) -> Architecture:
        """The architecture itself."""
        return ARCHITECTURES[self.architecture]

    @property
    def shape(self) -> parts.Shape:
        """Sizes of the transformer."""
        return parts.Shape(self.heads, self.double, self.single)


SMALL = Recipe(
    size=32,
    shards=2,
    shard_size=12,
    codec_channels=(8, 8, 8),
    codec_batch=4,
    codec_steps=4,
    decoder_steps=2,
    heads=1,
    double=1,
    single=1,
    batch=4,
    steps=4,
    warm_up=2,
    compile=False,
)


def recipe_of(organism: Organism, small: bool = False) -> Recipe:
    """An organism's recipe, or the one in seconds: small pictures and a small transformer."""
    recipe = replace(SMALL if small else Recipe(), architecture=organism.architecture, seed=organism.seed)
    if small:
        return recipe
    return replace(recipe, heads=organism.heads, double=organism.double, single=organism.single)
