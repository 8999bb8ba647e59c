"""Write docs/developers/map.md, the packages of the project with what they are for and whom they import.

    python docs/make_map.py
"""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("developers") / "map.md"
BEGIN = """# Map of the house

Made by `python docs/make_map.py` from the code. Imports run one way, from low rooms to high ones, in the order
that `tests/test_rooms.py` has; `stages`, `study` and other names that are no package here are modules at the root.

| package | what it is | imports |
|---|---|---|
"""


def packages() -> list[str]:
    """The packages that pyproject.toml lists, without the first name."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [name.partition(".")[2] for name in said["tool"]["setuptools"]["packages"] if "." in name]


def first_line(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    return text.replace("|", "\\|")


def imported(folder: Path) -> list[str]:
    """The rooms that the modules of a folder import from, without their own."""
    found = set()
    for path in folder.glob("*.py"):
        inside = path.relative_to(ROOT).parts[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = inside[: len(inside) - node.level + 1]
                whole = [*base, *(node.module or "").split(".")] if node.module else list(base)
                names = [whole] if node.module or base else [[alias.name] for alias in node.names]
                found |= {parts[0] for parts in names if parts}
    found.discard("__version__")
    return sorted(found - {folder.relative_to(ROOT).parts[0]})


def page() -> str:
    """The text of the page."""
    rows = []
    for package in packages():
        folder = ROOT / package.replace(".", "/")
        rooms = ", ".join(f"`{room}`" for room in imported(folder))
        rows.append(f"| `{package}` | {first_line(folder / '__init__.py')} | {rooms} |")
    return BEGIN + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
