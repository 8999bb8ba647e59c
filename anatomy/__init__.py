"""HandAnat: where the hands of a picture are, whether they are plausible, and how far that verdict can be trusted.

Public names are loaded when they are first used, so that the command line is quick and does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .judge.calibration import Calibration
    from .judge.scores import Verdict
    from .judge.scoring import Scores, score
    from .read.hands import Hands
    from .read.regions import crop

__all__ = ["Calibration", "Hands", "Scores", "Verdict", "crop", "score"]

_HOMES = {
    "Calibration": ".judge.calibration",
    "Hands": ".read.hands",
    "Scores": ".judge.scoring",
    "Verdict": ".judge.scores",
    "crop": ".read.regions",
    "score": ".judge.scoring",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
