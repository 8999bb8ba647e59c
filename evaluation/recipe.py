"""An arm as a file describes it: a model and what is done to it, or pictures from elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from ..errors import HandscopeError
from ..mitigations.finding import FINDERS
from ..models.quantise import QUANTISATIONS

MODEL = ("model", "revision", "device", "dtype", "offload", "quantisation", "base")
SWEPT = (
    ("steps",), ("guidance",), ("true_cfg",), ("lora", "scale"), ("controlnet", "strength"), ("ip_adapter", "scale"),
    ("mend", "strength"), ("best_of", "n"), ("repair", "strength"), ("repair", "control"),
)  # fmt: skip
"""Keys that may be a list: an arm is then drawn for each of its numbers."""
DRAWS = ("prompt", "negative", "true_cfg", "scheduler", "lora", "inversion", "controlnet", "ip_adapter", "best_of",
         "mend")  # fmt: skip
"""Keys of what is done to a model, which given or repaired pictures cannot have."""

Text = Annotated[str, Field(min_length=1, description="a text")]
Count = Annotated[int, Strict(), Field(ge=1, description="a whole number of at least 1")]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False, description="a number of at least 0")]
Function = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$", description="module:function")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lora(_Part):
    """LoRA weights: a ``.safetensors`` file, or a folder with one (`file` names which), and how strongly they act."""

    path: Text
    file: Text | None = None
    scale: Number = 1.0


class Inversion(_Part):
    """A textual inversion: a ``.safetensors`` file, and the word that it gives a meaning."""

    path: Text
    token: Text


class ControlNet(_Part):
    """A ControlNet folder, a folder of depth, pose or edge maps named as given pictures are, and its strength.

    `mode` is of a union ControlNet of FLUX.1: the number of the kind of map.
    """

    path: Text
    pictures: Text
    strength: Number = 0.7
    mode: Annotated[int, Strict(), Field(ge=0)] | None = None


class IpAdapter(_Part):
    """An IP-adapter's folder and file, the folder of its image encoder, pictures to be like, and how much."""

    path: Text
    file: Text
    pictures: Text
    encoder: Text | None = None
    scale: Number = 0.6


class Scheduler(_Part):
    """A scheduler of diffusers by the name of its class, begun from the model's config, and what is changed in it."""

    name: Text
    options: dict[str, Any] = Field(default_factory=dict)


class BestOf(_Part):
    """Of so many seeds the picture that `by` calls best: ``anatomy``, ``organism``, or a function."""

    n: Annotated[int, Strict(), Field(ge=2)] = 4
    by: Text = "anatomy"


class Mend(_Part):
    """An arm of the experiment on mending, by its name there, taught by a labelled run with trajectories."""

    way: Text
    run: Text
    strength: Number | None = None


class Paint(_Part):
    """What is found in a picture is painted anew, as `handscope repair` does it.

    `find` says what and in which depth, `network` is the depth ControlNet that is told it, without which the prompt
    alone says what to paint; `strength` and `control` as in `handscope.mitigations.repair.repair`; `seed` of the noise.
    """

    find: Literal[FINDERS] = "anatomy"  # type: ignore[valid-type]
    network: Text | None = None
    strength: Annotated[float, Field(gt=0, le=1, description="a number above 0 and up to 1")] = 1.0
    control: Number = 0.55
    seed: Annotated[int, Strict(), Field(ge=0, description="a whole number of at least 0")] = 0


