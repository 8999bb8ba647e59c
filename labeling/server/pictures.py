"""The pictures of a run as files to send: only the ones that were generated."""

import io
from pathlib import Path

from PIL import Image

from ...run.folder import Run

SMALL = 160
"""Pixels along the longer side of a thumbnail."""
KEPT = 2000
"""Thumbnails that are kept, 5 kB each."""


class Pictures:
    """Pictures whose pixels have the hash that the run says; each file is looked at once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._seen: dict[str, tuple[int, int, str]] = {}
        self._small: dict[str, bytes] = {}

    def path(self, sample: str) -> Path:
        """Where the picture of a sample lies.

        Raises
        ------
        HandscopeError
            The file is missing or damaged, or another picture than the one that was generated.
        """
        path, expected = self.run.image_path(sample), self.run.metadata()[sample]["image_sha256"]
        try:
            state = path.stat()
            file = (state.st_mtime_ns, state.st_size, expected)
        except OSError:
            file = (0, 0, expected)
        if self._seen.get(sample) != file:
            self.run.image(sample)
            self._seen[sample] = file
        return path

    def thumbnail(self, sample: str) -> bytes:
        """The picture of a sample as a small WebP; HandscopeError as for `path`."""
        picture = self.run.metadata()[sample]["image_sha256"]
        if picture not in self._small:
            with Image.open(self.path(sample)) as image:
                image.thumbnail((SMALL, SMALL))
                file = io.BytesIO()
                image.save(file, "WEBP", quality=80)
            if len(self._small) >= KEPT:
                self._small.pop(next(iter(self._small)), None)
            self._small[picture] = file.getvalue()
        return self._small[picture]
