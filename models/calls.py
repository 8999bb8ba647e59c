"""Which of a pipeline's calls of the transformer are conditional, and which are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from torch import Tensor

from ..errors import HandscopeError

if TYPE_CHECKING:
    from .family import Family


class CallNames:
    """Tells the unconditional calls of a transformer, or parts of calls, from the others, while `named` holds.

    A call inside diffusers' ``cache_context("uncond")`` is unconditional, and so, in the pipelines that do not name
    their calls, is one that gives the latents of the call before it with another text. Where one call holds both, the
    family says whose rows are where.

    Attributes
    ----------
    doing : str
        What is done to the calls, in words; empty where they are only read.
    """

    def __init__(self, family: Family, doing: str = "") -> None:
        self._family, self.doing = family, doing
        self._thread = get_ident()
        self._context = ""
        self._last: tuple[ref[Tensor], ref[Tensor]] | None = None

    def rows(self, arguments: Mapping[str, Any]) -> dict[str, slice]:
        """The rows of the batch that are ``cond`` and those that are ``uncond``; to be asked once a call, in order.

        Raises
        ------
        HandscopeError
            The call is another thread's.
        """
        if not self.own():
            raise HandscopeError(
                "Another thread reads or changes the calls of this transformer, and this call would be taken for one "
                "of its own: open the block in the thread that draws, or give each thread a pipeline of its own."
            )
        sides = self._family.sides(arguments)
        return sides or {"uncond" if self._is_unconditional(arguments) else "cond": slice(None)}

    def own(self) -> bool:
        """Whether this is the thread whose calls are followed."""
        return get_ident() == self._thread

    def _is_unconditional(self, arguments: Mapping[str, Any]) -> bool:
        if self._context:
            return self._context == "uncond"
        latents, text = (_first(arguments.get(name)) for name in (self._family.latents, self._family.text))
        if latents is None or text is None:
            return False
        if self._last is not None and self._last[0]() is latents and self._last[1]() is not text:
            self._last = None
            return True
        self._last = ref(latents), ref(text)
        return False

    @contextmanager
    def _named_call(self, cache_context: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Iterator[None]:
        """In place of the transformer's `cache_context`, where FluxPipeline names its calls and nowhere else."""
        with cache_context(name, *args, **kwargs):
            self._context = name
            try:
                yield
            finally:
                self._context = ""


def _first(given: Any) -> Any:
    """A tensor, or the first of a list of them."""
    return given[0] if isinstance(given, list) and given else given


_listening: WeakKeyDictionary[Any, list[CallNames]] = WeakKeyDictionary()
_lock = Lock()


def edits(transformer: Any) -> list[str]:
    """What is being done to a transformer's calls, in words: steering, guidance and other edits that are open."""
    return [names.doing for names in _listening.get(transformer, []) if names.doing]


@contextmanager
def named(transformer: Any, family: Family, doing: str = "") -> Iterator[CallNames]:
    """Listen to the names that a pipeline gives its calls; the transformer is left as it was found.

    Parameters
    ----------
    doing : str, optional
        What is done to the calls, in words.

    Raises
    ------
    HandscopeError
        Another thread listens to them already.
    """
    names = CallNames(family, doing)
    instance = vars(transformer)
    with _lock:
        open_ = _listening.setdefault(transformer, [])
        if not all(other.own() for other in open_):
            raise HandscopeError(
                "Another thread reads or changes the calls of this transformer, and the two would be mixed: wait until "
                "it has ended, or give each thread a pipeline of its own."
            )
        open_.append(names)
    outer = instance.get("cache_context")
    if hasattr(transformer, "cache_context"):
        instance["cache_context"] = partial(names._named_call, transformer.cache_context)
    try:
        yield names
    finally:
        if outer is not None:
            instance["cache_context"] = outer
        else:
            instance.pop("cache_context", None)
        with _lock:
            open_.remove(names)
