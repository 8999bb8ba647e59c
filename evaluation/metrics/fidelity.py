"""FID, KID, precision and recall as published tables have them: by torch-fidelity, with weights of the user's.

`inception` gives the features; the distances are of any features. torch-fidelity is the extra ``fidelity``.
"""

from __future__ import annotations

import importlib
import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ...errors import HandscopeError
from . import Distance, kernels
from .features import Pictures, in_batches
from .frechet import frechet, jackknifed
from .sets import Array, checked, few_groups, said

SUBSET = 1000
"""Pictures in a subset of torch-fidelity's KID."""


def inception(pictures: Pictures, *, path: str, crops: bool = False, batch_size: int = 32) -> NDArray[np.float32]:
    """The features of FID and KID, (n, 2048): Inception's, with TensorFlow's resizing, as torch-fidelity has them.

    Parameters
    ----------
    path : torch-fidelity's ``weights-inception-2015-12-05-6726825d.pth``, which is not downloaded
    crops : as for `features.landmark`

    Raises
    ------
    HandscopeError
        torch-fidelity is not installed, or the file is missing or holds something else than tensors.
    """
    network = _network(path)

    def see(some: Pictures) -> torch.Tensor:
        # Pictures of one size at a time: the network resizes.
        rows = [torch.from_numpy(np.array(one)).permute(2, 0, 1)[None] for one in some]
        with torch.no_grad():
            return torch.cat([network(row)[0] for row in rows])

    return in_batches(see, pictures, crops, batch_size)


@lru_cache(maxsize=1)
def _network(path: str) -> Any:
    if not Path(path).is_file():
        raise HandscopeError(
            f"There are no weights {path}: give the file that torch-fidelity publishes; see its README."
        )
    module = _module("feature_extractor_inceptionv3")
    try:
        # The library unpickles whatever the file holds: what is more than tensors is refused before.
        torch.load(path, weights_only=True)
        return module.FeatureExtractorInceptionV3("handscope", ["2048"], feature_extractor_weights_path=path)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise HandscopeError(
            f"{path} does not hold the weights of torch-fidelity's Inception: fetch it again."
        ) from error


def fid(features: ArrayLike, reference: ArrayLike, groups: ArrayLike | None = None) -> Distance:
    """`frechet.frechet` with torch-fidelity's value."""
    x, y, group = checked(features, reference, groups)
    module = _module("metric_fid")
    sets = (module.fid_features_to_statistics(torch.from_numpy(one)) for one in (x, y))
    value = module.fid_statistics_to_metric(*sets, False)[module.KEY_METRIC_FID]
    own = frechet(x, y, group)
    return Distance(float(value), own.lo, own.hi, own.n, own.m, own.warning)


def kid(
    features: ArrayLike,
    reference: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    subset: int = SUBSET,
    seed: int = 2020,
) -> Distance:
    """The mean over 100 random subsets, as published tables have it; the interval is that of `kernels.kid`.

    Parameters
    ----------
    subset : pictures in a subset; where there are fewer of either, as many as there are, which the warning says
    """
    x, y, group = checked(features, reference, groups)
    module, size = _module("metric_kid"), min(subset, len(x), len(y))
    sets = (torch.from_numpy(one) for one in (x, y))
    found = module.kid_features_to_metric(*sets, kid_subset_size=size, rng_seed=seed, verbose=False)
    own = kernels.kid(x, y, group)
    fewer = "" if size == subset else f"Subsets are of {size} pictures, not of {subset} as in published tables."
    return Distance(found[module.KEY_METRIC_KID_MEAN], own.lo, own.hi, own.n, own.m, said(own.warning, fewer))


def precision(features: ArrayLike, reference: ArrayLike, groups: ArrayLike | None = None) -> Distance:
    """Share of the pictures that lie within the third neighbour's distance of a reference picture.

    Kynkäänniemi et al. 2019 (arXiv 1904.06991).
    """
    return _prc(features, reference, groups, "PRECISION")


def recall(features: ArrayLike, reference: ArrayLike, groups: ArrayLike | None = None) -> Distance:
    """Share of the reference that lies within the third neighbour's distance of a picture."""
    return _prc(features, reference, groups, "RECALL")


def _prc(features: ArrayLike, reference: ArrayLike, groups: ArrayLike | None, which: str) -> Distance:
    x, y, group = checked(features, reference, groups)
    if min(len(x), len(y)) < 5:
        raise HandscopeError(f"A third neighbour takes five pictures of each, found {len(x)} and {len(y)}.")
    module = _module("metric_prc")

    def share(rows: NDArray[np.intp]) -> float:
        sets: list[Array] = [x[rows], y]
        found = module.prc_features_to_metric(*map(torch.from_numpy, sets), verbose=False)
        return float(found[getattr(module, f"KEY_METRIC_{which}")])

    value, low, high = jackknifed(share, group)
    uneven = (
        "" if len(x) == len(y) else f"{len(x):,} and {len(y):,} pictures: the shares compare at equal numbers only."
    )
    return Distance(value, max(low, 0.0), min(high, 1.0), len(x), len(y), said(few_groups(group), uneven))


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"torch_fidelity.{name}")
    except ImportError as error:
        raise HandscopeError(
            f"This needs torch-fidelity, which cannot be imported ({error}): pip install 'handscope[fidelity]', with a "
            "torchvision that fits torch."
        ) from error
