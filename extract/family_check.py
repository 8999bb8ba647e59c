"""A self-test of what a family says of a model: every claim is held against what the model computes.

>>> check_model(model).passed                                          # doctest: +SKIP
True
>>> check_call(pipe.transformer, lambda: pipe("an open hand", num_inference_steps=4), steps=4)      # doctest: +SKIP
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import HandscopeError
from ..models.clean import predicted_clean
from ..models.family import Family, Lengths
from ..models.model import Model
from ..models.registry import hookable
from .address import Plan
from .capture import Seen, capture
from .generate import Drawn, draw
from .hooks import edit
from .replay import replay

OUTCOMES = ("passed", "failed", "not applicable")
PUSH = 20.0
"""What is added to a latent, which then is far outside of what any other one is."""
SEED = 0
REPLAY = "a replay has the bits of the whole run"

_Claim = tuple[str, Callable[[], str]]
"""What is claimed, and a function that tries it: it says what it found, or raises."""


@dataclass(frozen=True)
class Check:
    """One claim: what it is, what became of it (one of `OUTCOMES`), and what was found."""

    claim: str
    outcome: str
    found: str


@dataclass(frozen=True)
class Checked:
    """What a self-test found.

    Attributes
    ----------
    family, transformer : str
    checks : tuple of Check
    """

    family: str
    transformer: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no claim failed, and some could be tried."""
        outcomes = [check.outcome for check in self.checks]
        return "failed" not in outcomes and "passed" in outcomes

    def __str__(self) -> str:
        width = max(len(check.claim) for check in self.checks)
        lines = [f"{check.claim:{width}}  {check.outcome:14}  {check.found}".rstrip() for check in self.checks]
        return "\n".join([f"{self.family} ({self.transformer})", *lines])


def check_model(
    model: Model,
    prompts: tuple[str, str] = ("an open hand", "a blue boat on a lake"),
    steps: int = 3,
    guidance: float = 3.5,
    size: tuple[int, int] | None = None,
) -> Checked:
    """Hold a loaded model against its family: pictures of two prompts are drawn, a few steps each.

    Parameters
    ----------
    prompts : tuple of two str
    steps, guidance : int, float
        As in `generate`.
    size : tuple of int, optional
        Height and width in pixels, which should differ; by default two thirds of what the model was trained for, by all
        of it.
    """
    asked = _Asked(model, prompts, steps, guidance, *(size or _oblong(model)))
    model.encode(prompts)
    more: list[_Claim] = [
        ("a changed latent shows in its place", asked.shown),
        ("conditional and unconditional rows are told apart", asked.sides),
        (REPLAY, asked.replayed),
    ]
    return _checked(model.transformer, model.family, asked.draws, steps, model.pipe.scheduler, more)


def check_call(transformer: Any, call: Callable[[], Any], steps: int = 1, scheduler: Any = None) -> Checked:
    """Hold a family against a pipeline call of your own, or a bare call of the transformer.

    Parameters
    ----------
    call : function without arguments
        Makes `steps` steps with this transformer, the same each time: pass a generator with a seed. Its picture should
        be of another height than width.
    scheduler : optional
        The pipeline's, for the claim about predicted clean latents.

    Raises
    ------
    HandscopeError
        The transformer is of no known family, or cannot be hooked; or the call does not call it.
    """
    return _checked(transformer, hookable(transformer), call, steps, scheduler, [(REPLAY, _needs_a_model)])


def check_pipeline(
    pipe: Any, prompt: str = "an open hand", steps: int = 3, size: tuple[int, int] | None = None
) -> Checked:
    """Hold a family against any diffusers pipeline around one of its transformers, called with a prompt.

    Parameters
    ----------
    prompt : str
        For a pipeline of classes, the first class is drawn in its place.
    size : tuple of int, optional
        Height and width in pixels, which should differ; by default what the pipeline takes.

    Raises
    ------
    HandscopeError
        As in `check_call`; or the pipeline wants more than a prompt.
    """
    takes = inspect.signature(pipe.__call__).parameters
    given: dict[str, Any] = {"num_inference_steps": steps, "output_type": "latent"}
    given |= {"class_labels": [0]} if "class_labels" in takes else {"prompt": prompt}
    given |= dict(zip(("height", "width"), size)) if size is not None else {}
    # A size is drawn as it is asked for, and a video shows a few frames.
    given |= {"use_resolution_binning": False, "num_frames": 5}
    wanted = {name: value for name, value in given.items() if name in takes}

    def call() -> None:
        pipe(**wanted, generator=torch.Generator("cpu").manual_seed(SEED))

    try:
        return check_call(pipe.transformer, call, steps, pipe.scheduler)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise HandscopeError(
            f"{type(pipe).__name__} could not be called with {', '.join(wanted)} ({str(error).splitlines()[0]}): give "
            "a height and width that it takes, or use handscope.extract.family_check.check_call around a call of your "
            "own."
        ) from error


