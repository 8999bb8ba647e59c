"""One training: its draws, its steps, its checkpoints, its table of losses, and samples as it goes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor

from ..errors import HandscopeError
from ..extract.generate import draw
from ..files import atomic
from ..models.model import Model
from ..organism.training.course import draws_of
from ..progress import Progress, quiet
from ..run.folder import sample_id
from .flow_loss import FlowLoss
from .learners import Learner
from .pictures import Captioned, latents_of
from .settings import Training

CHECKPOINT, LOSSES, RECORD = "checkpoint.pt", "losses.csv", "training.json"


@dataclass(frozen=True)
class Samples:
    """What is drawn as a training goes on: each prompt once, with the seeds 0, 1, …, in so many steps."""

    prompts: tuple[str, ...] = ()
    steps: int = 20


def train(
    learner: Learner,
    folder: Path,
    pictures: Sequence[Captioned],
    training: Training,
    prior: Sequence[Captioned] = (),
    samples: Samples | None = None,
    height: int | None = None,
    width: int | None = None,
    progress: Progress = quiet,
) -> Path | None:
    """Train, or go on with a training that was stopped, and save what was learnt.

    Parameters
    ----------
    learner : Learner
        A new one: what it has learnt before is read from the checkpoint.
    folder : Path
        Gets what diffusers loads, ``losses.csv``, ``training.json``, ``checkpoint.pt`` and ``samples/``.
    prior : sequence of Captioned
        Pictures of the class, whose loss is added so that the class is not forgotten (prior preservation).
    height, width : int, optional
        In pixels; by default what the model was trained for.

    Returns
    -------
    The file or folder that was saved; None in processes beside the first.

    Notes
    -----
    The random numbers of a step depend on the seed, the step and the process alone, so that a training that goes on
    from a checkpoint has the losses of one that was never stopped. Several processes, as ``accelerate launch`` starts
    them, draw batches of their own and average their gradients.

    Raises
    ------
    HandscopeError
        The family has no loss, a picture cannot be used, or the folder holds another training.
    """
    model, crew = learner.model, PartialState(cpu=learner.model.device.type == "cpu")
    size = height or model.height, width or model.width
    loss = FlowLoss(model, *size, training.weighting, training.guidance)
    data = _Data(learner, pictures, size, progress)
    priors = _Data(learner, prior, size, progress) if prior else None
    record = {
        "learnt": learner.said(),
        "training": training.decisive(),
        "size": list(size),
        "model": {"name": model.name, "weight_hash": model.weight_hash},
        "processes": crew.num_processes,
        "pictures": data.digest,
        "prior": priors.digest if priors else None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(folder, record)
    if training.checkpointing:
        model.transformer.enable_gradient_checkpointing()
    course = _Course(learner, training, folder, crew.is_main_process)
    if crew.is_main_process:
        course.cut_losses()
        with atomic(folder / RECORD) as path:
            path.write_text(json.dumps({**record, "steps": training.steps}, indent=1) + "\n")
    crew.wait_for_everyone()
    while course.step < training.steps:
        progress("train", course.step, training.steps)
        total = torch.zeros((), device=model.device)
        for part in range(training.accumulate):
            # Each forward of each process has a number of its own.
            forward = (course.step * training.accumulate + part) * crew.num_processes + crew.process_index
            draws = draws_of(training.seed, forward)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
                mean = data.loss(loss, training, draws)
                if priors:
                    mean = mean + training.prior_weight * priors.loss(loss, training, draws)
            (mean / training.accumulate).backward()
            total += mean.detach() / training.accumulate
        if crew.num_processes > 1:
            total = reduce(total, "mean")
            for parameter in course.learnt:
                parameter.grad = reduce(parameter.grad, "mean")
        course.advance(float(total))
        if crew.is_main_process and (course.step % training.save_every == 0 or course.step == training.steps):
            course.save()
        due = training.sample_every and course.step % training.sample_every == 0
        if samples and crew.is_main_process and (due or course.step == training.steps):
            _draw(model, samples, training.guidance, size, folder / "samples" / f"step-{course.step:06d}")
    progress("train", training.steps, training.steps)
    course.take_average()
    saved = learner.save(folder) if crew.is_main_process else None
    crew.wait_for_everyone()
    return saved


class _Data:
    """Pictures as latents, and their captions."""

    def __init__(
        self, learner: Learner, pictures: Sequence[Captioned], size: tuple[int, int], progress: Progress
    ) -> None:
        self.learner = learner
        self.captions = learner.captions([one.caption for one in pictures])
        self.latents = latents_of(learner.model, pictures, *size, progress)
        said = hashlib.sha256(self.latents.numpy().tobytes())
        said.update(json.dumps(self.captions).encode())
        self.digest = said.hexdigest()

    def loss(self, loss: FlowLoss, training: Training, draws: torch.Generator) -> Tensor:
        """The mean loss of a batch, drawn with replacement."""
        chosen = torch.randint(len(self.captions), (training.batch,), generator=draws)
        left_out = torch.rand(training.batch, generator=draws) < training.dropout
        captions = ["" if out else self.captions[i] for i, out in zip(chosen.tolist(), left_out.tolist())]
        latents = self.latents[chosen].to(self.learner.model.device)
        return loss(latents, self.learner.embeddings(captions, chosen), draws).mean()


class _Course:
    """How far a training is: optimiser, rate, average, and the files that keep them."""

    def __init__(self, learner: Learner, training: Training, folder: Path, writes: bool) -> None:
        self.learnt, self.folder, self.writes, self.step = learner.parameters(), folder, writes, 0
        self.optimiser = torch.optim.AdamW(self.learnt, training.rate, weight_decay=training.decay)
        self.schedule = get_scheduler(
            training.schedule,
            self.optimiser,
            num_warmup_steps=training.warm_up,
            num_training_steps=training.steps,
        )
        self.average = EMAModel(self.learnt, decay=training.average) if training.average else None
        self._parts = {"optimiser": self.optimiser, "schedule": self.schedule}
        self._parts |= {"average": self.average} if self.average else {}
        if (folder / CHECKPOINT).exists():
            kept = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
            self.step = kept["step"]
            with torch.no_grad():
                for parameter, value in zip(self.learnt, kept["learnt"], strict=True):
                    parameter.copy_(value)
            for name, part in self._parts.items():
                part.load_state_dict(kept[name])
            if self.average:
                self.average.to(self.learnt[0].device)

    def advance(self, loss: float) -> None:
        """Take a step with the gradients that are there."""
        torch.nn.utils.clip_grad_norm_(self.learnt, 1.0)
        rate = self.schedule.get_last_lr()[0]
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad()
        if self.average:
            self.average.step(self.learnt)
        self.step += 1
        if self.writes:
            with open(self.folder / LOSSES, "a", encoding="utf-8") as file:
                file.write(f"{self.step},{loss!r},{rate!r}\n")

    def save(self) -> None:
        """Write the checkpoint."""
        kept: dict[str, Any] = {"step": self.step, "learnt": [p.detach().cpu() for p in self.learnt]}
        with atomic(self.folder / CHECKPOINT) as path:
            torch.save(kept | {name: part.state_dict() for name, part in self._parts.items()}, path)

    def cut_losses(self) -> None:
        """Begin the table of losses, or leave out what comes after the checkpoint."""
        path = self.folder / LOSSES
        lines = path.read_text(encoding="utf-8").splitlines()[1 : self.step + 1] if path.exists() else []
        with atomic(path) as temporary:
            temporary.write_text("\n".join(["step,loss,rate", *lines]) + "\n", encoding="utf-8")

    def take_average(self) -> None:
        """Let the average be what was learnt."""
        if self.average:
            self.average.copy_to(self.learnt)


def _check_same(folder: Path, record: dict[str, Any]) -> None:
    """Refuse a folder that holds a training of something else."""
    if not (folder / RECORD).exists():
        return
    before = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    changed = [name for name in record if before.get(name) != record[name]]
    if changed:
        of = changed[0]
        said = f"{of}: {before.get(of)} then, {record[of]} now" if of != "training" else ", ".join(
            f"{name} {before[of].get(name)} then, {value} now"
            for name, value in record[of].items()
            if before[of].get(name) != value
        )
        raise HandscopeError(
            f"{folder} holds a training with another {', '.join(changed)} ({said}): give the same as then, or another "
            "folder."
        )


@torch.no_grad()
def _draw(model: Model, samples: Samples, guidance: float, size: tuple[int, int], folder: Path) -> None:
    """One picture a prompt, with the seeds of the prompts' numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, prompt in enumerate(samples.prompts):
        drawn = draw(model, [(prompt, seed)], samples.steps, guidance, *size, trajectories=False)
        with atomic(folder / f"{sample_id(prompt, seed)}.png") as temporary:
            Image.fromarray(drawn.images[0]).save(temporary)


def own_device(device: str) -> str:
    """The device of this process: where ``accelerate launch`` started several, each has a GPU of its own."""
    crew = PartialState(cpu=device == "cpu")
    return str(crew.device) if crew.num_processes > 1 else device
