"""Arms made ready to draw: models are loaded one at a time, what is put on one is taken off again."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import HandscopeError
from ..extract.generate import draw
from ..files import sha256
from ..mitigations.painting import network_folder
from ..models.checkpoints import quiet_libraries
from ..models.model import Model, load
from ..run.folder import Run, sample_id
from ..run.prompts import LAST_SEED
from .arms import Arm, DrawnBatch
from .fitting import lora_file
from .given import Given, one_of_each, pixels
from .recipe import MODEL, Recipe

ADAPTER = "evaluated"
ENCODER = ("image_encoder_pretrained_model_name_or_path", "image_encoder_folder")
APART = 1_000_000
"""Between the seeds that best of n tries for one sample."""

Pictures = Sequence[NDArray[np.uint8]]
Best = Callable[[Pictures, Sequence[str]], NDArray[np.float64]]
"""From pictures and prompts to a number each, higher for better."""


@dataclass
class Models:
    """The model that is in memory: the next arm's is another only where its address is another."""

    _address: dict[str, Any] = field(default_factory=dict)
    _model: Model | None = None

    def at(self, address: Mapping[str, Any]) -> Model:
        """The model of an address, as of `Recipe.address`; the one before is let go first."""
        if self._model is None or self._address != address:
            self.forget()
            self._model, self._address = load(**address), dict(address)
        return self._model

    def forget(self) -> None:
        """Let the model go."""
        self._model, self._address = None, {}
        gc.collect()


@contextmanager
def opened(recipe: Recipe, models: Models, together: int, prompts: Sequence[str]) -> Iterator[tuple[Model, Arm]]:
    """An arm that a model draws, with what the recipe puts on it; it is taken off when the block ends.

    Parameters
    ----------
    together : samples of a call of the pipeline; a short batch is filled up, so that bits do not depend on it
    prompts : of the evaluation

    Raises
    ------
    HandscopeError
        The model does not take what the recipe asks for.
    """
    model = models.at(recipe.address)
    with ExitStack() as after:
        try:
            with quiet_libraries():
                pipe, beside = _equipped(model, recipe, models, prompts, after)
        except HandscopeError:
            raise
        except Exception as error:  # of diffusers and its kin, which raise nearly everything on what does not fit
            raise HandscopeError(f"diffusers could not put it on the model ({first_line(error)}).") from error
        size = recipe.height or model.height, recipe.width or model.width
        model.grid(*size)
        drawn = _Draws(model, recipe, pipe, size, together, beside)
        best = None if recipe.best_of is None else best_by(recipe.best_of.by)
        function = drawn if best is None else partial(_best_of, drawn, recipe, best)
        yield model, Arm(recipe.name, recipe.family, function, drawn.alike, recipe.controls, settings_of(recipe, model))


def _equipped(
    model: Model, recipe: Recipe, models: Models, prompts: Sequence[str], after: ExitStack
) -> tuple[Any, dict[str, Mapping[str, Path]]]:
    """The pipeline with all that a recipe puts on it, and pictures by prompt that its calls take, by argument."""
    pipe, beside = model.pipe, dict[str, Mapping[str, Path]]()
    if recipe.scheduler is not None:
        _set_scheduler(model, recipe, after)
    if recipe.lora is not None:
        _put_on(pipe, "load_lora_weights", str(lora_file(recipe)), adapter_name=ADAPTER)
        after.callback(pipe.unload_lora_weights)
        pipe.set_adapters([ADAPTER], [recipe.lora.scale])
    if recipe.inversion is not None:
        _put_on(pipe, "load_textual_inversion", recipe.inversion.path, token=recipe.inversion.token)
        after.callback(models.forget)  # a tokenizer does not forget a word
    if (ip := recipe.ip_adapter) is not None:
        # Families call the folder of the image encoder otherwise, and would take it from the hub.
        known = signature(getattr(pipe, "load_ip_adapter", _put_on)).parameters
        encoder = {name: ip.encoder for name in ENCODER if name in known and ip.encoder is not None}
        _put_on(pipe, "load_ip_adapter", ip.path, weight_name=ip.file, **encoder)
        after.callback(models.forget)
        pipe.set_ip_adapter_scale(ip.scale)
        beside["ip_adapter_image"] = one_of_each(Path(ip.pictures), prompts)
    if recipe.controlnet is not None:
        pipe = _controlled(model, recipe)
        beside["control_image"] = one_of_each(Path(recipe.controlnet.pictures), prompts)
    if recipe.negative is not None:
        _check_negative(model, recipe, prompts[0])
    return pipe, beside


