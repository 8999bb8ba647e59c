"""The recipe of the organism, from the renderer to a saved `FluxPipeline`.

    python -m handscope.organism.train --work DIR [stage ...]

runs the stages render, autoencoder, latents, transformer, decoder and save, or those named. Each may be killed and
run again with the same command: it goes on where its last checkpoint in DIR stands. To use two cores well, start two
processes of one thread each:

    OMP_NUM_THREADS=1 torchrun --nproc_per_node 2 -m handscope.organism.train --work DIR
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import torch.distributed as dist
import transformers
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor, nn

from ..errors import HandscopeError
from ..files import atomic, sha256
from . import model as parts
from .captions import CAPTIONS
from .muon import Muon
from .render import mirror_caption, render_dataset

STAGES = ("render", "autoencoder", "latents", "transformer", "decoder", "save")


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


class Crew:
    """The processes that train together: one, or as many as torchrun started."""

    def __init__(self) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        else:
            self.device = torch.device("cpu")
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def leads(self) -> bool:
        """Whether this process writes what all share."""
        return self.rank == 0

    def wait(self) -> None:
        """Let every process come to this line."""
        if self.world > 1:
            dist.barrier()

    def agree(self, value: float) -> float:
        """The first process's value, in every process."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return shared.item()

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Mean of the gradients over the processes, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


class Course:
    """How far one training is, and when it is time to write; its checkpoint keeps the time spent over restarts."""

    def __init__(self, name: str, work: Path, minutes: float, steps: int, crew: Crew, save_every: float) -> None:
        self.checkpoint = work / f"{name}.pt"
        self.log = work / f"{name}.jsonl"
        self.seconds, self.steps, self.crew, self.save_every = minutes * 60, steps, crew, save_every
        self.state: dict[str, Any] = {"step": 0, "elapsed": 0.0, "samples": 0}
        self._losses: list[float] = []
        self._started = self._logged = self._saved = time.monotonic()
        self._samples = 0

    def restore(self) -> dict[str, Any] | None:
        """The checkpoint to go on from, or None."""
        if not self.checkpoint.exists():
            return None
        found = torch.load(self.checkpoint, map_location=self.crew.device, weights_only=True)
        self.state = found["state"]
        self._started = time.monotonic() - self.state["elapsed"]
        self._samples = self.state["samples"]
        return found

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return self.state["step"]

    def fraction(self) -> float:
        """Share of the way that is done, the same in every process; 1 or more ends the training."""
        elapsed = time.monotonic() - self._started
        return self.crew.agree(max(elapsed / self.seconds if self.seconds else 1.0, self.step / self.steps))

    def advance(self, loss: Tensor, samples: int, every: float = 30.0) -> None:
        """Count a step, and every half minute write a line to the log."""
        now = time.monotonic()
        self.state = {
            "step": self.step + 1,
            "elapsed": now - self._started,
            "samples": self.state["samples"] + samples * self.crew.world,
        }
        self._losses.append(float(loss))
        if self.crew.leads and now - self._logged > every:
            speed = (self.state["samples"] - self._samples) / (now - self._logged)
            self.write(loss=round(sum(self._losses) / len(self._losses), 4), samples_per_second=round(speed, 1))
            self._losses, self._logged, self._samples = [], now, self.state["samples"]

    def write(self, **values: float) -> None:
        """Append a line to the log and show it."""
        line = json.dumps({"step": self.step, "seconds": round(self.state["elapsed"]), **values})
        with open(self.log, "a") as file:
            file.write(line + "\n")
        print(self.checkpoint.stem, line, flush=True)

    def save(self, final: bool = False, **contents: Any) -> bool:
        """Write the checkpoint if it is time, or if `final`; says whether it did."""
        if not self.crew.leads or not (final or time.monotonic() - self._saved > self.save_every):
            return False
        with atomic(self.checkpoint) as path:
            torch.save({"state": self.state, **contents}, path)
        self._saved = time.monotonic()
        return True


