"""Small decoders: from packed latents to pictures at next to no cost, for guidance by a picture and for filmstrips.

Guidance follows a decoder's gradient, and a decoder that paints nearly the same pictures can have quite another one:
the best linear map of the organism's latents is within 24 dB of its own decoder, and its gradients are at right angles
to that one's. So a small network is fitted to what the model's own decoder makes of predicted clean latents *with noise
on them*, which says how a picture changes where the model's own predictions never lie; `agreement` is the measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from ..errors import HandscopeError
from ..progress import Progress, quiet
from .checkpoints import quiet_libraries

if TYPE_CHECKING:
    import pandas as pd

    from ..run.folder import Run
    from .model import Model

WIDTH, LAYERS = 32, 3  # of 3 by 3, so that as many latents on each side have a say in a cell
NOISE = 0.5  # at most, in the unit of the latents
UPDATES, RATE, BATCH, CROP = 2000, 4e-3, 8, 24  # crops of so many latents across
LOOKS = 5  # steps of one sample that are looked at: those in between are nearly the same picture
HELD_OUT = 4  # one prompt in so many


@dataclass(frozen=True, eq=False)
class SmallDecoder:
    """A decoder that costs next to nothing, for `PictureLoss` and filmstrips.

    Attributes
    ----------
    model : Model
    height, width : int
        Of the generation, in pixels.
    paint : function
        From latents in their places, (batch, channels, rows, columns), float32, to pictures.
    psnr : float or None
        Against the model's own decoder, in decibels, on pictures of prompts that it was not fitted to; None where none
        were held out.
    psnr_by_step : dict from steps that remain to the same
    """

    model: Model = field(repr=False)
    height: int
    width: int
    paint: Callable[[Tensor], Tensor] = field(repr=False)
    psnr: float | None = None
    psnr_by_step: dict[int, float] = field(default_factory=dict)

    def __call__(self, latents: Tensor) -> Tensor:
        """Pictures (batch, 3, height, width), float32 in [0, 1], of packed latents (batch, tokens, channels)."""
        return self.paint(_unpacked(self.model, latents, self.height, self.width)).float().clamp(0, 1)


def tiny_decoder(model: Model, autoencoder: Any, height: int, width: int) -> SmallDecoder:
    """A tiny autoencoder as a small decoder: TAEF1 (``madebyollin/taef1``) for FLUX.1.

    Parameters
    ----------
    autoencoder : diffusers.AutoencoderTiny or str
        One that is loaded; or a folder or hub id of one, read from safetensors files only, to the device and in the
        dtype of the model.
    height, width : int
        Of the generation, in pixels.

    Raises
    ------
    HandscopeError
        There is none of that name, it is another class, or its latents have another number of channels.
    """
    from diffusers import AutoencoderTiny

    model.grid(height, width)
    tiny = _load_tiny(model, str(autoencoder)) if isinstance(autoencoder, str | Path) else autoencoder
    if not isinstance(tiny, AutoencoderTiny):
        raise HandscopeError(f"Expected a diffusers AutoencoderTiny or the name of one, found {type(tiny).__name__}.")
    channels = model.family.channels(model.transformer)
    if tiny.config.latent_channels != channels:
        raise HandscopeError(
            f"Expected an autoencoder of {channels} latent channels, as {model.name} has, found "
            f"{tiny.config.latent_channels}: TAEF1 goes with FLUX.1, others with other models."
        )

    def paint(unpacked: Tensor) -> Tensor:
        # TAEF1 was trained on scaled latents: scale and shift are its own, 1 and 0, and not the big decoder's.
        scaled = unpacked / tiny.config.scaling_factor + tiny.config.shift_factor
        return tiny.decode(scaled.to(tiny.device, tiny.dtype), return_dict=False)[0] * 0.5 + 0.5

    return SmallDecoder(model, height, width, paint)


def fit_decoder(
    model: Model,
    latents: Tensor | Iterable[Tensor],
    height: int,
    width: int,
    updates: int = UPDATES,
    progress: Progress = quiet,
) -> SmallDecoder:
    """A small network that paints what the model's own decoder paints.

    Three layers of 3 by 3, 32 channels wide, at the resolution of the latents; the same in each call.

    Parameters
    ----------
    latents : Tensor of shape (n, tokens, channels), or batches of such
        Packed clean latents. Their pictures are kept in memory, in bytes.
    height, width : int
        Of the generation, in pixels.
    updates : int
        Steps of Adam, of 8 crops each.

    Raises
    ------
    HandscopeError
        There are no latents.
    """
    model.grid(height, width)
    generator = torch.Generator().manual_seed(0)
    pairs = list(_pairs(model, latents, height, width, generator))
    if not pairs:
        raise HandscopeError("Expected latents to fit a decoder to, found none.")
    inputs, targets = (torch.cat(part) for part in zip(*pairs, strict=True))
    cell, device = model.pipe.vae_scale_factor, model.device
    network = _network(inputs.shape[1], cell, generator).to(device)
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=updates)
    for update in range(updates):
        progress("decoder", update, updates)
        x, y = _crops(inputs, targets, cell, generator)
        with torch.enable_grad():
            loss = (network[1:](x.to(device)) - y.to(device) / 255).square().mean()
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        schedule.step()
    progress("decoder", updates, updates)
    return SmallDecoder(model, height, width, network.requires_grad_(False))


def decoder_for(model: Model, run: Run, samples: int = 64, progress: Progress = quiet) -> SmallDecoder:
    """A small decoder for the pictures of a run, fitted to the clean latents that its trajectories predict.

    Samples are taken of all prompts in turn, and of each sample a few steps, evenly over all. One prompt in four is
    held out, for the decoder's `psnr`.

    Parameters
    ----------
    model : Model
        The one that made the run; its decoder alone is used.
    samples : int
        How many are looked at at most.

    Raises
    ------
    HandscopeError
        Fewer than two prompts have samples with trajectories; or as in `Run.trajectory`.
    """
    table = _chosen(run, samples)
    height, width = int(table["height"].iloc[0]), int(table["width"].iloc[0])
    held = table["held_out"].to_numpy()
    fitted = fit_decoder(model, (clean for _, clean in _looks(run, table[~held])), height, width, progress=progress)
    errors: dict[int, list[float]] = {}
    for steps, clean in _looks(run, table[held]):
        for step, error in zip(steps, squared_errors(fitted, clean).tolist(), strict=True):
            errors.setdefault(step, []).append(error)
    by_step = {step: _psnr(errors[step]) for step in sorted(errors, reverse=True)}
    return replace(fitted, psnr=_psnr([error for some in errors.values() for error in some]), psnr_by_step=by_step)


@torch.no_grad()
def squared_errors(decoder: SmallDecoder, latents: Tensor) -> Tensor:
    """Mean squared difference of each picture, (batch,), from what the model's own decoder makes of packed latents."""
    pictures = decoder.model.decode(latents, decoder.height, decoder.width)
    return (decoder(latents.to(decoder.model.device)) - pictures).square().mean((1, 2, 3))


