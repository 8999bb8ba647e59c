"""What pictures are worth, by anyone's measure: distances between sets of pictures, and scores of single ones.

Three kinds of function, each with a name or an address:

=========  ==============================================  ======================================================
kind       called with                                     gives
=========  ==============================================  ======================================================
picture    ``(pictures, prompts)``, n of both              array of shape (n,), NaN where it cannot be told
features   ``(pictures)``, n of them                       array of shape (n, d)
distance   ``(features, reference, groups)``, arrays of    `Distance`, its interval by draws of groups: prompts
           shapes (n, d), (m, d) and (n,)
=========  ==============================================  ======================================================

Pictures are sequences of ``PIL.Image``. `named` finds a function by its name in `TABLE`, or by ``module:function``: so
PickScore, ImageReward or any other measure is a function of two lines in a file of the user's own, as docs/metrics.md
shows. Nothing here downloads weights: they are folders and files that the user points to.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError


@dataclass(frozen=True)
class Distance:
    """A distance between two sets of pictures.

    Attributes
    ----------
    value : float
    lo, hi : float, 95% interval by draws of groups; the reference is held fixed
    n, m : int, pictures and reference pictures
    warning : str, what to know before it is believed; empty where there is nothing
    """

    value: float
    lo: float
    hi: float
    n: int
    m: int
    warning: str = ""


@dataclass(frozen=True)
class Entry:
    """A row of `TABLE`.

    Attributes
    ----------
    home : str, ``module:function``, the module from this room where it begins with a dot
    kind : str, ``picture``, ``features`` or ``distance``
    higher : bool, whether higher is better; False for features, which are no measure
    text : str
    """

    home: str
    kind: str
    higher: bool
    text: str


TABLE = {
    "kid": Entry(".kernels:kid", "distance", False, "kernel inception distance: unbiased, for samples of any size"),
    "mmd": Entry(".kernels:mmd", "distance", False, "maximum mean discrepancy with a Gaussian kernel, squared"),
    "frechet": Entry(".frechet:frechet", "distance", False, "Fréchet distance of two Gaussians: FID, of its features"),
    "torch-fidelity:fid": Entry(".fidelity:fid", "distance", False, "frechet as torch-fidelity computes it"),
    "torch-fidelity:kid": Entry(".fidelity:kid", "distance", False, "kid as torch-fidelity computes it, of subsets"),
    "torch-fidelity:precision": Entry(".fidelity:precision", "distance", True, "share of pictures among the reference"),
    "torch-fidelity:recall": Entry(".fidelity:recall", "distance", True, "share of the reference among the pictures"),
    "landmark": Entry(".features:landmark", "features", False, "the landmark network's, which ships with handscope"),
    "transformers": Entry(".features:transformers", "features", False, "of a CLIP, DINOv2 or other folder: its path"),
    "inception": Entry(".fidelity:inception", "features", False, "those of FID and KID: the path of their weights"),
    "clip-score": Entry(
        ".clip_score:clip_score", "picture", True, "how well a CLIP thinks it fits its prompt: its path"
    ),
}
"""What has a name of its own."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A function that `named` found, with its settings; called as others of its kind are.

    Attributes
    ----------
    name : str
    kind : str, ``picture``, ``features`` or ``distance``
    higher : bool, whether higher is better
    function : callable
    """

    name: str
    kind: str
    higher: bool
    function: Callable[..., Any]

    def __call__(self, *given: Any) -> Any:
        """What the function says, checked.

        Raises
        ------
        HandscopeError
            It gave something of another shape than its kind does.
        """
        found = self.function(*given)
        return found if self.kind == "distance" else self._checked(found, len(given[0]))

    def _checked(self, found: Any, n: int) -> NDArray[np.float64]:
        try:
            array = np.asarray(found, np.float64)
        except (TypeError, ValueError) as error:
            raise HandscopeError(
                f"{self.name} gave no numbers ({error}): it must give one for each picture."
            ) from error
        expected = 1 if self.kind == "picture" else 2
        if array.ndim != expected or len(array) != n:
            shape = "(n,)" if expected == 1 else "(n, d)"
            raise HandscopeError(f"{self.name} gave shape {array.shape} for {n} pictures: expected {shape}.")
        return array


def named(name: str, **settings: Any) -> Metric:
    """A metric by its name in `TABLE`, or by ``module:function``.

    Parameters
    ----------
    settings : keyword arguments of the function, such as `folder` or `weights`. A function of the user's is taken for
        one of pictures; its attributes `kind` and `higher_is_better`, where it has them, say otherwise.

    Raises
    ------
    HandscopeError
        There is no such name, module or function, it lacks a setting or does not know one.
    """
    entry = TABLE.get(name)
    if entry is None and (":" not in name or name.startswith("torch-fidelity:")):
        raise HandscopeError(
            f"There is no metric {name!r}: expected one of {', '.join(TABLE)}, or module:function of your own."
        )
    module, _, function_name = (entry.home if entry else name).partition(":")
    try:
        function = getattr(importlib.import_module(module, __name__), function_name)
    except (ImportError, AttributeError) as error:
        raise HandscopeError(f"The metric {name!r} was not found ({error}): is its module on PYTHONPATH?") from error
    if not callable(function):
        raise HandscopeError(f"The metric {name!r} is no function, but {type(function).__name__}.")
    _check_settings(name, function, settings)
    kind = entry.kind if entry else getattr(function, "kind", "picture")
    higher = entry.higher if entry else bool(getattr(function, "higher_is_better", True))
    return Metric(name, kind, higher, partial(function, **settings) if settings else function)


def _check_settings(name: str, function: Callable[..., Any], settings: dict[str, Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin says nothing of what it takes
        return
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        return
    known = {one.name for one in parameters if one.kind is not inspect.Parameter.VAR_POSITIONAL}
    needed = {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY and one.default is one.empty}
    if unknown := settings.keys() - known:
        raise HandscopeError(f"The metric {name!r} has no setting {', '.join(sorted(unknown))}.")
    if lacking := needed - settings.keys():
        raise HandscopeError(f"The metric {name!r} needs {' and '.join(sorted(lacking))}: see docs/metrics.md.")
