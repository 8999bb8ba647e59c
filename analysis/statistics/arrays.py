"""Arrays as a user gives them: checked in one place, so that what makes no sense is refused and not computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import HandscopeError


def numbers(values: Any, what: str, finite: bool = True) -> NDArray[Any]:
    """Values as an array of numbers, in the precision that they come in (at least single).

    Parameters
    ----------
    values : array, tensor, DataFrame or nested list
    what : str, what the values are, for the message
    finite : refuse NaN and infinity

    Raises
    ------
    HandscopeError
        The values are text, objects or sparse, of no regular shape, or not finite.
    """
    if hasattr(values, "toarray"):
        raise HandscopeError(f"Expected {what} as a dense array, found a sparse one: give its .toarray().")
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() and values.element_size() < 4 else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise HandscopeError(f"Expected {what} as an array, found rows of different lengths: {error}.") from error
    if array.dtype.kind not in "buif":
        raise HandscopeError(f"Expected {what} as numbers, found {array.dtype}: convert the values first.")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise HandscopeError(f"Expected finite {what}; {count} of {array.size} are NaN or infinite: leave them out.")
    return array


def binary(values: Any, what: str = "labels") -> NDArray[np.float64]:
    """Labels as float64 of 0 and 1.

    Raises
    ------
    HandscopeError
        As of `numbers`, or a value is neither 0 nor 1.
    """
    array = numbers(values, what).astype(np.float64, copy=False)
    odd = (array != 0) & (array != 1)
    if odd.any():
        some = ", ".join(f"{value:g}" for value in np.unique(array[odd])[:3])
        raise HandscopeError(f"Expected {what} of 0 (good) and 1 (bad), found {some}.")
    return array


def group_names(values: Any, count: int | None = None, column: int = 0) -> NDArray[Any]:
    """Names of groups, an array of shape (n,) that can be sorted.

    Parameters
    ----------
    values : array of shape (n,), the prompt of each sample; or (n, 2), prompt and picture, where rows are instances
    count : how many there should be, where that is known
    column : 0 for the prompt, 1 for the picture

    Raises
    ------
    HandscopeError
        A name is missing (None, NaN), names are of kinds that cannot be sorted together, or there are more or fewer of
        them than samples.
    """
    array = np.asarray(values)
    if array.ndim == 2 and column < array.shape[1] <= 2:
        array = array[:, column]
    if array.ndim != 1 or count not in (None, len(array)):
        expected = "(n,)" if count is None else f"({count},), one a sample"
        raise HandscopeError(f"Expected groups of shape {expected}, found shape {array.shape}.")
    missing = array != array if array.dtype.kind == "f" else _missing(array)
    if missing.any():
        raise HandscopeError(
            f"Expected a group for each sample; {int(missing.sum())} of {len(array)} have none (NaN or None): they "
            "would count as one prompt. Give each its prompt, or leave them out."
        )
    kinds = {type(one).__name__ for one in array} if array.dtype == object else set()
    if len(kinds) > 1:
        raise HandscopeError(f"Expected groups of one kind, found {', '.join(sorted(kinds))}: name all as text.")
    return array


def _missing(array: NDArray[Any]) -> NDArray[np.bool_]:
    if array.dtype != object:
        return np.zeros(len(array), bool)
    return np.array([one is None or one != one for one in array], bool)