class _NotApplicable(Exception):
    """Why a claim cannot be tried."""


@dataclass(frozen=True, eq=False)
class _Recorded:
    """The first call of the transformer in a run, to be made again with other arguments."""

    transformer: Any
    family: Family
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def arguments(self) -> dict[str, Any]:
        return self.family.arguments(self.args, self.kwargs)

    @property
    def lengths(self) -> Lengths:
        return self.family.lengths(self.arguments)

    @torch.no_grad()
    def again(self, **other: Any) -> Any:
        """The transformer's output, with other values of some arguments."""
        args, kwargs = self.args, self.kwargs
        for name, value in other.items():
            args, kwargs = self.family.replaced(args, kwargs, name, value)
        return self.transformer(*args, **kwargs)

    def seen(self, blocks: Sequence[str], stream: str = "image", at: str = "input", **other: Any) -> Seen:
        """A stream of its conditional rows."""
        with capture(self.transformer, Plan(blocks, [1], 1, stream=stream, at=at)) as seen:
            self.again(**other)
        return seen

    def first(self, stream: str) -> list[str]:
        """The first block of each list that has a stream, and some of it in this call."""
        if not self.lengths.get(stream):
            return []
        carrying = self.family.carrying(self.transformer, stream)
        return [block for block in carrying if block.endswith(".0")]


def _checked(
    transformer: Any, family: Family, call: Callable[[], Any], steps: int, scheduler: Any, more: Sequence[_Claim]
) -> Checked:
    recorded = _record(transformer, family, call)
    claims: list[_Claim] = [
        ("each step has one conditional call", lambda: _counted(transformer, family, call, steps)),
        ("a changed latent lands on its token", lambda: _landed(recorded)),
        ("text and image are not swapped", lambda: _parted(recorded)),
        ("a capture is what a hook by hand sees", lambda: _hooked(recorded)),
        ("an edit at the last block changes the output", lambda: _edited(recorded)),
        *more,
        ("x0 is what the scheduler steps to", lambda: _stepped(family, call, scheduler)),
    ]
    checks = []
    for claim, tried in claims:
        try:
            checks.append(Check(claim, "passed", tried()))
        except _NotApplicable as why:
            checks.append(Check(claim, "not applicable", str(why)))
        except (HandscopeError, AssertionError) as error:
            checks.append(Check(claim, "failed", str(error)))
    return Checked(family.name, type(transformer).__name__, tuple(checks))


def _record(transformer: Any, family: Family, call: Callable[[], Any]) -> _Recorded:
    calls: list[_Recorded] = []

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not calls:
            calls.append(_Recorded(transformer, family, args, dict(kwargs)))

    handle = transformer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        with torch.no_grad():
            call()
    finally:
        handle.remove()
    if not calls:
        raise HandscopeError("The call that was given did not call the transformer: give one that draws with it.")
    return calls[0]


def _counted(transformer: Any, family: Family, call: Callable[[], Any], steps: int) -> str:
    block = next(iter(family.carrying(transformer, "image")))
    with torch.no_grad(), capture(transformer, Plan([block], [steps], of=steps)) as seen:
        call()
    samples, tokens, width = seen[block, steps].shape
    return f"{steps} steps of {samples} samples, {tokens} image tokens of width {width}"


