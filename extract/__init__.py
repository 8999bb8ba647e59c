"""From prompts to images, trajectories and activations on disk.

The package is also what the root exports as a function: ``handscope.extract(model, run, plan)`` extracts.
"""

import sys
from types import ModuleType
from typing import Any


class _Extract(ModuleType):
    """A package that can be called.

    Importing any part of a package binds its name in the parent, so a function of that name would not stay there.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .extract import extract

        return extract(*args, **kwargs)


sys.modules[__name__].__class__ = _Extract
