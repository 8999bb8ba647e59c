"""Which families of diffusion transformers there are, and which one a transformer or a pipeline's folder is of."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import HandscopeError
from .family import Family

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

_BUILT_IN = {
    "FLUX.1": ".families.flux",
    "FLUX.2": ".families.flux2",
    "SD3": ".families.sd3",
    "Qwen-Image": ".families.qwen_image",
    "Z-Image": ".families.z_image",
    "Sana": ".families.sana",
    "Chroma": ".families.chroma",
    "AuraFlow": ".families.auraflow",
    "Lumina2": ".families.lumina2",
    "HiDream": ".families.hidream",
    "CogView4": ".families.cogview4",
    "Krea2": ".families.krea2",
    "PixArt": ".families.pixart",
    "DiT": ".families.dit",
    "Wan": ".families.wan",
    "FLUX.3": ".families.flux3",
}
_families: dict[str, Family] = {}


def register(family: Family) -> None:
    """Let handscope read the models of a family; one of the same name is replaced.

    >>> register(FLUX)                                                  # doctest: +SKIP
    """
    _families[family.name] = family


def families() -> tuple[Family, ...]:
    """Every family that is known."""
    for name, module in _BUILT_IN.items():
        if name not in _families:
            register(importlib.import_module(module, __package__).FAMILY)
    return tuple(_families.values())


def family_of(transformer_or_pipe: Any) -> Family:
    """The family of a transformer or of a pipeline around one, by the transformer's class.

    Raises
    ------
    HandscopeError
        There is none: the message says what lists of blocks the transformer has, and what to supply.
    """
    transformer = getattr(transformer_or_pipe, "transformer", transformer_or_pipe)
    name = type(transformer).__name__
    for family in families():
        if family.transformer == name:
            return family
    known = _all(family.transformer for family in families())
    raise HandscopeError(
        f"handscope reads the blocks of {known}, found a {name}{_lists_in(transformer)}. Describe its blocks in a "
        "Family and register it: docs/families.md says how."
    )


def family_named(pipeline: str, where: object) -> Family:
    """The family of a pipeline by the name of its class; `where` it was found is for the message.

    Raises
    ------
    HandscopeError
        There is none, or it is one that handscope does not load.
    """
    for family in families():
        if pipeline in family.pipelines:
            return family
        if pipeline in family.unread:
            raise HandscopeError(f"The {pipeline} in {where} cannot be loaded: {family.unread[pipeline]}.")
    known = _all(name for family in families() for name in family.pipelines)
    raise HandscopeError(
        f"handscope loads pipelines of the classes {known}, found a {pipeline} in {where}. Others are loaded with "
        "diffusers, and read around their own call with handscope.capture: docs/families.md says which."
    )


def family_in(folder: Path) -> Family:
    """The family of the pipeline in a folder, by the class that its ``model_index.json`` names.

    Raises
    ------
    HandscopeError
        The file is missing or damaged, or there is no such family.
    """
    return family_named(pipeline_name(folder), folder)


def pipeline_class(folder: Path) -> str:
    """Module and class that the pipeline in a folder is loaded as; errors are those of `family_in`."""
    return family_in(folder).pipelines[pipeline_name(folder)]


def pipeline_name(folder: Path) -> str:
    """The class of the pipeline in a folder; errors are those of `family_in`, but for a family that is not known."""
    path = folder / "model_index.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HandscopeError(
            f"Expected {path} to name the class of a pipeline, as save_pretrained writes it: copy the folder again."
        ) from error


def check_kinds(names: Iterable[object]) -> None:
    """Refuse names of blocks that no model of a known family can have: what is misspelt, before a model is loaded.

    Raises
    ------
    HandscopeError
        The message names the kinds of blocks that there are.
    """
    kinds = {family.name: [blocks.kind for blocks in family.lists] for family in families()}
    for name in map(str, names):
        if all(name.split(".")[0] not in known for known in kinds.values()):
            have = "; ".join(f"{_all(f'{kind}.0 …' for kind in known)} ({family})" for family, known in kinds.items())
            raise HandscopeError(f"No model that handscope knows has a block {name!r}; there are {have}.")


def hookable(transformer: Any) -> Family:
    """The family of a transformer whose blocks can be read.

    Raises
    ------
    HandscopeError
        There is none, or the transformer is in a state in which hooks on its blocks see something else than its
        residual stream, or nothing.
    """
    from .condition import check_readable, check_whole

    check_whole(transformer)
    family = family_of(transformer)
    check_readable(transformer, family.blocks(transformer))
    return family


def blocks(transformer: Any) -> dict[str, nn.Module]:
    """The blocks of a diffusion transformer by name, in the order in which they run.

    >>> list(blocks(pipe.transformer))                                  # doctest: +SKIP
    ['double.0', 'double.1', 'single.0', 'single.1', 'single.2', 'single.3']

    Parameters
    ----------
    transformer : torch.nn.Module
        A transformer of a family that handscope knows.

    Raises
    ------
    HandscopeError
        It is of no such family.
    """
    return family_of(transformer).blocks(transformer)


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)


def _lists_in(transformer: Any) -> str:
    """The lists of modules in a transformer, for a message: with their lengths and the classes in them."""
    found: list[tuple[str, str]] = []
    for path, module in getattr(transformer, "named_modules", dict)():
        inside = any(path.startswith(f"{outer}.") for outer, _ in found)
        if type(module).__name__ == "ModuleList" and len(module) and not inside:
            classes = _all(dict.fromkeys(type(part).__name__ for part in module))
            found.append((path, f"{path} ({len(module)} of {classes})"))
    return f" with the lists {_all(text for _, text in found)}" if found else " without lists of modules"
