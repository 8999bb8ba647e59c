"""What is trained, on what, and for how long."""

from dataclasses import dataclass

from .. import model as parts


@dataclass(frozen=True)
class Recipe:
    """What is trained, on what, and for how long; a stage ends at its minutes or its steps, whichever comes first.

    `codec_batch` and `batch` are for each process. `compile` costs one or two minutes before the first step;
    `bfloat16` is quick on a GPU or a CPU with avx512_bf16 and slow elsewhere. Together they trained 1.7 times as fast
    as plain float32 on such a CPU.
    """

    seed: int = 0
    size: int = 96
    shards: int = 48
    shard_size: int = 512
    codec_channels: tuple[int, int, int] = parts.CODEC_CHANNELS
    codec_batch: int = 4
    codec_minutes: float = 13.0
    codec_steps: int = 10**9
    codec_rate: float = 2e-3
    decoder_minutes: float = 0.0
    decoder_steps: int = 10**9
    decoder_rate: float = 1e-3
    heads: int = 4
    double: int = 2
    single: int = 4
    batch: int = 16
    minutes: float = 15.0
    steps: int = 10**9
    muon_rate: float = 4e-3
    adam_rate: float = 2e-3
    warm_up: int = 100
    average: float = 0.998
    caption_dropout: float = 0.1
    compile: bool = True
    bfloat16: bool = True
    save_every: float = 150.0


SMALL = Recipe(
    size=32,
    shards=2,
    shard_size=12,
    codec_channels=(8, 8, 8),
    codec_batch=4,
    codec_steps=4,
    decoder_steps=2,
    decoder_minutes=1.0,
    heads=1,
    double=1,
    single=1,
    batch=4,
    steps=4,
    warm_up=2,
    compile=False,
    bfloat16=False,
)