def _draws(recipe: Recipe, step: int, rank: int) -> torch.Generator:
    """Random numbers of one step of one process, which depend on nothing else: a restart draws the same."""
    return torch.Generator().manual_seed(((recipe.seed + 1) * 1_000_003 + rank) * 10_000_019 + step)


def _follow(average: dict[str, Tensor], now: Iterable[tuple[str, Tensor]], step: int, limit: float) -> None:
    """Exponential moving average, quicker at the start so that the first weights are soon forgotten."""
    keep = min(limit, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in now:
            average[name].lerp_(value, 1 - keep)


def _shards(work: Path, recipe: Recipe) -> list[Path]:
    paths = [work / "renders" / f"{number:04d}.npy" for number in range(recipe.shards)]
    for path in paths:
        if not path.with_suffix(".json").exists():
            raise HandscopeError(
                f"Expected {recipe.shards} shards of rendered hands in {path.parent}, but {path.name} is not there: "
                "run the stage render first."
            )
    return paths


def render(work: Path, recipe: Recipe, crew: Crew) -> None:
    """Draw the training images: `shards` pairs of NNNN.npy (uint8, n x 3 x size x size) and NNNN.json (captions).

    Shard 0 is held out from training the autoencoder.
    """
    for number in range(crew.rank, recipe.shards, crew.world):
        path = work / "renders" / f"{number:04d}.npy"
        if path.with_suffix(".json").exists():
            continue
        batch = render_dataset(recipe.shard_size, recipe.seed * recipe.shards + number, recipe.size)
        with atomic(path) as temporary:
            np.save(temporary, batch.images.numpy())
        with atomic(path.with_suffix(".json")) as temporary:  # last: its presence says that the shard is whole
            temporary.write_text(json.dumps(batch.captions))
    crew.wait()


def _pixels(images: np.ndarray, device: torch.device) -> Tensor:
    return (torch.from_numpy(np.array(images)).to(device).float() / 127.5 - 1).contiguous(
        memory_format=torch.channels_last
    )


def _difference(found: Tensor, wanted: Tensor) -> Tensor:
    """L1 + half of the gradients' L1 + twice the squared error."""
    error = found - wanted
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges + 2 * error.square().mean()


@torch.no_grad()
def psnr(vae: AutoencoderKL, images: np.ndarray, device: torch.device | None = None) -> float:
    """Mean over images of the peak signal-to-noise ratio of their reconstruction, in dB.

    Parameters
    ----------
    images : array of shape (n, 3, size, size), uint8
    """
    device = device or torch.device("cpu")
    ratios = []
    for at in range(0, len(images), 32):
        wanted = _pixels(images[at : at + 32], device)
        found = vae.decode(vae.encode(wanted).latent_dist.mode()).sample.clamp(-1, 1)
        ratios.append(-10 * ((found - wanted) / 2).square().mean((1, 2, 3)).log10())
    return torch.cat(ratios).mean().item()


def _codec(work: Path, recipe: Recipe, name: str, device: torch.device) -> AutoencoderKL:
    """The averaged weights of a checkpoint of the autoencoder."""
    path = work / f"{name}.pt"
    if not path.exists():
        raise HandscopeError(
            f"Expected a trained autoencoder at {path}, which is not there: run the stage autoencoder first."
        )
    vae = parts.autoencoder(recipe.codec_channels, recipe.size)
    vae.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["ema"])
    return vae.to(device).eval()


