"""How results show themselves in a notebook: in a line, with arrays by their form."""

from dataclasses import fields
from typing import Any


def brief(result: Any) -> str:
    """The name and fields of a dataclass; to be its ``__repr__``.

    An array, tensor or table is shown as its type and shape, a long container as its length, a number with 4 digits.
    Fields that say ``repr=False`` are left out.
    """
    shown = [f"{one.name}={_value(getattr(result, one.name))}" for one in fields(result) if one.repr]
    return f"{type(result).__name__}({', '.join(shown)})"


FEW = 4
"""Items of a container that are shown."""


def _value(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape:
        return f"<{type(value).__name__} {' × '.join(map(str, shape))}>"
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, float) or shape == ():
        return f"{float(value):.4g}"
    if isinstance(value, tuple | list | set | frozenset | dict):
        if len(value) > FEW:
            return f"<{type(value).__name__} of {len(value)}>"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key!r}: {_value(one)}" for key, one in value.items()) + "}"
        inside = ", ".join(map(_value, value))
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    return repr(value)
