"""HandAnat: where the hands of a picture are, whether they are plausible, and how far that verdict can be trusted.

Public names are loaded when they are first used, so that the command line is quick and does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibration import Calibration
    from .hands import Hands
    from .regions import crop
    from .scores import Verdict
    from .scoring import Scores, score

__all__ = ["Calibration", "Hands", "Scores", "Verdict", "crop", "score"]

_HOMES = {
    "Calibration": ".calibration",
    "Hands": ".hands",
    "Scores": ".scoring",
    "Verdict": ".scores",
    "crop": ".regions",
    "score": ".scoring",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