def autoencoder(work: Path, recipe: Recipe, crew: Crew, decoder_only: bool = False) -> None:
    """Train the autoencoder, or go on with its decoder while the encoder, and so every latent, stays as it is.

    Half of the latents get noise of up to a fifth of their spread, because the transformer's latents will not be
    perfect.
    """
    name, minutes, steps, rate = (
        ("decoder", recipe.decoder_minutes, recipe.decoder_steps, recipe.decoder_rate)
        if decoder_only
        else ("autoencoder", recipe.codec_minutes, recipe.codec_steps, recipe.codec_rate)
    )
    course = Course(name, work, minutes, steps, crew, min(60.0, recipe.save_every))
    torch.manual_seed(recipe.seed)
    if decoder_only:
        vae = _codec(work, recipe, "autoencoder", crew.device).train()
        vae.encoder.requires_grad_(False)
    else:
        vae = parts.autoencoder(recipe.codec_channels, recipe.size).to(crew.device)
    vae = vae.to(memory_format=torch.channels_last)
    learnt = [p for p in vae.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learnt, rate, betas=(0.9, 0.99), weight_decay=1e-3)
    average = {key: value.detach().clone() for key, value in vae.state_dict().items()}
    if found := course.restore():
        vae.load_state_dict(found["model"])
        optimiser.load_state_dict(found["optimiser"])
        average = found["ema"]
    shards = [np.load(path, mmap_mode="r") for path in _shards(work, recipe)]
    held, train = shards[0][:128], shards[1:]
    judge = parts.autoencoder(recipe.codec_channels, recipe.size).to(crew.device)

    def save(final: bool = False) -> None:
        if course.save(final, model=vae.state_dict(), optimiser=optimiser.state_dict(), ema=average, world=crew.world):
            judge.load_state_dict(average)
            course.write(psnr=round(psnr(judge, held, crew.device), 2))

    began = course.step
    while (fraction := course.fraction()) < 1:
        draws = _draws(recipe, course.step, crew.rank)
        scale = min(1.0, (course.step + 1) / recipe.warm_up)
        if fraction > 0.4:
            scale *= 0.02 + 0.49 * (1 + math.cos(math.pi * (fraction - 0.4) / 0.6))
        for group in optimiser.param_groups:
            group["lr"] = rate * scale
        shard = train[int(torch.randint(len(train), (1,), generator=draws))]
        images = _pixels(
            shard[torch.randint(len(shard), (recipe.codec_batch,), generator=draws).sort().values.numpy()], crew.device
        )
        if torch.rand(1, generator=draws) < 0.5:
            images = images.flip(-1)
        with torch.set_grad_enabled(not decoder_only):
            posterior = vae.encode(images).latent_dist
            spread = torch.randn(posterior.mean.shape, generator=draws).to(crew.device)
            latents = posterior.mean if decoder_only else posterior.mean + posterior.std * spread
        shape = (len(images), 1, 1, 1)
        noise = 0.2 * torch.rand(shape, generator=draws) * (torch.rand(shape, generator=draws) < 0.5)
        extra = torch.randn(latents.shape, generator=draws).to(crew.device)
        loss = _difference(vae.decode(latents + noise.to(crew.device) * latents.detach().std() * extra).sample, images)
        if not decoder_only:
            loss = loss + 5e-4 * 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        optimiser.zero_grad(set_to_none=False)
        loss.backward()
        crew.average_gradients(learnt)
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        _follow(average, vae.state_dict().items(), course.step, recipe.average)
        course.advance(loss.detach(), len(images))
        save()
    if course.step > began:
        save(final=True)
    crew.wait()


def _encoder_hash(vae: AutoencoderKL) -> str:
    return sha256(b"".join(value.detach().cpu().numpy().tobytes() for value in vae.encoder.state_dict().values()))


