"""Probes as files: what they say, and where they come from."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.utils.validation import check_is_fitted

from ..errors import HandscopeError
from ..files import atomic, check_readable, order_header, refuse_unusable
from .linear import LinearProbe
from .logistic import LogisticProbe
from .massmean import MassMeanProbe
from .ridge import RidgeProbe

KINDS: dict[str, type[LinearProbe]] = {kind.__name__: kind for kind in (LogisticProbe, RidgeProbe, MassMeanProbe)}
ARRAYS = ("coef", "intercept", "mean", "scale")


def save_probe(probe: LinearProbe, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> None:
    """Write a probe, and what is known of where it comes from, as one safetensors file.

    Parameters
    ----------
    metadata : anything that JSON can hold. The probe stage gives model, revision, weight_hash, plan, block, step,
        tokens, folds and the held-out figures.
    """
    check_is_fitted(probe)
    arrays = dict(zip(ARRAYS, (probe.coef_, [probe.intercept_], probe.mean_, probe.scale_), strict=True))
    text = json.dumps({**(metadata or {}), "kind": type(probe).__name__, **probe.get_params()})
    with atomic(path) as temporary:
        save_file(
            {name: np.ascontiguousarray(array, np.float64) for name, array in arrays.items()},
            temporary,
            {"handscope": text},
        )
        order_header(temporary)


def load_probe(path: str | os.PathLike[str]) -> LinearProbe:
    """Read a probe that `save_probe` wrote, of whichever kind; nothing in the file is run.

    >>> load_probe("runs/demo/probes/single.3_8.safetensors").metadata_["step"]        # doctest: +SKIP
    8

    Raises
    ------
    HandscopeError
        The file is missing, damaged, or not a probe of handscope.
    """
    try:
        check_readable(path)
        with safe_open(path, "numpy") as file:
            metadata = json.loads((file.metadata() or {})["handscope"])
            coef, intercept, mean, scale = (file.get_tensor(name) for name in ARRAYS)
        kind = KINDS[metadata["kind"]]
        probe = kind(**{name: metadata[name] for name in kind().get_params()})
        fits = coef.ndim == 1 and coef.shape == mean.shape == scale.shape and intercept.shape == (1,)
        if not fits or not all(np.isfinite(array).all() for array in (coef, intercept)):
            raise ValueError(f"weights of shape {coef.shape} and an intercept of shape {intercept.shape}")
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        refuse_unusable(error, path)
        raise HandscopeError(
            f"Expected a probe saved by handscope at {path}, and could not read one ({type(error).__name__}: {error}); "
            "fit it again with `handscope probe`, or give another file."
        ) from error
    probe.classes_ = np.array([0, 1])
    probe.coef_, probe.intercept_ = coef, float(intercept[0])
    probe.mean_, probe.scale_ = mean, scale
    probe.metadata_ = metadata
    return probe
