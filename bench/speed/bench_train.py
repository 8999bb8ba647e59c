"""Training a LoRA on the organism beside a bare loop of the same steps with peft and diffusers alone, in turn.

    python bench/speed/bench_train.py --repeats 5
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import handscope as hs
import torch
from bench_guidance import peak, reset_peak
from diffusers.training_utils import cast_training_params, compute_density_for_timestep_sampling
from handscope.mitigations.learners import LoRA
from handscope.mitigations.pictures import captioned, latents_of
from handscope.mitigations.settings import Training
from handscope.mitigations.train import train
from handscope.organism.render import render_dataset
from peft import LoraConfig
from PIL import Image

PICTURES, WARM = 32, 2  # pictures of the folder, and steps that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        album(Path(folder))
        seconds: dict[str, list[float]] = {"bare": [], "handscope": []}
        memory: dict[str, list[float]] = {"bare": [], "handscope": []}
        for repeat in range(arguments.repeats):
            for name, way in (("bare", bare), ("handscope", ours)):
                reset_peak()
                seconds[name].append(way(Path(folder), arguments, repeat))
                memory[name].append(peak())
    print(f"{arguments.steps - WARM} steps of {arguments.batch}, rank {arguments.rank}, {arguments.repeats} repeats")
    print(f"{'':12}{'CPU s a step':>14}{'ratio':>8}{'peak MB':>10}")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds["bare"]))
        print(f"{name:12}{statistics.median(times):14.3f}{ratio:8.3f}{statistics.median(memory[name]):10.0f}")


def album(folder: Path) -> None:
    """Renders with captions."""
    made = render_dataset(PICTURES, 0)
    for number, (image, caption) in enumerate(zip(made.images, made.captions)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption)


def ours(folder: Path, arguments: argparse.Namespace, repeat: int) -> float:
    """CPU seconds a step of `handscope.mitigations.train.train`."""
    clock: dict[int, float] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "train":
            clock[done] = time.process_time()

    training = Training(steps=arguments.steps, batch=arguments.batch)
    with tempfile.TemporaryDirectory() as out:
        train(LoRA(hs.load("organism"), arguments.rank), Path(out), captioned(folder), training, progress=progress)
    last = arguments.steps - 1  # what comes after the last step is the checkpoint
    return (clock[last] - clock[WARM]) / (last - WARM)


def bare(folder: Path, arguments: argparse.Namespace, repeat: int) -> float:
    """The same with peft, diffusers and torch, as diffusers' script for FLUX.1 has it."""
    model = hs.load("organism")
    pipe, transformer = model.pipe, model.transformer
    transformer.requires_grad_(False)
    layers = LoRA(hs.load("organism"), arguments.rank).layers
    transformer.add_adapter(LoraConfig(r=arguments.rank, lora_alpha=arguments.rank, target_modules=layers))
    cast_training_params(transformer, torch.float32)
    learnt = [p for p in transformer.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learnt, 1e-4)
    pictures = captioned(folder)
    latents = latents_of(model, pictures, model.height, model.width)
    with torch.no_grad():
        texts = [pipe.encode_prompt([one.caption], None, max_sequence_length=18)[:2] for one in pictures]
    sequence, pooled = (torch.cat(part) for part in zip(*texts))
    ids = pipe._prepare_latent_image_ids(1, *model.grid(model.height, model.width), "cpu", torch.float32)
    began = 0.0
    for step in range(arguments.steps - 1):
        if step == WARM:
            began = time.process_time()
        chosen = torch.randint(len(pictures), (arguments.batch,))
        sigma = compute_density_for_timestep_sampling("logit_normal", arguments.batch, 0.0, 1.0)
        clean, noise = latents[chosen], torch.randn(arguments.batch, *latents.shape[1:])
        at = sigma[:, None, None]
        velocity = transformer(
            hidden_states=(1 - at) * clean + at * noise,
            timestep=sigma,
            guidance=torch.full([arguments.batch], 3.5),
            pooled_projections=pooled[chosen],
            encoder_hidden_states=sequence[chosen],
            txt_ids=torch.zeros(sequence.shape[1], 3),
            img_ids=ids,
            return_dict=False,
        )[0]
        loss = (velocity - (noise - clean)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return (time.process_time() - began) / (arguments.steps - 1 - WARM)


if __name__ == "__main__":
    main()