def _landed(call: _Recorded) -> str:
    """The largest change at either side of each list's first block is at the token that the table predicts."""
    grid = call.family.call_grid(call.arguments, call.lengths)
    if grid is None:
        raise _NotApplicable("its calls do not say the token grid")
    rows, columns = grid
    blocks = call.first("image")
    for at in ("input", "output"):
        plain = call.seen(blocks, at=at)
        for row, column in ((0, 0), (rows // 2, columns - 1), (rows - 1, columns // 2)):
            changed = call.seen(blocks, at=at, **{call.family.latents: _pushed(call, row, column, columns)})
            for block in blocks:
                place, latent = f"the {at} of {block}", f"the latent of row {row}, column {column}"
                for sample in (changed[block, 1] - plain[block, 1]).float().abs().amax(-1):
                    found = divmod(int(sample.argmax()), columns)
                    assert sample.max() > 0, f"{latent} changes no token at {place}"
                    assert found == (row, column), f"{latent} shows in row {found[0]}, column {found[1]} at {place}"
    square = "; it is square, so take another to tell its height from its width" if rows == columns else ""
    return f"three tokens of a grid of {rows} by {columns}, in {', '.join(blocks)}{square}"


def _pushed(call: _Recorded, row: int, column: int, columns: int) -> Any:
    """The call's latents with those of one token pushed, in each row of the batch."""
    latents, patch = call.arguments[call.family.latents], call.family.patch
    if call.family.form == "packed":
        changed = latents.clone()
        changed[:, row * columns + column] += PUSH
        return changed
    whole = [one.clone() for one in latents] if isinstance(latents, list) else latents.clone()
    for one in whole:
        # Frames of a video stand below each other in the grid.
        frame, within = divmod(row, one.shape[-2] // patch)
        place = one[:, frame] if one.ndim == 4 else one
        place[..., within * patch : (within + 1) * patch, column * patch : (column + 1) * patch] += PUSH
    return whole


def _parted(call: _Recorded) -> str:
    """Where text and image have not met yet, another text shows in the text alone, other latents in the image alone."""
    text, image = call.first("text"), call.first("image")
    if not text:
        raise _NotApplicable("its blocks have no text stream")
    words = call.lengths["text"]
    if not isinstance(words, int) and len(set(words)) > 1:
        raise _NotApplicable(f"texts of {', '.join(map(str, words))} tokens cannot be read together")
    given = call.arguments[call.family.text]
    other_text, other_latents = _other(given), _other(call.arguments[call.family.latents])
    other = {"text": {call.family.text: other_text}, "image": {call.family.latents: other_latents}}
    for stream, block, foreign in (("text", text[0], "image"), ("image", image[0], "text")):
        plain, own, from_other = (
            call.seen([block], stream, **change)[block, 1] for change in ({}, other[stream], other[foreign])
        )
        assert not torch.equal(plain, own), f"other {_ARGUMENT[stream]} do not change the {stream} tokens of {block}"
        assert torch.equal(plain, from_other), f"other {_ARGUMENT[foreign]} change the {stream} tokens of {block}"
    return f"text at {text[0]}, image at {image[0]}"


_ARGUMENT = {"text": "texts", "image": "latents"}


def _other(given: Any, rows: bool = True) -> Any:
    """Another value of latents or texts: the same change in each row, so that both halves of guidance stay alike."""
    if isinstance(given, list):
        return [_other(one, rows=False) for one in given]
    shape = given.shape[1:] if rows else given.shape
    return given + torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).to(given)


def _hooked(call: _Recorded) -> str:
    """What is captured stands in the tensors that the blocks return, as one run of tokens in each row."""
    blocks = list(call.family.carrying(call.transformer, "image"))
    modules = call.family.blocks(call.transformer)
    returned: dict[str, Any] = {}
    handles = [
        modules[block].register_forward_hook(lambda *given, block=block: returned.update({block: given[2]}))
        for block in blocks
    ]
    try:
        seen = call.seen(blocks, at="output")
    finally:
        for handle in handles:
            handle.remove()
    for block in blocks:
        made = returned[block] if isinstance(returned[block], tuple | list) else (returned[block],)
        tensors = [one for one in made if isinstance(one, Tensor)]
        for sample in seen[block, 1]:
            assert any(_stands_in(sample, row.cpu()) for tensor in tensors for row in tensor), (
                f"what is captured of {block} is in nothing that it returns"
            )
    return f"{len(blocks)} blocks"


def _stands_in(part: Tensor, whole: Tensor) -> bool:
    """Whether all tokens of a part stand one behind the other in a row."""
    starts = (whole[: len(whole) - len(part) + 1] == part[0]).all(-1).nonzero().flatten().tolist()
    return any(torch.equal(whole[start : start + len(part)], part) for start in starts)


def _edited(call: _Recorded) -> str:
    """One is added to the image at the last block, and nothing for comparison."""
    block = list(call.family.carrying(call.transformer, "image"))[-1]
    plain = _tensors(call.again())
    for change in (0.0, 1.0):
        plan = Plan([block], [1], of=1, call="both")
        with edit(call.transformer, plan, lambda values, cell, change=change: values + change):  # type: ignore[misc]
            pushed = _tensors(call.again())
        same = all(torch.equal(a, b) for a, b in zip(plain, pushed, strict=True))
        assert same or change, f"an edit of {block} that adds nothing changes the output"
        assert not same or not change, f"an edit of {block} leaves the output as it was"
    return block


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output if isinstance(output, tuple | list) else [output[0]]
    return [tensor for part in parts for tensor in _tensors(part)]


def _needs_a_model() -> str:
    raise _NotApplicable("it needs a model that handscope loads, and this was a call of your own")


@dataclass(frozen=True)
class _Asked:
    """What can be asked of a model that handscope loads."""

    model: Model
    prompts: tuple[str, str]
    steps: int
    guidance: float
    height: int
    width: int

    def draws(self, number: int = 0) -> Drawn:
        """Two pictures of a prompt."""
        pairs = [(self.prompts[number], SEED), (self.prompts[number], SEED + 1)]
        return draw(self.model, pairs, self.steps, self.guidance, self.height, self.width)

    def shown(self) -> str:
        """A pushed token changes the decoded picture most there, or beside it: decoders look at what is around."""
        model, height, width = self.model, self.height, self.width
        rows, columns = model.grid(height, width)
        plain = model.noise(SEED, height, width)[None].to(model.device, model.dtype)
        for row, column in ((rows // 2, columns - 2), (rows - 2, columns // 2)):
            changed = plain.clone()
            changed[0, row * columns + column] += 1
            placed, before = (model.family.unpack(model.pipe, x, height, width) for x in (changed, plain))
            cells = (placed != before).any(1)[0].nonzero() // model.family.patch
            assert {tuple(cell) for cell in cells.tolist()} == {(row, column)}, (
                f"the latent of row {row}, column {column} is unpacked to another place"
            )
            shown = (model.decode(changed, height, width) - model.decode(plain, height, width)).abs().sum((0, 1))
            by_token = shown.reshape(rows, height // rows, columns, width // columns).sum((1, 3))
            found = divmod(int(by_token.argmax()), columns)
            assert max(abs(found[0] - row), abs(found[1] - column)) <= 1, (
                f"the latent of row {row}, column {column} shows in row {found[0]}, column {found[1]} of the picture"
            )
        return f"two tokens of {height} by {width} pixels"

    def sides(self) -> str:
        """Another prompt changes conditional rows, and leaves those of the negative prompt as they were."""
        model = self.model
        if not model.family.guided(model.pipe, self.guidance):
            raise _NotApplicable("its guidance is not classifier-free")
        block = model.family.carrying(model.transformer, "image")[-1]
        for call, same in (("cond", False), ("uncond", True)):
            found = []
            for number in (0, 1):
                with capture(model.transformer, Plan([block], [self.steps], of=self.steps, call=call)) as seen:
                    self.draws(number)
                found.append(seen[block, self.steps])
            verb = "changes" if same else "leaves"
            assert torch.equal(*found) == same, f"another prompt {verb} what is read as {call} in {block}"
        return block

    def replayed(self) -> str:
        """A replay of the first prompt's trajectories, bit for bit."""
        model = self.model
        plan = Plan(model.family.carrying(model.transformer, "image"), range(self.steps, 0, -1), of=self.steps)
        with capture(model.transformer, plan) as whole:
            made = self.draws()
        assert made.trajectories is not None
        prompts = [self.prompts[0]] * 2
        again = replay(model, plan, prompts, made.trajectories, self.guidance, self.height, self.width)
        for cell in plan.cells:
            assert torch.equal(again[cell.block, cell.step], whole[cell.block, cell.step]), f"it differs at {cell}"
        return f"{len(plan.cells)} cells"


def _stepped(family: Family, call: Callable[[], Any], scheduler: Any) -> str:
    """The clean latents that the family's formula gives at the last step are what the scheduler ends at."""
    if scheduler is None:
        raise _NotApplicable("no scheduler was given")
    with _steps(scheduler) as steps, torch.no_grad():
        call()
    if not steps:
        raise _NotApplicable("the call made no step of the scheduler")
    output, timestep, noisy, made = steps[-1]
    name = type(scheduler).__name__
    if hasattr(made, "pred_original_sample") and hasattr(scheduler, "alphas_cumprod"):
        expected, noise = made.pred_original_sample, (1 - scheduler.alphas_cumprod[int(timestep)]).sqrt()
    elif name == "FlowMatchEulerDiscreteScheduler":
        expected, noise = made[0] if isinstance(made, tuple) else made.prev_sample, scheduler.sigmas[-2]
    else:
        raise _NotApplicable(f"{name} takes other steps than those that trajectories are read by")
    clean = predicted_clean(noisy.float(), output.float(), family.prediction, noise.to(noisy.device))
    error = float((clean - expected.float()).abs().max() / expected.float().std())
    # One rounding of each number to the scheduler's dtype.
    allowed = 1e-3 if expected.dtype == torch.float32 else 0.05
    assert error <= allowed, f"the clean latents are {error:.2g} standard deviations from those of {name}"
    return f"{name}: within {error:.1g} standard deviations"


@contextmanager
def _steps(scheduler: Any) -> Iterator[list[tuple[Tensor, Any, Tensor, Any]]]:
    """What went into each step of a scheduler, and what came out."""
    found: list[tuple[Tensor, Any, Tensor, Any]] = []
    step = scheduler.step

    def kept(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        before = sample.clone()
        made = step(model_output, timestep, sample, *args, **kwargs)
        found.append((model_output.clone(), timestep, before, made))
        return made

    scheduler.step = kept
    try:
        yield found
    finally:
        del scheduler.step


def _oblong(model: Model) -> tuple[int, int]:
    """A size of whole tokens, two thirds as high as wide."""
    token = model.height // model.grid(model.height, model.width)[0]
    return max(token, model.height * 2 // 3 // token * token), model.width
