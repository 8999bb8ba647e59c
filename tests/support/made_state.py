"""What is in the files of a folder, to compare it with another."""

import hashlib
from pathlib import Path

import h5py


def state(folder: Path) -> dict[str, str]:
    """A hash of each file; of HDF5, whose files have times in them, of what is in it."""
    return {
        path.relative_to(folder).as_posix(): contents(path) if path.suffix == ".h5" else digest(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and "sqlite" not in path.name and path.name != "run.yaml"
    }


def contents(path: Path) -> str:
    found = {}

    def look(name: str, item: h5py.HLObject) -> None:
        plain = isinstance(item, h5py.Dataset) and item.dtype != object
        found[name] = {key: str(value) for key, value in item.attrs.items()}, item[:].tobytes() if plain else b""

    with h5py.File(path) as file:
        look("/", file)
        file.visititems(look)
    return digest(repr(sorted(found.items())).encode())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
