"""Small activation folders made without a model: random bits, known before they are written."""

import hashlib
from pathlib import Path

import h5py
import numpy as np
from handscope.extract.address import Plan
from handscope.extract.store.shard import STEP, TOKEN, write_shard

PLAN = Plan(["double.1", "single.0", "single.2"], [4, 2], of=4)
GRID, WIDTH = 6, 16
OLD_COLUMNS = ("image_sha256", "noise_sha256", "labels_sha256", "checksum")


def random_bits(tokens: int, seed: int, width: int = WIDTH, plan: Plan = PLAN) -> np.ndarray:
    """Finite bfloat16 numbers of either sign, denormals among them, as bits of shape (cells, tokens, width)."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 0x7F80, (len(plan.cells), tokens, width), dtype=np.uint16)
    return bits | (rng.integers(0, 2, bits.shape, dtype=np.uint16) << np.uint16(15))


def step_table(plan: Plan = PLAN) -> np.ndarray:
    return np.array([(step, plan.of - step, step / 4, step * 250, step * 250) for step in plan.steps], STEP)


def token_table(tokens: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    table = np.zeros(tokens, TOKEN)
    table["row"], table["col"] = np.divmod(rng.choice(GRID**2, tokens, replace=tokens > GRID**2), GRID)
    return table


def attrs_of(sample: str, plan: Plan = PLAN, **more: object) -> dict[str, object]:
    return {
        "plan": plan.to_json(),
        "sample": sample,
        "image_sha256": f"{sample:0<64}",
        "noise_sha256": "1" * 64,
        "model": "tiny",
        "revision": None,
        "weight_hash": "3" * 64,
        "model_dtype": "bfloat16",
        "selection": "subject",
        "rows": GRID,
        "columns": GRID,
        **more,
    }


def make_shard(
    folder: Path,
    sample: str,
    seed: int,
    tokens: int | None = None,
    width: int = WIDTH,
    plan: Plan = PLAN,
    compression: str | None = None,
    bits: np.ndarray | None = None,
    **more: object,
) -> np.ndarray:
    """Write one shard under ``folder/shards``; its tokens and bits follow from `seed`. Returns the bits."""
    tokens = 3 + seed % 5 if tokens is None else tokens
    bits = random_bits(tokens, seed, width, plan) if bits is None else bits
    path = folder / "shards" / f"{sample}.h5"
    attrs = attrs_of(sample, plan, batch_size=seed, **more)
    write_shard(path, bits, step_table(plan), token_table(tokens, seed), attrs, compression)
    return bits


def make_folder(folder: Path, samples: range, **more: object) -> dict[str, np.ndarray]:
    """Shards s00, s01, ... of 3 to 7 tokens; the third of every five has none. Returns the bits by sample."""
    names = {f"s{number:02d}": number for number in samples}
    return {
        name: make_shard(folder, name, number, tokens=0 if number % 5 == 2 else None, **more)
        for name, number in names.items()
    }


def floats(bits: np.ndarray) -> np.ndarray:
    """The slow obvious way from bfloat16 bits to float32."""
    return np.left_shift(bits.astype(np.uint32), 16).view(np.float32)


def make_old(path: Path, seed: int = 0) -> np.ndarray:
    """Make of a shard or a store one as 0.3 wrote it, with labels of its own at random; returns these, (tokens, 2)."""
    rng = np.random.default_rng(seed)
    with h5py.File(path, "r+") as file:
        tokens = file["tokens"][:]
        old = np.zeros(len(tokens), [*tokens.dtype.descr, ("label", "u1"), ("hand", "u1")])
        for name in tokens.dtype.names:
            old[name] = tokens[name]
        old["label"], old["hand"] = rng.integers(0, 4, len(old)), rng.integers(1, 3, len(old))
        del file["tokens"]
        file["tokens"] = old
        file.attrs.update({"schema": "handscope-activations-1", "selection": "hand"})
        if "samples" not in file:
            file.attrs["labels_sha256"] = "2" * 64
        else:
            samples = file["samples"][:]
            columns = [("sample", samples.dtype["sample"]), *((name, "S71") for name in OLD_COLUMNS)]
            table = np.zeros(len(samples), columns)
            for name in samples.dtype.names:
                table[name] = samples[name]
            table["labels_sha256"] = b"2" * 64
            del file["samples"]
            file["samples"] = table
            file.attrs["fingerprint"] = hashlib.sha256(np.sort(table).tobytes()).hexdigest()
    return np.stack([old["label"], old["hand"]], axis=1)
