"""Where and when does a diffusion transformer know that the hand it draws is wrong?

Public names are loaded when they are first used, so that ``import handscope`` is quick and does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import HandscopeError

if TYPE_CHECKING:
    from .extract.address import Plan
    from .extract.capture import capture
    from .extract.extract import extract
    from .extract.generate import generate
    from .extract.hooks import edit
    from .extract.store.store import ActivationStore
    from .labeling.database.annotation import Annotation
    from .labeling.database.labels import Labels
    from .models.model import load
    from .models.registry import blocks
    from .run.folder import Run
    from .study import Study

__version__ = "0.3.0"

__all__ = [
    "ActivationStore",
    "Annotation",
    "HandscopeError",
    "Labels",
    "Plan",
    "Run",
    "Study",
    "__version__",
    "blocks",
    "capture",
    "edit",
    "extract",
    "generate",
    "load",
]

_HOMES = {
    "ActivationStore": ".extract.store.store",
    "Annotation": ".labeling.database.annotation",
    "Labels": ".labeling.database.labels",
    "Plan": ".extract.address",
    "Run": ".run.folder",
    "Study": ".study",
    "blocks": ".models.registry",
    "capture": ".extract.capture",
    "edit": ".extract.hooks",
    "generate": ".extract.generate",
    "load": ".models.model",
}


_ROOMS = (
    "analysis",
    "anatomy",
    "comparison",
    "evaluation",
    "extract",  # also what `extract` is: importing a part of a package would displace a function of its name
    "figures",
    "guidance",
    "labeling",
    "models",
    "organism",
    "probes",
    "report",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS})
