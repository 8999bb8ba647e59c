"""Where a training's files lie, so that the organisms that share renders or latents share them on disk."""

from dataclasses import dataclass
from pathlib import Path

from ...models.embedded import Organism


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
    def codec(self) -> Path:
        """Of the autoencoder and the latents that it made."""
        return self.work / self.organism.codec

    @property
    def latents(self) -> Path:
        """The encoded renders."""
        return self.codec / "latents"

    @property
    def own(self) -> Path:
        """Of the transformer, its snapshots and the pipeline."""
        return self.work / self.organism.name

    @property
    def trains_codec(self) -> bool:
        """Whether the autoencoder is trained here, and not taken from the organism that shares it."""
        return self.organism.codec == self.organism.name
