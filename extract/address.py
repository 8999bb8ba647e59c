"""Where and when a residual stream is read: blocks, sites inside them, steps, streams, cells and the plan of a capture.

Steps count what remains, as in the source study: of 20, step 20 is the first and noisiest and step 1 the last.
"""

import json
import operator
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ..errors import HandscopeError

STREAMS = ("image", "text")
SIDES = ("output", "input")
CALLS = ("cond", "uncond", "both")
_CHOICES = {"stream": STREAMS, "at": SIDES, "call": CALLS}  # the first of each is the default
_NUMBER = "0|[1-9][0-9]*"
_BLOCK = re.compile(rf"([a-z_][a-z0-9_]*)\.({_NUMBER})(?::([a-z][a-z0-9]*(?:\.(?:gated|{_NUMBER}))?))?")


@dataclass(frozen=True, order=True)
class Block:
    """One block: its kind, which is one of its model's family, and its number in that list, counted from 0.

    In FLUX.1, ``double.12`` is ``transformer_blocks[12]`` and ``single.8`` is ``single_transformer_blocks[8]``. A site
    inside it stands behind a colon: ``double.12:attn``, ``double.12:mlp.gated``, ``double.12:q.3`` (docs/store.md).

    >>> Block.parse("double.12")
    Block(kind='double', index=12, site='')
    >>> str(Block("single", 8))
    'single.8'
    >>> Block.parse("double.1:q.3").head
    3
    """

    kind: str
    index: int
    site: str = ""

    @classmethod
    def parse(cls, name: "str | Block") -> "Block":
        """Read a block's name; a `Block` is returned as it is.

        Raises
        ------
        HandscopeError
            The name is not a kind, a dot and a number, and perhaps a colon and a site.
        """
        if isinstance(name, Block):
            return name
        match = _BLOCK.fullmatch(name) if isinstance(name, str) else None
        if match is None:
            raise HandscopeError(
                "Expected a block such as double.12 or single.8 (a kind, a dot, a number counted from 0), or a site in "
                f"one such as double.12:attn.gated, found {name!r}: name it as diffusers counts it."
            )
        return cls(match[1], int(match[2]), match[3] or "")

    @property
    def whole(self) -> "Block":
        """The block itself, of a site inside it."""
        return Block(self.kind, self.index)

    @property
    def gated(self) -> bool:
        """Whether it is a site behind its gate."""
        return self.site.endswith(".gated")

    @property
    def head(self) -> int | None:
        """The head of a site of one head."""
        last = self.site.rpartition(".")[2]
        return int(last) if last.isdecimal() else None

    def __str__(self) -> str:
        return f"{self.kind}.{self.index}" + (f":{self.site}" if self.site else "")


@dataclass(frozen=True)
class Cell:
    """One (block, step); its text form ``double.1/20`` is its path in a consolidated store."""

    block: Block
    step: int

    def __str__(self) -> str:
        return f"{self.block}/{self.step}"


