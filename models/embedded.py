"""The organisms by name: what each is, and where its files are. Those that ship are in the package; the others are made
by one command, into a folder of the user's.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HandscopeError

NAME = "organism"
SHIPPED = Path(__file__).parents[1] / NAME
FOLDER = SHIPPED / "pipe"

NETWORK, NETWORK_FOLDER = "organism-depth", SHIPPED / "depth_network"
"""The depth ControlNet of `NAME`, by its short name, and where it is."""


@dataclass(frozen=True)
class Organism:
    """One organism of the ladder.

    Attributes
    ----------
    name : what `load` and a study file call it.
    architecture : "FLUX.1" or "FLUX.2".
    heads, double, single : of the transformer: heads of 32 numbers, double-stream and single-stream blocks.
    seed : of its training: first weights, order of the pictures, noises.
    judge : the organism to whose labels the judge of its pictures was fitted.
    ships : whether its weights are in the package.
    """

    name: str
    architecture: str = "FLUX.1"
    heads: int = 4
    double: int = 2
    single: int = 4
    seed: int = 0
    judge: str = NAME
    ships: bool = True

    @property
    def folder(self) -> Path:
        """The pipeline's folder: in the package, or where its training puts it."""
        if self.ships:
            return FOLDER if self.name == NAME else SHIPPED / "ladder" / self.name
        return made_in() / self.name


ORGANISMS = {
    one.name: one
    for one in (
        Organism(NAME),
        Organism("organism-1", seed=1),
        Organism("organism-small", heads=2),
        Organism("organism-small-1", heads=2, seed=1),
        Organism("organism-large", heads=6, double=3, single=6, ships=False),
        Organism("organism-large-1", heads=6, double=3, single=6, seed=1, ships=False),
        Organism("organism-flux2", "FLUX.2"),
    )
}


def organism_of(settings: Mapping[str, Any]) -> Organism | None:
    """The organism that made a run, by the run's settings; None where another model did."""
    return ORGANISMS.get(settings.get("provenance", {}).get("name"))


def made_in() -> Path:
    """Where organisms that do not ship are made: $HANDSCOPE_HOME/organisms, by default ~/.cache/handscope/organisms."""
    home = os.environ.get("HANDSCOPE_HOME") or Path.home() / ".cache" / "handscope"
    return Path(home) / "organisms"


def folder_of(name: str) -> Path:
    """The folder that a name stands for: an organism's, or the path that it is.

    Raises
    ------
    HandscopeError
        The organism of that name has not been made on this machine.
    """
    organism = ORGANISMS.get(name)
    if organism is None:
        return Path(name)
    if not (organism.folder / "model_index.json").is_file():
        raise HandscopeError(
            f"{name} does not ship with handscope and was not found in {organism.folder}: make it with "
            f"`python -m handscope.organism.training.train --organism {name}`."
        )
    return organism.folder
