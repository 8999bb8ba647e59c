"""The pipelines of a family that paint a part of a picture anew, with and without depth."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from ..errors import HandscopeError
from ..models.embedded import NETWORK, NETWORK_FOLDER
from ..models.family import Family
from ..models.model import Model


def class_of(family: Family, name: str) -> Any:
    """The class ``plain``, ``depth`` or ``network`` of `Family.painting`.

    Raises
    ------
    HandscopeError
        The family has none.
    """
    if name not in family.painting:
        raise HandscopeError(
            f"There is no pipeline for {family.name} here that paints a part of a picture anew by its depth: use a "
            "model of FLUX.1's architecture."
        )
    return resolve_name(family.painting[name])


def check_paints(family: Family) -> None:
    """Refuse a family that has no such pipelines, as `class_of`."""
    class_of(family, "plain")


def network_folder(name: str | Path) -> Path:
    """Where a ControlNet is: ``organism-depth`` is the organism's, which ships; any other name is a folder's."""
    return NETWORK_FOLDER if name == NETWORK else Path(name)


def load_network(model: Model, folder: Path) -> Any:
    """A ControlNet from a folder that ``save_pretrained`` wrote, or a hub id, for a model.

    Raises
    ------
    HandscopeError
        There is none, or it is of another width than the model.
    """
    kind = class_of(model.family, "network")
    try:
        network = kind.from_pretrained(folder, torch_dtype=model.dtype)
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise HandscopeError(
            f"Expected a {kind.__name__} in {folder}, which could not be loaded ({said}): check the folder's name."
        ) from error
    check_network(model, network, folder)
    return network.to(model.device).eval()


def check_network(model: Model, network: Any, where: object) -> None:
    """Refuse a ControlNet whose additions do not fit into the model's streams."""
    found, needed = model.family.stream_width(network), model.stream_width
    channels = network.config.in_channels, model.transformer.config.in_channels
    if found != needed or channels[0] != channels[1]:
        raise HandscopeError(
            f"The ControlNet in {where} has streams of width {found} and {channels[0]} channels, {model.name} has "
            f"{needed} and {channels[1]}: take one that was made for this model."
        )


def pipeline(model: Model, network: Any | None) -> Any:
    """The pipeline that paints anew, of the model's own parts, with depth where there is a network."""
    kind = class_of(model.family, "plain" if network is None else "depth")
    wanted, optional = kind._get_signature_keys(kind)
    parts = {name: part for name, part in model.pipe.components.items() if name in {*wanted, *optional}}
    pipe = kind(**parts) if network is None else kind(**parts, controlnet=network)
    pipe.set_progress_bar_config(disable=True)
    return pipe