@dataclass(frozen=True, init=False)
class Plan:
    """What a capture reads: every named block at every named step of a run of `of` steps.

    Parameters
    ----------
    blocks : sequence of str or Block, optional
        ``["double.1", "single.3:q"]``. None: every block of the model, once the plan meets one; see `on`.
    steps : sequence of int
        Steps that remain, each from `of` (pure noise in) down to 1 (the last).
    of : int
        How many steps the whole run has; 1 for a bare call of the transformer.
    stream : str
        ``image`` or ``text``: whose tokens are read.
    at : str
        ``output`` of a block, or its ``input``. The two differ by more than a block's number where a ControlNet is
        used: its residuals are added between one block's output and the next one's input.
    call : str
        ``cond``, or ``uncond`` for the other half of each step under classifier-free guidance. ``both`` is for edits.
    only : sequence of str or Cell
        Where not every block is read at every step: the cells that are, such as ``single.3/14``. Every block and every
        step has one. Plans that were joined have it; see `joined`.

    Raises
    ------
    HandscopeError
        A misspelt block, a step outside 1..of, a repetition, nothing to read, or an unknown stream, side or call.
    """

    blocks: tuple[Block, ...]
    steps: tuple[int, ...]
    of: int
    stream: str
    at: str
    call: str
    only: frozenset[Cell]

    def __init__(
        self,
        blocks: Iterable[str | Block] | None,
        steps: Iterable[int],
        of: int,
        stream: str = "image",
        at: str = "output",
        call: str = "cond",
        only: Iterable[str | Cell] = (),
    ) -> None:
        if isinstance(blocks, str):
            raise HandscopeError(f"Expected a list of blocks, found the text {blocks!r}: write [{blocks!r}].")
        object.__setattr__(self, "blocks", tuple(map(Block.parse, blocks or ())))
        if blocks is not None and not self.blocks:
            raise HandscopeError("The plan names no block: give at least one, or None for every block of the model.")
        object.__setattr__(self, "steps", tuple(map(plain_int, steps)))
        object.__setattr__(self, "of", plain_int(of))
        object.__setattr__(self, "stream", stream)
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "call", call)
        object.__setattr__(self, "only", frozenset())
        self._check()
        if only:
            object.__setattr__(self, "only", self._chosen(only))

    def __repr__(self) -> str:
        usual = {"stream": "image", "at": "output", "call": "cond"}
        rest = "".join(f", {name}={value!r}" for name in usual if (value := getattr(self, name)) != usual[name])
        rest += f", only {len(self.only)} cells" if self.only else ""
        return f"Plan({[str(block) for block in self.blocks] or None}, {list(self.steps)}, of={self.of}{rest})"

    def _check(self) -> None:
        if not is_count(self.of):
            raise HandscopeError(f"A plan is made for a run of at least one step, found of={self.of!r}.")
        for step in self.steps:
            if not is_count(step) or step > self.of:
                raise HandscopeError(
                    f"Step {step!r} is outside this run: steps count what remains, so of {self.of} they go from "
                    f"{self.of} (the first and noisiest) down to 1 (the last). Name one of these."
                )
        for what, values in (("block", self.blocks), ("step", self.steps)):
            if not values and what == "step":
                raise HandscopeError(f"The plan names no {what}: give at least one.")
            repeated = sorted({str(value) for value in values if values.count(value) > 1})
            if repeated:
                raise HandscopeError(
                    f"The plan names {what} {', '.join(repeated)} more than once: give each {what} once."
                )
        for name, valid in _CHOICES.items():
            if getattr(self, name) not in valid:
                raise HandscopeError(f"Expected {name} to be {' or '.join(valid)}, found {getattr(self, name)!r}.")
        inside = next((block for block in self.blocks if block.site and self.at != "output"), None)
        if inside is not None:
            raise HandscopeError(f"{inside} is a place of its own and has no {self.at}: plan at='output'.")

    def _chosen(self, only: Iterable[str | Cell]) -> frozenset[Cell]:
        """Cells of the plan, such that each block and step has one; none where they are all there are."""
        chosen = frozenset(self.cell(cell) if isinstance(cell, str) else cell for cell in only)
        every = set(self.cells)
        idle = [str(block) for block in self.blocks if not any(cell.block == block for cell in chosen)]
        idle += [f"step {step}" for step in self.steps if not any(cell.step == step for cell in chosen)]
        if not chosen <= every or idle:
            raise HandscopeError(
                "Expected the cells of a plan to be of its blocks and steps, and one at least of each, found "
                f"{', '.join(idle) or ', '.join(map(str, chosen - every))} otherwise."
            )
        return frozenset() if chosen == every else chosen

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of the plan, blocks outer and steps inner: the order of cells in a shard."""
        every = (Cell(block, step) for block, step in product(self.blocks, self.steps))
        return tuple(cell for cell in every if not self.only or cell in self.only)

    def cell(self, name: str) -> Cell:
        """The cell of a text such as ``single.3/14``.

        A plan that names no block yet has every block.

        >>> str(Plan(["single.3"], [14], of=20).cell("single.3/14"))
        'single.3/14'

        Raises
        ------
        HandscopeError
            The text is not a block, a stroke and a step, or the plan does not read that cell.
        """
        block, _, step = name.rpartition("/")
        if _BLOCK.fullmatch(block) is None or not step.isdecimal():
            raise HandscopeError(f"Expected a cell such as single.3/14 (a block, a stroke, a step), found {name!r}.")
        cell = Cell(Block.parse(block), int(step))
        if cell.step not in self.steps or (self.blocks and cell not in self.cells):
            blocks, steps = (", ".join(map(str, names)) for names in (self.blocks or ["every block"], self.steps))
            raise HandscopeError(f"No cell {cell} is read, but {blocks} at steps {steps}: name one of these.")
        return cell

    def index(self, step: int) -> int:
        """The 0-based index of a step in the run, and in its trajectory.

        >>> Plan(["double.0"], [20, 1], of=20).index(20)
        0
        """
        return self.of - step

    def on(self, valid: Sequence[str], carrying: Sequence[str] | None = None) -> "Plan":
        """The plan for a model with the blocks `valid` (``model.blocks``): where it names none, of all of them.

        Where some of them do not give the plan's stream, `carrying` (``model.carrying(plan.stream)``) names the others.

        >>> Plan(None, [1], of=1).on(["layers.0", "layers.1"]).blocks
        (Block(kind='layers', index=0), Block(kind='layers', index=1))

        Raises
        ------
        HandscopeError
            As in `check`.
        """
        if not self.blocks:
            return Plan(carrying or valid, self.steps, self.of, self.stream, self.at, self.call)
        self.check(valid)
        return self

    def check(self, valid: Sequence[str]) -> None:
        """Refuse blocks that are not in `valid`, the blocks a model has (``model.blocks``).

        Raises
        ------
        HandscopeError
            The message names the blocks that the model has.
        """
        if not self.blocks:
            raise HandscopeError("The plan names no block yet: take plan.on(model.blocks), which names every one.")
        missing = [str(block.whole) for block in self.blocks if str(block.whole) not in valid]
        if missing:
            raise HandscopeError(
                f"The model has no block {', '.join(missing)}; it has {_ranges(valid)}. Name one of these."
            )

    @property
    def kind(self) -> str:
        """What two plans must share for their cells to lie in one store: of which run, stream, side and call."""
        said = [f"{name} {getattr(self, name)}" for name, valid in _CHOICES.items() if getattr(self, name) != valid[0]]
        return ", ".join([f"{self.of} steps", *said])

    def reading(self, cells: Collection[Cell]) -> "Plan":
        """The plan of some of its cells, in its order.

        >>> Plan(["double.0", "single.0"], [2, 1], of=2).reading([Cell(Block("single", 0), 1)]).cells
        (Cell(block=Block(kind='single', index=0, site=''), step=1),)
        """
        kept = [cell for cell in self.cells if cell in cells]
        of, at = {cell.block for cell in kept}, {cell.step for cell in kept}
        blocks, steps = [block for block in self.blocks if block in of], [step for step in self.steps if step in at]
        return Plan(blocks, steps, self.of, self.stream, self.at, self.call, kept)

    def joined(self, other: "Plan", order: Sequence[str]) -> "Plan":
        """The plan of the cells of both; itself where it has them all, else in the order of the model.

        The same for any order in which plans are joined, but where one has all cells of the others.

        Parameters
        ----------
        order : the blocks of the model (``model.blocks``); steps go from the noisiest to the last
        """
        cells = {*self.cells, *other.cells}
        if cells == set(self.cells):
            return self
        places = {name: place for place, name in enumerate(order)}
        ranked = sorted((places[str(cell.block.whole)], cell.block) for cell in cells)
        return Plan(
            dict.fromkeys(block for _, block in ranked),
            sorted({cell.step for cell in cells}, reverse=True),
            self.of, self.stream, self.at, self.call, cells,
        )  # fmt: skip

    def to_json(self) -> str:
        """The plan as JSON; `from_json` gives it back.

        What is read by default goes without saying, so that a plan of the first version has the same JSON as then.
        """
        said = {name: getattr(self, name) for name, valid in _CHOICES.items() if getattr(self, name) != valid[0]}
        blocks = [str(block) for block in self.blocks] or None
        plan = {"blocks": blocks, "steps": list(self.steps), "of": self.of, **said}
        return json.dumps(plan | ({"only": list(map(str, self.cells))} if self.only else {}))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


def plain_int(value: Any) -> Any:
    """A whole number of any library as Python's own; anything else, truth values too, as it is.

    >>> plain_int(np.int64(4)), plain_int(True), plain_int(4.0)                 # doctest: +SKIP
    (4, True, 4.0)
    """
    try:
        return value if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return value


def is_count(value: object) -> bool:
    """Whether a value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _ranges(names: Sequence[str]) -> str:
    counts: dict[str, int] = {}
    for name in names:
        kind = name.split(".")[0]
        counts[kind] = counts.get(kind, 0) + 1
    return " and ".join(f"{kind}.0 to {kind}.{count - 1}" for kind, count in counts.items())
