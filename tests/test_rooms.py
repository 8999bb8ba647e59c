"""Imports run one way: a module imports from its own room and from lower ones, and no two files import each other.

A room is a package, or a part of one that stands elsewhere in the order. An import inside a function counts as one at
the top of a file: it depends on the other module just as well.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import handscope
import pytest

ROOT = Path(handscope.__file__).resolve().parent
NO_ROOM = {"bench", "build", "datasets", "docs", "notebooks", "runs", "tests"}

ORDER = """
    errors
    brief
    files
    plain_yaml
    progress
    parallel
    cluster.on_ray
    models.clean
    stages
    run
    models
    labeling.subject
    labeling.database
    run.record
    labeling.table
    labeling.values
    labeling.token_classes
    extract
    analysis.statistics
    analysis
    figures
    probes
    comparison
    organism
    anatomy
    guidance
    inside
    organism.training
    labeling
    mitigations
    evaluation
    organism.study
    claims
    report
    study_file
    evaluation_file
    study
    tutorial
    cluster
    commands
    cli
""".split()
"""Low to high. Each may import those above it in this list."""

AGAINST_THE_ORDER: set[tuple[str, str]] = set()


def name_of(path: Path) -> str:
    parts = ("handscope", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, but the two that only open the door: ``__main__`` and the package itself."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        first = path.relative_to(ROOT).parts[0]
        if first not in NO_ROOM and not first.startswith((".", "__")):
            found[name_of(path)] = path
    return found


def for_types_only(tree: ast.AST) -> set[ast.AST]:
    """What stands under ``if TYPE_CHECKING``: it is never run."""
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}


@cache
def imports(module: str) -> frozenset[tuple[str, bool]]:
    """The modules of the package that a module imports, anywhere in it, each with whether it is for types only."""
    return frozenset(_imports(module))


def _imports(module: str) -> Iterator[tuple[str, bool]]:
    path = modules()[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    typing = for_types_only(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else base for name in names]
        else:
            continue
        for name in names:
            if name in modules() and name != module:
                yield name, node in typing


def room_of(module: str) -> str:
    """The longest name in `ORDER` that a module is in."""
    parts = module.split(".")[1:]
    inside = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((room for room in inside if room in ORDER), "")


@pytest.mark.parametrize("module", modules())
def test_every_module_has_a_room(module):
    assert room_of(module), f"{module} is in no room of ORDER: give it a place there."


def test_imports_follow_the_order_of_rooms():
    against = {
        (module, other)
        for module in modules()
        for other, _ in imports(module)
        if ORDER.index(room_of(other)) > ORDER.index(room_of(module))
    }
    assert against == AGAINST_THE_ORDER, "Move what is shared to the lower room, or hand it in from above."


def test_no_files_import_each_other():
    assert circles({m: {other for other, typing in imports(m) if not typing} for m in modules()}) == set()


def test_what_stands_below_the_organism_knows_at_most_its_name():
    """Its name is that of the embedded model, of a judge that a subject's file may ask for, and of modules in the table
    of stages."""
    naming = set()
    for module, path in modules().items():
        if ORDER.index(room_of(module)) < ORDER.index("organism"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
            naming |= {module for node in strings if isinstance(node.value, str) and "organism" in node.value}
    assert naming == {"handscope.models.embedded", "handscope.labeling.subject", "handscope.stages"}


def test_opening_a_room_opens_no_circle():
    """Importing a.b.c runs the ``__init__`` of a and of a.b first: what these import must not come back."""
    graph: dict[str, set[str]] = {}
    for module in modules():
        graph[module] = set()
        for other, typing in imports(module):
            if not typing:
                parts = other.split(".")
                opened = {".".join(parts[:n]) for n in range(2, len(parts) + 1)}
                graph[module] |= {one for one in opened if not f"{module}.".startswith(f"{one}.")}
    assert circles(graph) == set()


def circles(graph: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """The groups of modules that can all reach each other, each sorted (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = set()

    def visit(one: str) -> None:
        index[one] = low[one] = len(index)
        stack.append(one)
        for other in graph[one]:
            if other not in index:
                visit(other)
            if other in stack:
                low[one] = min(low[one], low[other])
        if low[one] == index[one]:
            group = stack[stack.index(one) :]
            del stack[stack.index(one) :]
            if len(group) > 1:
                found.add(tuple(sorted(group)))

    for one in graph:
        if one not in index:
            visit(one)
    return found


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set(), "f": {"e", "f"}}
    assert circles(graph) == {("a", "b", "c")}
