"""What differs between diffusion transformers, as data: one object a model architecture.

A `Family` says which blocks a transformer has and where the streams are in what they take and give, how a picture
becomes tokens, what the model predicts, and how its pipeline calls it. Every other module asks the family and knows no
architecture. A family is added by `register`, from a module of its own.

There are two sizes of families. One without `pipelines` is read around a pipeline call of the user's own: it needs its
block lists, `width`, `lengths` and `call_grid`, and `model_timestep` where runs may follow each other. One with
`pipelines` is loaded, generated with and replayed as well, and needs the rest; `handscope.models.families.flow` has
what flow matching models share.

Outside a family, latents are *packed*: of shape (batch, tokens, channels), a row for each token of the token grid, row
after row. Where a transformer takes latents in another form, its family converts them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import HandscopeError
from .packing import in_places, packed
from .sites import Site, site_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from .model import Model

Lengths = Mapping[str, int | tuple[int, ...]]
"""Numbers of tokens of each stream in a call, such as ``{"text": 512, "image": 4096, "reference": 0}``.

Where they differ from row to row of the batch, a number for each: ``{"text": (7, 4), "image": 6}``. What stands behind
such a stream in a tensor then begins at another token in each row, and the tensor is as long as its longest row.
"""

Form = tuple[tuple[str, ...], ...]
"""The tensors at one side of a block, and the streams in each, one behind the other."""


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
    also : tuple of such
        Other forms of what a block returns, in other versions of diffusers.
    lacking : tuple of str
        Streams that the last block has no output of: it gives None there.
    sites : tuple of Site
        Places inside a block that can be read and edited.
    attends : tuple of str
        Streams in the sequence of the attention over image and text, one behind the other. Empty where there is none
        that torch's own attention computes.

    Notes
    -----
    ``image`` and ``text`` can be read. Any other name, such as ``reference`` or ``register``, is of tokens that are
    passed over; a stream of no tokens may be named. A list need not carry text at all.
    """

    kind: str
    path: str
    takes: Mapping[tuple[str, int], tuple[str, ...]]
    gives: Form
    also: tuple[Form, ...] = ()
    lacking: tuple[str, ...] = ()
    sites: tuple[Site, ...] = ()
    attends: tuple[str, ...] = ()

    def forms(self, at: str) -> tuple[Form, ...]:
        """The streams in each tensor at the ``input`` or the ``output`` of a block, in every form that is known."""
        return (tuple(self.takes.values()),) if at == "input" else (self.gives, *self.also)


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
    """One model architecture. The attributes are data; methods are code, which say so where there is none.

    Attributes
    ----------
    name : str
        For readers: ``FLUX.1``.
    transformer : str
        Class of its transformer.
    lists : tuple of BlockList
        In the order in which they run.
    width : str
        Attribute or config entry of the transformer with the width of its residual streams; see `stream_width`.
    pipelines : mapping of str
        From a class in a ``model_index.json`` to the module and class that it is loaded as:
        ``{"FluxPipeline": "diffusers:FluxPipeline"}``. Empty for a family that is only read around calls of one's own.
    unread : mapping of str
        Pipelines of these transformers that are refused, and why: the end of a sentence that begins with their name.
    refuses : mapping of str
        Arguments of the transformer that put its blocks into a state that cannot be read, and what a call with them is:
        ``{"skip_layers": "Skip-layer guidance leaves out blocks"}``.
    encoders : tuple of str
        Components of the pipeline that encode text.
    patch : int
        Latents a side of one token.
    token : int
        Pixels a side of one token in the published models.
    latents, text : str
        Arguments of the transformer that hold the latents, a tensor or a list of one a row, and the text.
    positional : tuple of str
        Names of the arguments that the pipeline gives by position.
    form : str
        How the transformer takes and gives latents: ``packed``; ``places``, (batch, channels, rows, columns); or
        ``list``, of (channels, 1, rows, columns) for each row of the batch.
    together : tuple of str
        For classifier-free guidance in one call: whose rows the batch holds, such as ``("uncond", "cond")``. Empty
        where the pipeline makes a call for each, the conditional one first.
    varying_text : bool
        Whether prompts differ in their numbers of text tokens, so that only those of one number share a batch.
    negative : str or None
        The prompt that `generate` leads away from, where guidance is classifier-free.
    keeps_float32 : bool
        Whether the pipeline keeps latents in float32 between its steps, whatever the model's dtype is.
    prediction : str
        What the model predicts, one of `handscope.models.clean.KINDS`.
    output : tuple of str
        Paths of the modules that make a prediction of the image's stream behind the last block, in the order in which
        they run: ``("norm_out", "proj_out")``. Empty where it is not known what a block would say by itself.
    controlnets : tuple of str
        Module and class of the pipeline that takes a ControlNet, and of the ControlNet; empty where there is none that
        draws from given latents.
    channels_last : bool
        Whether they order a token's numbers by row and column first and by channel last.
    painting : mapping of str
        What paints a part of a picture anew, as module and class: the pipelines ``plain`` and ``depth``, and the
        ``network`` that the second is told depth by. Empty where there is none.
    """

    name: str
    transformer: str
    lists: tuple[BlockList, ...]
    width: str
    pipelines: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)
    encoders: tuple[str, ...] = ()
    patch: int = 2
    token: int = 16
    latents: str = "hidden_states"
    text: str = "encoder_hidden_states"
    positional: tuple[str, ...] = ()
    form: str = "packed"
    together: tuple[str, ...] = ()
    varying_text: bool = False
    negative: str | None = None
    keeps_float32: bool = False
    prediction: str = "flow"
    output: tuple[str, ...] = ()
    controlnets: tuple[str, ...] = ()
    channels_last: bool = False
    painting: Mapping[str, str] = field(default_factory=dict)

    # --- the transformer and its blocks

    def blocks(self, transformer: Any) -> dict[str, nn.Module]:
        """The blocks by name, in the order in which they run."""
        return {
            f"{blocks.kind}.{i}": block
            for blocks in self.lists
            for i, block in enumerate(reduce(getattr, blocks.path.split("."), transformer))
        }

    def output_layer(self, transformer: Any) -> list[nn.Module]:
        """The modules that make a prediction of the image's stream, see `output`.

        Raises
        ------
        HandscopeError
            The family does not say which they are.
        """
        if not self.output:
            raise HandscopeError(
                f"The family {self.name} does not say which modules make its prediction of the last block's stream, so "
                "that what another block would draw cannot be read: give it `output`, see docs/families.md."
            )
        return [reduce(getattr, path.split("."), transformer) for path in self.output]

    def carrying(self, transformer: Any, stream: str) -> list[str]:
        """Names of the blocks that give a stream, in the order in which they run."""
        names: list[str] = []
        for blocks in self.lists:
            own = [name for name in self.blocks(transformer) if name.rsplit(".", 1)[0] == blocks.kind]
            given = any(stream in part for part in blocks.gives)
            names += own[: len(own) - (stream in blocks.lacking)] if given else []
        return names

    def list_of(self, kind: str) -> BlockList:
        """The list of the blocks of a kind."""
        return next(blocks for blocks in self.lists if blocks.kind == kind)

    def site(self, transformer: Any, name: str, site: str, stream: str) -> Site:
        """The place inside a block: of ``double.1`` the site ``attn.gated`` or ``q.3``, of a stream.

        Raises
        ------
        HandscopeError
            The block has no such site; the message names those that it has.
        """
        kind, _, index = name.rpartition(".")
        blocks, modules = self.list_of(kind), self.blocks(transformer)
        lacking = () if f"{kind}.{int(index) + 1}" in modules else blocks.lacking
        return site_of(blocks.sites, modules[name], f"{name}:{site}", stream, lacking)

    def site_width(self, transformer: Any, name: str, site: str, stream: str) -> int:
        """Numbers a token at a site: those of one head, or the stream's width; errors are those of `site`."""
        found, width = self.site(transformer, name, site, stream), self.stream_width(transformer)
        one = site.rpartition(".")[2].isdecimal()
        return width // found.head_count(self.blocks(transformer)[name]) if one else width

    def stream_width(self, transformer: Any) -> int:
        """Width of the residual streams."""
        config = getattr(transformer, "config", {})
        return int(config[self.width] if self.width in config else getattr(transformer, self.width))

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call of the transformer by name."""
        return {**dict(zip(self.positional, args)), **kwargs}

    def replaced(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, value: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call of the transformer with another value of one."""
        if name in kwargs:
            return args, kwargs | {name: value}
        place = self.positional.index(name)
        return (*args[:place], value, *args[place + 1 :]), kwargs

    def check_call(self, arguments: Mapping[str, Any]) -> None:
        """Refuse a call whose arguments put blocks into a state that cannot be read.

        Raises
        ------
        HandscopeError
            One of `refuses` is given.
        """
        for name, state in self.refuses.items():
            if arguments.get(name) is not None:
                raise HandscopeError(f"{state}, and {self.name} cannot be read so: call the pipeline without {name}.")

    def batch(self, arguments: Mapping[str, Any]) -> int:
        """Rows of the batch in a call."""
        return len(arguments[self.latents])

    def sides(self, arguments: Mapping[str, Any]) -> dict[str, slice]:
        """The rows of the batch that are conditional and unconditional, where a call holds both; else empty.

        A call holds both where the batch has the same latents twice with different text. A family whose calls say more
        than that has a rule of its own.
        """
        if not self.together:
            return {}
        latents, text = arguments[self.latents], arguments[self.text]
        half = len(latents) // 2
        twice = len(latents) == 2 * half and _equal(latents[:half], latents[half:])
        if not twice or _equal(text[:half], text[half:]):
            return {}
        return dict(zip(self.together, (slice(0, half), slice(half, 2 * half))))

    def lengths(self, arguments: Mapping[str, Any]) -> Lengths:
        """Numbers of tokens of each stream in a call.

        Raises
        ------
        HandscopeError
            The arguments are not those of this family's pipelines.
        """
        raise self._lacks("lengths")

    def call_grid(self, arguments: Mapping[str, Any], lengths: Lengths) -> tuple[int, int] | None:
        """Rows and columns of the image tokens in a call; None where its arguments do not say."""
        return None

    def rowwise(self, block: nn.Module) -> dict[str, list[nn.Module]]:
        """Linear layers of a block that come after its attention and mix no tokens, by the stream whose rows they take.

        ``both`` are those that take text and image tokens in one sequence, text first. Empty where there are none.
        """
        return {}

    def _lacks(self, method: str) -> HandscopeError:
        """What a method that the family has no code for raises."""
        if not self.pipelines:
            return HandscopeError(
                f"handscope reads the blocks of {self.name} around a pipeline call of your own, with hs.capture, "
                f"hs.edit or steer; it does not generate with it, and the family has no {method}."
            )
        return HandscopeError(f"The family {self.name} has no {method}: see docs/families.md for what that has to do.")

    # --- a call

    def guided(self, pipe: Any, guidance: float) -> bool:
        """Whether a generation with this guidance is classifier-free, so that a step evaluates a sample twice."""
        return False

    def encode(self, pipe: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """Embeddings of one prompt by name, without a batch axis, with the pipeline's bits."""
        raise self._lacks("encode")

    def text_length(self, pipe: Any) -> int:
        """Text tokens of a call."""
        raise self._lacks("text_length")

    def words_stream(self, transformer: Any, embeddings: Tensor) -> Tensor:
        """Embeddings of text (rows, tokens, channels), of `encode`, as the text's stream before the first block."""
        raise self._lacks("words_stream")

    def with_words(self, kwargs: Mapping[str, Any], stream: Tensor, lengths: Lengths) -> dict[str, Any]:
        """The arguments of a block that carries text and image, with another text's stream beside the same image."""
        raise self._lacks("with_words")

    def text_spans(self, pipe: Any, prompt: str) -> list[tuple[int, int]] | None:
        """The characters of a prompt that each text token of a call stands for, first and behind the last.

        Both are equal where a token stands for none, such as padding. None where the family cannot say.
        """
        return None

    def text_tokens(self, embeddings: Mapping[str, Tensor]) -> int:
        """Text tokens that a prompt has in a call, from what `encode` gave."""
        return len(embeddings["text"])

    def inputs(
        self, model: Model, prompts: Sequence[str], guidance: float, height: int, width: int
    ) -> dict[str, Any]:
        """What does not change from step to step in a step's calls, with the bits that the pipeline would make."""
        raise self._lacks("inputs")

    def call(self, transformer: Any, latents: Tensor, timestep: Tensor, inputs: dict[str, Any]) -> list[Any]:
        """The outputs of a step's calls of the transformer, at packed latents and a timestep of the scheduler.

        Called as the pipeline calls it. Where guidance is classifier-free in two calls, the conditional one is first.

        Parameters
        ----------
        timestep : Tensor of no dimension, or of shape (batch,) with one a row
        inputs : dict
            From `inputs`.
        """
        raise self._lacks("call")

    def predictions(self, output: Any) -> Tensor:
        """What each row of one call predicts, (rows, tokens, channels); tokens of a reference may stand behind."""
        raise self._lacks("predictions")

    def predicted(self, outputs: Sequence[Any], guidance: float) -> Tensor:
        """What the model predicts, packed, from the outputs of a step's calls; guidance is applied."""
        raise self._lacks("predicted")

    def output_rows(self, rows: Tensor) -> Tensor:
        """What `output_layer` makes of image tokens, (rows, tokens, numbers), as `predictions` has it."""
        raise self._lacks("output_rows")

    def sided(self, rows: Sequence[Tensor], guidance: float) -> Tensor:
        """What the model predicts, packed, from the `predictions` of a step's calls; guidance is applied."""
        raise self._lacks("sided")

    def combined(self, cond: Tensor, uncond: Tensor, guidance: float) -> Tensor:
        """What both sides of classifier-free guidance give together, packed."""
        return uncond + guidance * (cond - uncond)

    def shifted(self, output: Any, change: Tensor) -> Any:
        """A call's output with a change of what it predicts, (samples, tokens, channels), in every half of its batch.

        A change that is made in both halves of classifier-free guidance is made in what they give together.
        """
        raise self._lacks("shifted")

    def with_latents(self, arguments: Mapping[str, Any], latents: Tensor) -> Any:
        """The value of a call's latents with others, packed and each sample's once, in their place."""
        raise self._lacks("with_latents")

    def noisy(self, arguments: Mapping[str, Any]) -> Tensor:
        """The packed latents in a call, each sample's once, of the picture that is drawn."""
        raise self._lacks("noisy")

    def model_timestep(self, arguments: Mapping[str, Any]) -> float:
        """The timestep of a call as the transformer sees it, higher for more noise."""
        raise self._lacks("model_timestep")

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
            Prompts to be led away from, by default `negative`, and how far, where guidance has another number for that.
        """
        raise self._lacks("generation")

    def schedule(self, pipe: Any, steps: int, height: int, width: int) -> Times:
        """The times of a generation, as the pipeline makes them; its own scheduler stays as it is.

        Raises
        ------
        HandscopeError
            The scheduler's steps are not such as a trajectory is read by.
        """
        raise self._lacks("schedule")

    def to_pipeline(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """Packed latents as the pipeline takes them."""
        return latents

    def from_pipeline(self, latents: Tensor) -> Tensor:
        """The latents that the pipeline gives to a callback, packed."""
        return latents if latents.ndim == 3 else packed(latents, self.patch)

    def to_callback(self, latents: Tensor, like: Tensor) -> Tensor:
        """Packed latents in the form that the pipeline gives them to a callback in, that of `like`."""
        if like.ndim == 3:
            return latents
        return in_places(latents, like.shape[-2] // self.patch, like.shape[-1] // self.patch, self.patch)

    def times(self, pipe: Any) -> Times:
        """The times of the generation that the pipeline has just made."""
        raise self._lacks("times")

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
        return int(self.patch * 2 ** _halvings(json.loads(config.read_text(encoding="utf-8"))))

    def channels(self, transformer: Any) -> int:
        """Channels of the latents before they are packed."""
        raise self._lacks("channels")

    def noise(self, pipe: Any, seed: int, height: int, width: int) -> Tensor:
        """Packed initial noise of a seed, float32 of shape (tokens, channels), the same on every device.

        It comes from a CPU generator of its own, and is drawn in the form in which the pipeline draws it.
        """
        import torch

        rows, columns = self.grid(pipe, height, width)
        shape = (1, self.channels(pipe.transformer), self.patch * rows, self.patch * columns)
        generator = torch.Generator("cpu").manual_seed(seed)
        return packed(torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu"), self.patch)[0]

    def unpack(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """Packed latents in their places: (batch, channels, rows, columns)."""
        return in_places(latents, *self.grid(pipe, height, width), self.patch)

    def decode(self, pipe: Any, latents: Tensor, height: int, width: int) -> Tensor:
        """Images of packed latents (batch, tokens, channels), float32 of shape (batch, 3, height, width) in [0, 1].

        Gradients pass, where they are asked for.
        """
        raise self._lacks("decode")

    def encode_image(self, pipe: Any, images: Tensor) -> Tensor:
        """What `decode` undoes: packed latents (batch, tokens, channels), float32, of images as it gives them.

        Nothing is drawn at random: where the VAE gives a distribution, its mode is taken.
        """
        raise self._lacks("encode_image")


def _equal(one: Any, other: Any) -> bool:
    """Whether two tensors, or lists of tensors, are the same."""
    import torch

    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return len(one) == len(other) and all(map(torch.equal, one, other))


def _halvings(vae: Mapping[str, Any]) -> int:
    """How often a decoder's config says that it doubles a picture's sides."""
    if "temperal_downsample" in vae:  # of videos and Qwen-Image
        return len(vae["temperal_downsample"])
    return len(vae["block_out_channels" if "block_out_channels" in vae else "encoder_block_out_channels"]) - 1
