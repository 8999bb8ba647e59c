"""From prompts to images, trajectories and activations on disk.

The package is also what the root exports as a function: ``handscope.extract(model, run, plan)`` extracts.
"""

import inspect
import sys
from types import ModuleType
from typing import Any


class _Extract(ModuleType):
    """A package that can be called, and is documented as what it calls.

    Importing any part of a package binds its name in the parent, so a function of that name would not stay there.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function())

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        function = _function()
        return f"extract{inspect.signature(function)}\n\n{inspect.getdoc(function)}"


def _function() -> Any:
    from .extract import extract

    return extract


sys.modules[__name__].__class__ = _Extract
