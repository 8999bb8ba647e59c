"""The model that ships with handscope: its name, and where a model's files are that may have that name."""

from pathlib import Path

NAME = "organism"
FOLDER = Path(__file__).parents[1] / NAME / "pipe"


def folder_of(name: str) -> Path:
    """The folder that a name stands for: the embedded model's, or the path that it is."""
    return FOLDER if name == NAME else Path(name)