@torch.no_grad()
def latents(work: Path, recipe: Recipe, crew: Crew) -> None:
    """Encode every render and its mirror once: packed posterior means, float16, NNNN.npy of shape (2n, tokens, 32).

    Their mean and spread over the first shards become the pipeline's shift and scaling factor (latents/scale.json).
    """
    vae = _codec(work, recipe, "autoencoder", crew.device).to(memory_format=torch.channels_last)
    folder, made_by = work / "latents", _encoder_hash(vae)
    seal = folder / "scale.json"
    stale = seal.exists() and json.loads(seal.read_text())["encoder"] != made_by
    crew.wait()  # all must have read the seal before it is changed
    total, squares, count = 0.0, 0.0, 0
    for number, path in enumerate(_shards(work, recipe)):
        target = folder / path.name
        if number % crew.world == crew.rank and (stale or not target.exists()):
            images = np.load(path)
            both = np.concatenate([images, images[..., ::-1]])
            packed = [
                parts.pack(vae.encode(_pixels(both[at : at + 32], crew.device)).latent_dist.mode())
                for at in range(0, len(both), 32)
            ]
            with atomic(target) as temporary:
                np.save(temporary, torch.cat(packed).cpu().numpy().astype(np.float16))
    crew.wait()
    if crew.leads:
        for path in _shards(work, recipe)[:8]:
            values = np.load(folder / path.name).astype(np.float64)
            total, squares, count = total + values.sum(), squares + (values**2).sum(), count + values.size
        mean = total / count
        with atomic(seal) as temporary:
            temporary.write_text(
                json.dumps(
                    {
                        "encoder": made_by,
                        "shift_factor": mean,
                        "scaling_factor": 1 / math.sqrt(squares / count - mean**2),
                    }
                )
            )
    crew.wait()


def _read_latents(work: Path, recipe: Recipe) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """All latents as stored, (n, tokens, 32) float16; the number of each one's caption, (n,); and the seal."""
    seal = work / "latents" / "scale.json"
    if not seal.exists():
        raise HandscopeError(
            f"Expected the encoded renders in {seal.parent}, but {seal.name} is not there: run the stage latents first."
        )
    known = {str(caption): number for number, caption in enumerate(CAPTIONS)}
    values, numbers = [], []
    for path in _shards(work, recipe):
        captions = json.loads(path.with_suffix(".json").read_text())
        numbers += [known[caption] for caption in captions + [mirror_caption(caption) for caption in captions]]
        values.append(torch.from_numpy(np.load(work / "latents" / path.name)))
    return torch.cat(values), torch.tensor(numbers), json.loads(seal.read_text())


