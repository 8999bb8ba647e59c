"""Where a training's files lie, so that the organisms that share renders or latents share them on disk."""

from dataclasses import dataclass
from pathlib import Path

from ...models.embedded import NAME, Organism


@dataclass(frozen=True)
class Folders:
    """Folders of one organism's training below `work`."""

    work: Path
    organism: Organism

    @property
    def renders(self) -> Path:
        """The pictures, the same for all."""
        return self.work / "renders"

    @property
    def latents(self) -> Path:
        """The encoded renders, the same for all that share an autoencoder."""
        return self.work / "latents"

    @property
    def own(self) -> Path:
        """Of what is trained, its snapshots and the pipeline."""
        return self.work / self.organism.name

    @property
    def trains_codec(self) -> bool:
        """Whether the autoencoder is trained; all others take the weights of the first organism's as it ships."""
        return self.organism.name == NAME