class Recipe(_Part):
    """One arm.

    Attributes
    ----------
    name : str
        Of the arm in tables and on the page.
    model, revision, device, dtype, offload, quantisation, base : as in `handscope.load`
    transformer : str
        A folder of a transformer that takes the place of the model's, as DreamBooth writes it.
    steps, guidance, height, width : as in `handscope.generate`
    prompt : str
        What this arm says instead: ``{prompt}, in sharp focus``.
    negative, true_cfg : str, float
        A prompt to be led away from; and how far, where guidance is embedded, as in FLUX.1: true classifier-free
        guidance, at two calls a step. Elsewhere guidance itself says how far.
    scheduler, lora, inversion, controlnet, ip_adapter, best_of, mend : parts of their own
    pictures : str
        A folder of pictures that were made elsewhere, or a table in one.
    of, repair : str, and str or Paint
        The name of another arm, and what makes its pictures anew: ``module:function`` of (pictures, prompts), or the
        model of this arm.
    control : bool
        It must not look as if it helped, and is left out of corrections.
    controls : tuple of str
        Names of arms that this one has to beat.
    """

    name: Annotated[str, Field(pattern=r"^[\w][\w .,=+()-]*$", max_length=60, description="a short name")]
    model: Text | None = None
    revision: Text | None = None
    device: Text = "cpu"
    dtype: Literal["float32", "bfloat16"] | None = None
    offload: Literal["model", "sequential"] | None = None
    quantisation: Literal[QUANTISATIONS] | None = None  # type: ignore[valid-type]
    base: Text | None = None
    transformer: Text | None = None
    steps: Count = 20
    guidance: Number = 3.5
    height: Count | None = None
    width: Count | None = None
    prompt: Annotated[str, Field(pattern=r"\{prompt\}", description="a text with {prompt} in it")] = "{prompt}"
    negative: Annotated[str, Field(description="a text")] | None = None
    true_cfg: Number = 1.0
    scheduler: Annotated[Scheduler | None, Field(description="a class of diffusers, or {name: CLASS, options: {}}")] = (
        None
    )
    lora: Annotated[Lora | None, Field(description="{path: FILE, scale: 1}")] = None
    inversion: Annotated[Inversion | None, Field(description="{path: FILE, token: WORD}")] = None
    controlnet: Annotated[ControlNet | None, Field(description="{path: FOLDER, pictures: FOLDER, strength: 0.7}")] = (
        None
    )
    ip_adapter: Annotated[
        IpAdapter | None, Field(description="{path: FOLDER, file: NAME, pictures: FOLDER, scale: 0.6}")
    ] = None
    best_of: Annotated[BestOf | None, Field(description="{n: 4, by: anatomy}, with n of at least 2")] = None
    mend: Annotated[Mend | None, Field(description="{way: NAME, run: RUN, strength: 0.1}")] = None
    pictures: Text | None = None
    of: Text | None = None
    repair: Annotated[
        Function | Paint | None, Field(description="module:function, or {find: anatomy, network: FOLDER, control: 1}")
    ] = None
    control: bool = False
    controls: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("scheduler"), str):
            return given | {"scheduler": {"name": given["scheduler"]}}
        return given

    @property
    def family(self) -> str:
        """What kind of arm it is, one of `handscope.evaluation.arms.FAMILIES`."""
        if self.control:
            return "control"
        kinds = {"given": self.pictures, "repair": self.repair, "triage": self.best_of, "steering": self.mend,
                 "condition": self.controlnet or self.ip_adapter,
                 "weights": self.lora or self.inversion or self.transformer}  # fmt: skip
        return next((kind for kind, said in kinds.items() if said), "plain")

    @property
    def drawn(self) -> bool:
        """Whether a model draws its pictures."""
        return self.pictures is None and self.repair is None

    @property
    def address(self) -> dict[str, Any]:
        """The arguments of `handscope.load`; a transformer of its own is loaded beside the rest of the model."""
        named = {key: getattr(self, key) for key in MODEL}
        named["name"] = named.pop("model")
        if self.transformer is not None:
            named |= {"name": self.transformer, "base": self.model}
        return named

    def worded(self, prompt: str) -> str:
        """A prompt as this arm says it."""
        return self.prompt.replace("{prompt}", prompt)

    def check(self) -> None:
        """Refuse what cannot go together.

        Raises
        ------
        HandscopeError
            The message is the end of a sentence that begins with the arm's name.
        """
        if not self.drawn:
            both = self.pictures is not None and self.repair is not None
            more = [key for key in DRAWS if key in self.model_fields_set] + ["repair"] * both
            if more:
                raise HandscopeError(
                    f"has finished pictures, to which {' and '.join(more)} cannot be done: give {more[0]} an arm with "
                    "a model."
                )
            if (self.repair is None) != (self.of is None):
                raise HandscopeError("needs both: of, the arm that is repaired, and repair, which says by what.")
            if isinstance(self.repair, Paint) and self.model is None:
                raise HandscopeError("paints anew, and says nothing of what paints: give it a model.")
            return
        if self.of is not None:
            raise HandscopeError("says of, which goes with repair; add it.")
        if self.model is None:
            raise HandscopeError("says nothing of what draws it: give it a model, pictures, or of and repair.")
        if self.negative is None and "true_cfg" in self.model_fields_set:
            raise HandscopeError("says true_cfg, and not from what: add negative, a prompt ('' is none).")
        if self.transformer is not None and self.base is not None:
            raise HandscopeError("has a transformer and a base: the model is the transformer's base; leave base out.")
        others = [key for key in DRAWS if key != "mend" and key in self.model_fields_set]
        if self.mend is not None and others:
            raise HandscopeError(f"is one of mend's, which draws as its run was drawn, without {', '.join(others)}.")


@dataclass(frozen=True, eq=False)
class Variant:
    """An arm that is to be drawn: a recipe, and where it stands in a sweep.

    Attributes
    ----------
    given : dict, what the file says of it
    group : str, name of the arm that was swept, or its own
    doses : dict of float, the numbers of the sweep by the names of their keys, such as ``lora.scale``
    """

    given: dict[str, Any] = field(repr=False)
    group: str
    doses: Mapping[str, float]


def variants(given: Mapping[str, Any]) -> Iterator[Variant]:
    """The arms that one entry of a file stands for: one, or one for each number of its lists.

    >>> [one.given["name"] for one in variants({"name": "cfg", "guidance": [2, 5]})]
    ['cfg 2', 'cfg 5']
    """
    lists = []
    for path in SWEPT:
        inside: Any = given
        for key in path:
            inside = inside.get(key) if isinstance(inside, Mapping) else None
        if isinstance(inside, list):
            if not inside or len({str(one) for one in inside}) < len(inside):
                raise HandscopeError(f"Expected different numbers in the list {'.'.join(path)}, found {inside}.")
            lists.append((path, inside))
    name = str(given.get("name", ""))
    for values in itertools.product(*(numbers for _, numbers in lists)):
        one = deepcopy(dict(given))
        for (path, _), value in zip(lists, values):
            inside = one
            for key in path[:-1]:
                inside = inside[key]
            inside[path[-1]] = value
        if values:
            one["name"] = " ".join([name, *map(str, values)])
        yield Variant(one, name, {".".join(path): value for (path, _), value in zip(lists, values)})