def agreement(decoder: SmallDecoder, latents: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """Cosine between the gradients of a loss of pictures through this decoder and through the model's own, (batch,).

    Parameters
    ----------
    latents : Tensor of shape (batch, tokens, channels)
    of : function from pictures (batch, 3, height, width) to losses (batch,), as in `PictureLoss`
    """
    model, gradients = decoder.model, []
    for decode in (decoder, lambda x: model.family.decode(model.pipe, x, decoder.height, decoder.width)):
        with torch.enable_grad():
            clean = latents.detach().to(model.device).float().requires_grad_()
            gradients.append(torch.autograd.grad(of(decode(clean)).sum(), clean)[0].flatten(1))
    return functional.cosine_similarity(gradients[0], gradients[1])


def _pairs(
    model: Model, latents: Tensor | Iterable[Tensor], height: int, width: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Latents in their places with an edge, and their pictures in bytes: noise on them, from none to `NOISE`."""
    edge = nn.ReplicationPad2d(LAYERS)
    for some in latents.split(BATCH) if isinstance(latents, Tensor) else latents:
        strength = NOISE * torch.rand(len(some), 1, 1, generator=generator)
        noisy = some.float().cpu() + strength * torch.randn(some.shape, generator=generator)
        pictures = model.decode(noisy, height, width)
        yield edge(_unpacked(model, noisy, height, width)), (pictures.cpu() * 255).round().byte()


def _crops(inputs: Tensor, targets: Tensor, cell: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A batch of crops of latents, each with its edge, and their pictures."""
    rows, columns = (size - 2 * LAYERS for size in inputs.shape[2:])
    high, wide = min(rows, CROP), min(columns, CROP)
    x, y = [], []
    for i in torch.randint(len(inputs), (BATCH,), generator=generator).tolist():
        top, left = (int(torch.randint(n + 1, (), generator=generator)) for n in (rows - high, columns - wide))
        x.append(inputs[i, :, top : top + high + 2 * LAYERS, left : left + wide + 2 * LAYERS])
        y.append(targets[i, :, cell * top : cell * (top + high), cell * left : cell * (left + wide)])
    return torch.stack(x), torch.stack(y)


def _network(channels: int, cell: int, generator: torch.Generator) -> nn.Sequential:
    """The edge goes on beyond the edge; the layers behind need none of their own, so that a crop lacks nothing."""
    layers: list[nn.Module] = [nn.ReplicationPad2d(LAYERS)]  # zeros would be a colour of their own there
    widths = [channels, *[WIDTH] * (LAYERS - 1), 3 * cell**2]
    for before, after in zip(widths, widths[1:]):
        layer = nn.utils.skip_init(nn.Conv2d, before, after, 3)
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.SiLU()]
    nn.init.constant_(layer.bias, 0.5)  # grey
    return nn.Sequential(*layers[:-1], nn.PixelShuffle(cell))


def _looks(run: Run, table: pd.DataFrame) -> Iterator[tuple[list[int], Tensor]]:
    """The clean latents that samples predict at some steps, with the steps that remain."""
    for row in table.itertuples(index=False):
        path = run.trajectory(row.sample)
        steps = len(path.timesteps)
        stride = max(1, steps // LOOKS)
        indices = range(row.turn % stride, steps, stride)
        yield [steps - index for index in indices], torch.stack([path.x0(index) for index in indices])


def _load_tiny(model: Model, name: str) -> Any:
    from diffusers import AutoencoderTiny

    try:
        with quiet_libraries():
            tiny, loaded = AutoencoderTiny.from_pretrained(
                name,
                torch_dtype=model.dtype,
                use_safetensors=True,
                local_files_only=Path(name).is_dir(),
                output_loading_info=True,
            )
        missing = sorted(loaded["missing_keys"])
        if missing:
            raise OSError(f"{len(missing)} tensors are missing, {missing[0]} among them")
    except (OSError, ValueError, TypeError, RuntimeError, LookupError, SafetensorError) as error:
        raise HandscopeError(
            f"The tiny autoencoder {name!r} could not be loaded ({next(iter(str(error).splitlines()), type(error))}): "
            "expected a folder or hub id of an AutoencoderTiny with safetensors weights, such as madebyollin/taef1."
        ) from error
    return tiny.to(model.device).eval().requires_grad_(False)


def _psnr(errors: list[float]) -> float:
    mean = sum(errors) / len(errors)
    return math.inf if mean == 0 else -10 * math.log10(mean)


def _unpacked(model: Model, latents: Tensor, height: int, width: int) -> Tensor:
    """Latents in their places, float32 of shape (batch, channels, height in cells, width in cells)."""
    return model.family.unpack(model.pipe, latents.float(), height, width)


def _chosen(run: Run, samples: int) -> pd.DataFrame:
    """Samples with trajectories, prompts in turn, with `held_out` and a `turn` that differs from row to row."""
    table = run.samples()
    there = [run.trajectory_path(sample).exists() for sample in table["sample"]]
    table = table[np.array(there, bool)]
    turn = table.groupby("prompt").cumcount()
    table = table.assign(turn=turn).sort_values("turn", kind="stable").head(samples).reset_index(drop=True)
    prompts = table["prompt"].unique()
    if len(prompts) < 2:
        run.check_drawn("what a decoder is fitted to")
        raise HandscopeError(
            f"Expected samples with trajectories of at least two prompts in {run.path}, since one is held out, found "
            f"{len(prompts)}: generate more of them, with trajectories."
        )
    held = np.random.default_rng(0).permutation(prompts)[: max(1, len(prompts) // HELD_OUT)]
    return table.assign(turn=table["turn"] + table.index, held_out=table["prompt"].isin(held))