def settings_of(recipe: Recipe, model: Model | None = None) -> dict[str, Any]:
    """What decides an arm's pictures, in words of YAML: the recipe, and hashes of the weights that it names."""
    left_out = {"name", "control", "controls", *(set(MODEL) - {"dtype", "quantisation"})}
    said: dict[str, Any] = recipe.model_dump(mode="json", exclude=left_out, exclude_none=True)
    if model is not None:
        said |= {"model": model.weight_hash, "dtype": str(model.dtype).removeprefix("torch.")}
    files = {"lora": lora_file(recipe) if recipe.lora else None,
             "inversion": Path(recipe.inversion.path) if recipe.inversion else None}  # fmt: skip
    said |= {f"{name}_sha256": sha256(path) for name, path in files.items() if path is not None}
    return said


@dataclass(frozen=True, eq=False)
class _Draws:
    """Draws batches of an arm."""

    model: Model
    recipe: Recipe
    pipe: Any
    size: tuple[int, int]
    together: int
    beside: Mapping[str, Mapping[str, Path]]

    def alike(self, prompt: str) -> int:
        """Prompts of equally many text tokens share a batch."""
        worded = self.recipe.worded(prompt)
        return self.model.text_tokens([worded])[worded]

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> DrawnBatch:
        recipe = self.recipe
        guided = recipe.negative is not None or self.model.family.guided(self.model.pipe, recipe.guidance)
        calls = np.full(len(prompts), float(recipe.steps * (2 if guided else 1)))
        if recipe.ip_adapter is not None:  # pipelines take several pictures for one prompt's, not for several prompts
            return DrawnBatch([self._drawn([one], [seed])[0] for one, seed in zip(prompts, seeds)], calls)
        left = self.together - len(prompts)
        worded, noises = [*prompts, *[prompts[-1]] * left], [*seeds, *[seeds[-1]] * left]
        return DrawnBatch(self._drawn(worded, noises)[: len(prompts)], calls)

    def _drawn(self, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        recipe = self.recipe
        return draw(
            self.model,
            [(recipe.worded(prompt), seed) for prompt, seed in zip(prompts, seeds)],
            recipe.steps,
            recipe.guidance,
            *self.size,
            trajectories=False,
            negative=recipe.negative,
            true_cfg=recipe.true_cfg,
            pipe=self.pipe,
            more=self._shown(prompts),
        ).images

    def _shown(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Arguments of a call that are pictures, and how strongly they act."""
        given: dict[str, Any] = {
            name: [Image.fromarray(pixels(paths[prompt])) for prompt in prompts] for name, paths in self.beside.items()
        }
        if (control := self.recipe.controlnet) is not None:
            given["controlnet_conditioning_scale"] = control.strength
            if control.mode is not None:
                given["control_mode"] = control.mode
        return given


def _best_of(draws: _Draws, recipe: Recipe, best: Best, prompts: Sequence[str], seeds: Sequence[int]) -> DrawnBatch:
    """Of each sample the best of so many seeds, its own first; of equals the first."""
    assert recipe.best_of is not None
    tried, numbers, scores, calls = [], [], [], np.zeros(len(prompts))
    for k in range(recipe.best_of.n):
        others = [(seed + k * APART) % (LAST_SEED + 1) for seed in seeds]
        made = draws(prompts, others)
        tried.append(made.images)
        numbers.append(others)
        scores.append(np.nan_to_num(best(list(made.images), prompts), nan=-np.inf))
        calls += made.calls
    taken = np.argmax(scores, 0)
    images = [tried[k][i] for i, k in enumerate(taken)]
    return DrawnBatch(images, calls, seeds=np.array([numbers[k][i] for i, k in enumerate(taken)]))


def given_arm(recipe: Recipe, pictures: Sequence[Given], state: str) -> Arm:
    """An arm of pictures that were made elsewhere: drawing is reading."""
    at = {(one.prompt, one.number): one for one in pictures}

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> DrawnBatch:
        some = [at[pair] for pair in zip(prompts, seeds)]
        noises = [one.noise for one in some]
        return DrawnBatch([pixels(one.path) for one in some], np.zeros(len(some)), noises=noises)

    return Arm(recipe.name, recipe.family, drawn, controls=recipe.controls, settings={"pictures": state})


def repaired_arm(recipe: Recipe, source: Run) -> Arm:
    """An arm whose pictures a function makes of another's: (pictures, prompts) to as many pictures."""
    assert isinstance(recipe.repair, str)
    repair = imported(recipe.repair)
    rows, family = source.metadata(), source.settings.get("provenance", {}).get("family", "")

    def drawn(prompts: Sequence[str], seeds: Sequence[int]) -> DrawnBatch:
        names = [sample_id(prompt, seed) for prompt, seed in zip(prompts, seeds)]
        before = [Image.fromarray(source.image(name)) for name in names]
        after = [np.asarray(one.convert("RGB") if isinstance(one, Image.Image) else one)
                 for one in repair(before, list(prompts))]  # fmt: skip
        if len(after) != len(before) or any(one.dtype != np.uint8 or one.ndim != 3 for one in after):
            raise HandscopeError(
                f"{recipe.repair} made {len(after)} pictures of {len(before)}: expected as many, each a PIL picture or "
                "a uint8 array of shape (height, width, 3)."
            )
        noises = [noise_of(rows[name], family) for name in names]
        calls = np.array([float(rows[name].get("calls") or 0) for name in names])
        return DrawnBatch(after, calls, noises=noises)

    settings = {"of": source.settings.get("drawn_with", {}), "repair": recipe.repair}
    return Arm(recipe.name, recipe.family, drawn, controls=recipe.controls, settings=settings, alone=True)


def noise_of(row: Mapping[str, Any], family: str) -> str:
    """Family and hash of the noise of a sample's line; "" where either is not known."""
    noise = str(row.get("noise_sha256") or "")
    return noise if " " in noise or not noise or not family else f"{family} {noise}"


def imported(name: str) -> Callable[..., Any]:
    """A function of the user's by ``module:function``.

    Raises
    ------
    HandscopeError
        There is no such module or function.
    """
    try:
        function = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise HandscopeError(f"There is no function {name} ({error}): is its module on PYTHONPATH?") from error
    if not callable(function):
        raise HandscopeError(f"Expected a function in {name}, found a {type(function).__name__}.")
    return function


def best_by(name: str) -> Best:
    """What says which of several pictures is the best: ``anatomy``, ``organism``, or a function by its name."""
    return {"anatomy": _by_anatomy, "organism": _by_organism}.get(name) or imported(name)


def _by_anatomy(pictures: Pictures, prompts: Sequence[str]) -> NDArray[np.float64]:
    from ..anatomy.judge.instances import soundness

    return soundness(pictures)


def _by_organism(pictures: Pictures, prompts: Sequence[str]) -> NDArray[np.float64]:
    from ..organism.judge import Judge

    judge = Judge.load()
    return np.array([1 - judge.verdict(picture, prompt)[1] for picture, prompt in zip(pictures, prompts)])


def first_line(error: BaseException) -> str:
    """An error in a line."""
    said = next(iter(str(error).splitlines()), "")
    return said if isinstance(error, HandscopeError) else f"{type(error).__name__}: {said}"


def _check_negative(model: Model, recipe: Recipe, prompt: str) -> None:
    """Refuse a negative prompt that a model would not hear, as one that is distilled."""
    away = [recipe.negative or ""], recipe.true_cfg
    if not any("negative" in name for name in model.family.generation(model, [prompt], recipe.guidance, *away)):
        raise HandscopeError(
            f"this {model.family.name} is distilled and takes no negative prompt: leave negative out of this arm."
        )


def _put_on(pipe: Any, method: str, *given: Any, **named: Any) -> None:
    if not hasattr(pipe, method):
        raise HandscopeError(f"diffusers' {type(pipe).__name__} has no {method}: this model does not take it.")
    getattr(pipe, method)(*given, **named)


def _set_scheduler(model: Model, recipe: Recipe, after: ExitStack) -> None:
    import diffusers

    assert recipe.scheduler is not None
    kind = getattr(diffusers, recipe.scheduler.name, None)
    if kind is None or not hasattr(kind, "set_timesteps"):
        raise HandscopeError(f"diffusers has no scheduler {recipe.scheduler.name!r}.")
    before = model.pipe.scheduler
    after.callback(lambda: setattr(model.pipe, "scheduler", before))
    model.pipe.scheduler = kind.from_config(before.config, **recipe.scheduler.options)


def _controlled(model: Model, recipe: Recipe) -> Any:
    """A pipeline around the model's parts that takes a ControlNet."""
    assert recipe.controlnet is not None
    around, net = (resolve_name(name) for name in model.family.controlnets)
    controlnet = net.from_pretrained(
        network_folder(recipe.controlnet.path), torch_dtype=model.dtype, local_files_only=True, use_safetensors=True
    )
    with suppress(AttributeError):
        controlnet.to(model.device)
    pipe = around(**model.pipe.components, controlnet=controlnet)
    pipe.set_progress_bar_config(disable=True)
    return pipe
