"""From prompts to images, trajectories and activations on disk.

The package is also what the root exports as a function: ``handscope.extract(model, run, plan)`` extracts.
"""

import sys
from types import ModuleType
from typing import Any


class _Extract(ModuleType):
    """The design gives the package and its main function one name; importing any part of a package binds its name in
    the parent.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .extract import extract

        return extract(*args, **kwargs)


sys.modules[__name__].__class__ = _Extract
