"""What differs between diffusion transformers, as data: one object a model architecture.

A `Family` says which blocks a transformer has and where the streams are in what they take and give, how a picture
becomes tokens, what the model predicts, and how its pipeline calls it. Every other module asks the family and knows no
architecture. A family is added by `register_family`, from a module of its own.

Outside a family, latents are *packed*: of shape (batch, tokens, channels), a row for each token of the token grid, row
after row. Where a transformer takes latents in another form, its family converts them.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import HandscopeError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from .model import Model

Lengths = Mapping[str, int]
"""Numbers of tokens of each stream in a call, such as ``{"text": 512, "image": 4096, "reference": 0}``."""


@dataclass(frozen=True, eq=False)
class BlockList:
    """One list of blocks of a transformer.

    Attributes
    ----------
    kind : str
        What its blocks are called: ``double`` for ``double.0``, ``double.1`` …
    path : str
        Where the transformer has it, such as ``transformer_blocks``; dots lead into submodules.
    takes : mapping
        From an argument of a block, by name and position, to the streams in it, one behind the other.
    gives : tuple of tuples of str
        The tensors that a block returns, a tuple of them or one alone, and the streams in each.

    Notes
    -----
    ``image`` and ``text`` can be read. Any other name, such as ``reference`` or ``register``, is of tokens that are
    passed over; a stream of no tokens may be named.
    """

    kind: str
    path: str
    takes: Mapping[tuple[str, int], tuple[str, ...]]
    gives: tuple[tuple[str, ...], ...]

    def parts(self, at: str) -> tuple[tuple[str, ...], ...]:
        """The streams in each tensor at the ``input`` or the ``output`` of a block."""
        return tuple(self.takes.values()) if at == "input" else self.gives


class Times(NamedTuple):
    """The times of a generation.

    Attributes
    ----------
    sigmas : Tensor of shape (steps + 1,), float32
        The share of noise before each step and after the last: sigma of flow matching, else sqrt(1 - alphas_cumprod).
    timesteps : Tensor of shape (steps,), float32
        The scheduler's timesteps.
    """

    sigmas: Tensor
    timesteps: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """One model architecture. The attributes are data; the methods that raise NotImplementedError are its code.

    Attributes
    ----------
    name : str
        For readers: ``FLUX.1``.
    transformer : str
        Class of its transformer.
    pipeline : str
        Module and class that a pipeline folder is loaded as: ``diffusers:FluxPipeline``.
    pipelines : tuple of str
        Classes in a ``model_index.json`` that are loaded so.
    lists : tuple of BlockList
        In the order in which they run.
    width : str
        Attribute or config entry of the transformer with the width of its residual streams.
    encoders : tuple of str
        Components of the pipeline that encode text.
    patch : int
        Latents a side of one token.
    token : int
        Pixels a side of one token in the published models.
    latents, text : str
        Arguments of the transformer that hold the latents and the text.
    positional : tuple of str
        Names of the arguments that the pipeline gives by position.
    takes_packed : bool
        Whether the transformer takes and gives packed latents.
    together : tuple of str
        For classifier-free guidance in one call: whose rows the batch holds, such as ``("uncond", "cond")``. Empty
        where the pipeline makes a call for each.
    calls : int
        Evaluations of the transformer that a step of one sample costs in `generate`.
    prediction : str
        What the model predicts, one of `handscope.models.clean.KINDS`.
    """

    name: str
    transformer: str
    pipeline: str
    pipelines: tuple[str, ...]
    lists: tuple[BlockList, ...]
    width: str
    encoders: tuple[str, ...]
    patch: int
    token: int
    latents: str = "hidden_states"
    text: str = "encoder_hidden_states"
    positional: tuple[str, ...] = ()
    takes_packed: bool = True
    together: tuple[str, ...] = ()
    calls: int = 1
    prediction: str = "flow"

    # --- the transformer and its blocks

    def blocks(self, transformer: Any) -> dict[str, nn.Module]:
        """The blocks by name, in the order in which they run."""
        return {
            f"{blocks.kind}.{i}": block
            for blocks in self.lists
            for i, block in enumerate(reduce(getattr, blocks.path.split("."), transformer))
        }

    def list_of(self, kind: str) -> BlockList:
        """The list of the blocks of a kind."""
        return next(blocks for blocks in self.lists if blocks.kind == kind)

    def stream_width(self, transformer: Any) -> int:
        """Width of the residual streams."""
        config = getattr(transformer, "config", {})
        return int(config[self.width] if self.width in config else getattr(transformer, self.width))

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call of the transformer by name."""
        return {**dict(zip(self.positional, args)), **kwargs}

    def sides(self, arguments: Mapping[str, Any]) -> dict[str, slice]:
        """The rows of the batch that are conditional and unconditional, where a call holds both; else empty.

        A call holds both where the batch has the same latents twice with different text. A family whose calls say more
        than that has a rule of its own.
        """
        if not self.together:
            return {}
        import torch

        latents, text = arguments[self.latents], arguments[self.text]
        half = len(latents) // 2
        twice = len(latents) == 2 * half and torch.equal(latents[:half], latents[half:])
        if not twice or torch.equal(text[:half], text[half:]):
            return {}
        return dict(zip(self.together, (slice(0, half), slice(half, 2 * half))))

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """Numbers of tokens of each stream in a call.

        Raises
        ------
        HandscopeError
            The arguments are not those of this family's pipelines.
        """
        raise NotImplementedError

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int] | None:
        """Rows and columns of the image tokens in a call; None where its arguments do not say."""
        return None

    def rowwise(self, block: nn.Module) -> dict[str, list[nn.Module]]:
        """Linear layers of a block that come after its attention and mix no tokens, by the stream whose rows they take.

        ``both`` are those that take text and image tokens in one sequence, text first. Empty where there are none.
        """
        return {}

    # --- a call

    def encode(self, pipe: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """Embeddings of one prompt by name, without a batch axis, with the pipeline's bits."""
        raise NotImplementedError

    def text_length(self, pipe: Any) -> int:
        """Text tokens of a call."""
        raise NotImplementedError

    def inputs(
        self, model: Model, prompts: Sequence[str], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """What does not change from step to step in a call, with the bits that the pipeline would make."""
        raise NotImplementedError

    def call(self, transformer: Any, latents: Tensor, timestep: Tensor, inputs: dict[str, Any]) -> Any:
        """The transformer's output of packed latents at a timestep of the scheduler, called as the pipeline calls it.

        Parameters
        ----------
        inputs : dict
            From `inputs`.
        """
        raise NotImplementedError

    def predicted(self, output: Any, guidance: float) -> Tensor:
        """What the model predicts, packed, from a call's output; guidance is applied where the call has both halves."""
        raise NotImplementedError

    def noisy(self, arguments: Mapping[str, Any]) -> Tensor:
        """The packed latents in a call, each sample's once."""
        raise NotImplementedError

    def model_timestep(self, arguments: Mapping[str, Any]) -> float:
        """The timestep of a call as the transformer sees it, higher for more noise."""
        raise NotImplementedError

    # --- a generation

    def generation(
        self,
        model: Model,
        prompts: Sequence[str],
        guidance: float,
        negative: Sequence[str] | None = None,
        scale: float = 1.0,
    ) -> dict[str, Any]:
        """Arguments of a pipeline call that say what is drawn, from prompts that were encoded.

        Parameters
        ----------
        negative, scale : sequence of str and float, optional
            Prompts to be led away from, and how far, where guidance has another number for that.
        """
        raise NotImplementedError

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> Times:
        """The times of a generation, as the pipeline makes them; its own scheduler stays as it is.

        Raises
        ------
        HandscopeError
            The scheduler's steps are not such as a trajectory is read by.
        """
        raise NotImplementedError

    def to_pipeline(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """Packed latents as the pipeline takes them."""
        return latents

    def from_pipeline(self, latents: Tensor) -> Tensor:
        """The latents that the pipeline gives to a callback, packed."""
        return latents

    def times(self, pipe: Any) -> Times:
        """The times of the generation that the pipeline has just made."""
        raise NotImplementedError

    # --- pictures

    def size(self, pipe: Any) -> tuple[int, int]:
        """Height and width in pixels of the images that the model was trained for."""
        side = pipe.vae.config.sample_size
        return side, side

    def grid(self, pipe: Any, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the token grid of an image of `height` by `width` pixels.

        Raises
        ------
        HandscopeError
            The size is not a whole number of tokens.
        """
        token = self.patch * pipe.vae_scale_factor
        for name, size in (("height", height), ("width", width)):
            if not isinstance(size, int) or size < token or size % token:
                raise HandscopeError(
                    f"Expected a {name} that is a multiple of {token} pixels, one token, found {size!r}."
                )
        return height // token, width // token

    def token_side(self, folder: Path) -> int:
        """Pixels a side of a token of the model in a pipeline's folder, from its configs."""
        config = folder / "vae" / "config.json"
        if not config.is_file():
            return self.token
        halvings = len(json.loads(config.read_text(encoding="utf-8"))["block_out_channels"]) - 1
        return int(self.patch * 2**halvings)

    def channels(self, transformer: Any) -> int:
        """Channels of the latents before they are packed."""
        raise NotImplementedError

    def noise(self, pipe: Any, seed: int, height: int, width: int) -> Tensor:
        """Packed initial noise of a seed, float32 of shape (tokens, channels), the same on every device.

        It comes from a CPU generator of its own.
        """
        raise NotImplementedError

    def unpack(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """Packed latents in their places: (batch, channels, rows, columns)."""
        raise NotImplementedError

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """Images of packed latents (batch, tokens, channels), float32 of shape (batch, 3, height, width) in [0, 1].

        Gradients pass, where they are asked for.
        """
        raise NotImplementedError


_BUILT_IN = {"FLUX.1": ".families.flux"}
_families: dict[str, Family] = {}


def register_family(family: Family) -> None:
    """Let handscope read the models of a family; one of the same name is replaced.

    >>> register_family(FLUX)                                           # doctest: +SKIP
    """
    _families[family.name] = family


def families() -> tuple[Family, ...]:
    """Every family that is known."""
    for name, module in _BUILT_IN.items():
        if name not in _families:
            register_family(importlib.import_module(module, __package__).FAMILY)
    return tuple(_families.values())


def family_of(transformer_or_pipe: Any) -> Family:
    """The family of a transformer or of a pipeline around one, by the transformer's class.

    Raises
    ------
    HandscopeError
        There is none.
    """
    transformer = getattr(transformer_or_pipe, "transformer", transformer_or_pipe)
    name = type(transformer).__name__
    for family in families():
        if family.transformer == name:
            return family
    known = _all(family.transformer for family in families())
    raise HandscopeError(f"handscope reads the blocks of {known}, found a {name}.")


def family_named(pipeline: str, where: object) -> Family:
    """The family of a pipeline by the name of its class; `where` it was found is for the message.

    Raises
    ------
    HandscopeError
        There is none.
    """
    for family in families():
        if pipeline in family.pipelines:
            return family
    known = _all(name for family in families() for name in family.pipelines)
    raise HandscopeError(f"handscope reads pipelines of the classes {known}, found a {pipeline} in {where}.")


def family_in(folder: Path) -> Family:
    """The family of the pipeline in a folder, by the class that its ``model_index.json`` names.

    Raises
    ------
    HandscopeError
        The file is missing or damaged, or there is no such family.
    """
    path = folder / "model_index.json"
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HandscopeError(
            f"Expected {path} to name the class of a pipeline, as save_pretrained writes it: copy the folder again."
        ) from error
    return family_named(name, folder)


def check_kinds(names: Iterable[object]) -> None:
    """Refuse names of blocks that no model of a known family can have: what is misspelt, before a model is loaded.

    Raises
    ------
    HandscopeError
        The message names the kinds of blocks that there are.
    """
    kinds = {family.name: [blocks.kind for blocks in family.lists] for family in families()}
    for name in map(str, names):
        if all(name.split(".")[0] not in known for known in kinds.values()):
            have = "; ".join(f"{_all(f'{kind}.0 …' for kind in known)} ({family})" for family, known in kinds.items())
            raise HandscopeError(f"No model that handscope knows has a block {name!r}; there are {have}.")


def hookable(transformer: Any) -> Family:
    """The family of a transformer whose blocks can be read.

    Raises
    ------
    HandscopeError
        There is none, or the transformer is in a state in which hooks on its blocks see something else than its
        residual stream, or nothing.
    """
    from .condition import check_readable, check_whole

    check_whole(transformer)
    family = family_of(transformer)
    check_readable(transformer, family.blocks(transformer))
    return family


def blocks(transformer: Any) -> dict[str, nn.Module]:
    """The blocks of a diffusion transformer by name, in the order in which they run.

    >>> list(blocks(pipe.transformer))                                  # doctest: +SKIP
    ['double.0', 'double.1', 'single.0', 'single.1', 'single.2', 'single.3']

    Parameters
    ----------
    transformer : torch.nn.Module
        A transformer of a family that handscope knows.

    Raises
    ------
    HandscopeError
        It is of no such family.
    """
    return family_of(transformer).blocks(transformer)


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)