class _Fixed(nn.Module):
    """Stands in for the position embedding while training: the positions never change, so neither do their angles."""

    def __init__(self, value: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.value = value

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.value


def matrices(flux: FluxTransformer2DModel) -> list[str]:
    """Names of the parameters that Muon trains: the matrices of attention and feed-forward layers inside the blocks."""
    inside = ("attn.", "ff.", "ff_context.", "proj_mlp.", "proj_out.")
    return [
        name
        for name, p in flux.named_parameters()
        if p.ndim == 2 and "transformer_blocks" in name and any(part in name for part in inside)
    ]


def transformer(work: Path, recipe: Recipe, crew: Crew) -> None:
    """Train the transformer to predict noise minus data, at logit-normal times shifted as the sampler shifts them."""
    course = Course("transformer", work, recipe.minutes, recipe.steps, crew, recipe.save_every)
    device = crew.device
    stored, numbers, seal = _read_latents(work, recipe)
    clip, t5 = parts.clip_tokenizer(), parts.t5_tokenizer()
    pooled, sequence = (
        value.to(device)
        for value in parts.embed(
            [str(caption) for caption in CAPTIONS] + [""], clip, t5, *parts.text_encoders(clip, t5)
        )
    )
    torch.manual_seed(recipe.seed)
    flux = parts.transformer(parts.Shape(recipe.heads, recipe.double, recipe.single)).to(device)
    side = recipe.size // 8
    image_ids = torch.zeros(side * side, 3, device=device)
    image_ids[:, 1] = torch.arange(side * side) // side
    image_ids[:, 2] = torch.arange(side * side) % side
    text_ids = torch.zeros(parts.TEXT_LENGTH, 3, device=device)
    flux.pos_embed = _Fixed(flux.pos_embed(torch.cat([text_ids, image_ids])))
    inside = set(matrices(flux))
    muon = Muon([p for name, p in flux.named_parameters() if name in inside], recipe.muon_rate)
    rest = [p for name, p in flux.named_parameters() if name not in inside]
    adam = torch.optim.AdamW(rest, recipe.adam_rate, betas=(0.9, 0.99), weight_decay=0.0)
    learnt = list(flux.parameters())
    average = {name: p.detach().clone() for name, p in flux.named_parameters()}
    if found := course.restore():
        if found["encoder"] != seal["encoder"]:
            raise HandscopeError(
                f"Expected {course.checkpoint} to come from the latents in {work / 'latents'}, but they were "
                "encoded anew since: delete the checkpoint to train from the start."
            )
        flux.load_state_dict(found["model"])
        muon.load_state_dict(found["muon"])
        adam.load_state_dict(found["adam"])
        average = found["ema"]
    if recipe.bfloat16:  # in bfloat16 on a CPU, attention by plain products takes half as long as the fused kernel
        flux.set_attention_backend("_native_math")
    if recipe.compile:
        for block in [*flux.transformer_blocks, *flux.single_transformer_blocks]:
            block.compile(dynamic=False)
    sampler = parts.scheduler().config
    mu = calculate_shift(
        side * side, sampler.base_image_seq_len, sampler.max_image_seq_len, sampler.base_shift, sampler.max_shift
    )

    def save(final: bool = False) -> None:
        if course.save(
            final,
            model=flux.state_dict(),
            muon=muon.state_dict(),
            adam=adam.state_dict(),
            ema=average,
            encoder=seal["encoder"],
            world=crew.world,
        ):
            with atomic(work / "snapshots" / f"{course.step:07d}.pt") as path:
                torch.save(
                    {"state": course.state, "ema": average, "encoder": seal["encoder"], "world": crew.world}, path
                )

    began = course.step
    while (fraction := course.fraction()) < 1:
        draws = _draws(recipe, course.step, crew.rank)
        scale = min(1.0, (course.step + 1) / recipe.warm_up, (1 - fraction) / 0.35)
        for optimiser, rate in ((muon, recipe.muon_rate), (adam, recipe.adam_rate)):
            for group in optimiser.param_groups:
                group["lr"] = rate * scale
        chosen = torch.randint(len(stored), (recipe.batch,), generator=draws)
        clean = (stored[chosen].float() - seal["shift_factor"]) * seal["scaling_factor"]
        empty = torch.rand(recipe.batch, generator=draws) < recipe.caption_dropout
        words = torch.where(empty, len(CAPTIONS), numbers[chosen])
        uniform = torch.sigmoid(torch.randn(recipe.batch, generator=draws))
        sigma = math.exp(mu) * uniform / (1 + (math.exp(mu) - 1) * uniform)
        noise = torch.randn(clean.shape, generator=draws)
        guidance = 1 + 4 * torch.rand(recipe.batch, generator=draws)
        clean, words, sigma, noise, guidance = (value.to(device) for value in (clean, words, sigma, noise, guidance))
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
            velocity = flux(
                hidden_states=clean + sigma[:, None, None] * (noise - clean),
                encoder_hidden_states=sequence[words],
                pooled_projections=pooled[words],
                timestep=sigma,
                img_ids=image_ids,
                txt_ids=text_ids,
                guidance=guidance,
                return_dict=False,
            )[0]
        loss = (velocity.float() - (noise - clean)).square().mean()
        flux.zero_grad(set_to_none=False)
        loss.backward()
        crew.average_gradients(learnt)
        nn.utils.clip_grad_norm_(rest, 1.0)
        adam.step()
        muon.step()
        _follow(average, flux.named_parameters(), course.step, recipe.average)
        course.advance(loss.detach(), recipe.batch)
        save()
    if course.step > began:
        save(final=True)
    crew.wait()


def save(work: Path, recipe: Recipe, crew: Crew, out: Path | None = None, weights: Path | None = None) -> None:
    """Join the averaged weights into a pipeline folder, with a training.json that says what was run.

    Parameters
    ----------
    out : the folder to write, by default DIR/pipe.
    weights : a snapshot of the transformer, by default its last checkpoint. Training length sets how many hands are
    malformed.
    """
    if not crew.leads:
        return
    weights = weights or work / "transformer.pt"
    if not weights.exists():
        raise HandscopeError(
            f"Expected a trained transformer at {weights}, which is not there: run the stage transformer first."
        )
    codec = "decoder" if (work / "decoder.pt").exists() else "autoencoder"
    vae = _codec(work, recipe, codec, torch.device("cpu"))
    found = torch.load(weights, map_location="cpu", weights_only=True)
    seal = json.loads((work / "latents" / "scale.json").read_text())
    if not found["encoder"] == seal["encoder"] == _encoder_hash(vae):
        raise HandscopeError(
            f"Expected {weights}, the latents and {work / codec}.pt to share one encoder, but they do not: "
            "run the stages latents and transformer again."
        )
    vae.register_to_config(shift_factor=seal["shift_factor"], scaling_factor=seal["scaling_factor"])
    flux = parts.transformer(parts.Shape(recipe.heads, recipe.double, recipe.single))
    flux.load_state_dict(found["ema"])
    out = out or work / "pipe"
    parts.assemble(vae, flux).save_pretrained(out)
    stages = {
        name: torch.load(work / f"{name}.pt", map_location="cpu", weights_only=True)["state"]
        for name in ("autoencoder", "decoder")
        if (work / f"{name}.pt").exists()
    }
    held = np.load(work / "renders" / "0000.npy")
    with atomic(out / "training.json") as path:
        path.write_text(
            json.dumps(
                {
                    "recipe": asdict(recipe),
                    "processes": found["world"],
                    "images": recipe.shards * recipe.shard_size,
                    "trained": {**stages, "transformer": found["state"]},
                    "psnr_held_out_db": round(psnr(vae, held), 2),
                    "bytes": parts.folder_size(out),
                    "versions": {
                        "torch": torch.__version__,
                        "diffusers": diffusers.__version__,
                        "transformers": transformers.__version__,
                    },
                },
                indent=1,
            )
            + "\n"
        )
    print(f"{out}: {parts.folder_size(out) / 1e6:.1f} MB", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m handscope.organism.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"any of {', '.join(STAGES)}; all by default")
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="where renders, checkpoints and logs live"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the pipeline folder that save writes (default: DIR/pipe)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="the snapshot that save takes (default: the last checkpoint)"
    )
    parser.add_argument(
        "--small", action="store_true", help="seconds instead of hours: to test the recipe, not to draw hands"
    )
    settings = {name: kind for name, kind in Recipe.__annotations__.items() if kind in (int, float, bool)}
    for name, kind in settings.items():
        flag = "--" + name.replace("_", "-")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(flag, type=kind, metavar="N", help=f"default {getattr(Recipe(), name):g}")
    given = parser.parse_args(arguments)
    if unknown := [stage for stage in given.stages if stage not in STAGES]:
        parser.error(f"there is no stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    chosen = {name: getattr(given, name) for name in settings if getattr(given, name) is not None}
    recipe, crew = replace(SMALL if given.small else Recipe(), **chosen), Crew()
    run: dict[str, Callable[[Path, Recipe, Crew], None]] = {
        "render": render,
        "autoencoder": autoencoder,
        "latents": latents,
        "transformer": transformer,
        "decoder": partial(autoencoder, decoder_only=True),
    }
    for stage in given.stages or STAGES:
        if stage == "save":
            save(given.work, recipe, crew, given.out, given.weights)
        elif stage != "decoder" or recipe.decoder_minutes:
            run[stage](given.work, recipe, crew)


if __name__ == "__main__":
    main()
