"""The pictures of a run as files to send: only the ones that were generated."""

from pathlib import Path

from ...run.folder import Run


class Pictures:
    """Paths of pictures whose pixels have the hash that the run says; each file is looked at once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._seen: dict[str, tuple[int, int, str]] = {}

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
