"""Code blocks of README and docs/: what they are, and how each is run by its reader, or checked where it cannot be."""

import argparse
import ast
import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
REASONS = {
    "needs FLUX.1-dev": "its weights are gated and have 24 GB",
    "needs published weights": "of another model than the organism",
    "needs a GPU": "or a GPU server of several",
    "needs a cluster": "Slurm, Ray, or several machines",
    "needs a program": "which handscope does not bring: ssh, conda, ComfyUI, FiftyOne, another file of the reader's",
    "installs": "the environment that the tests run in is made by these very commands",
    "stays open": "a server, or what is drawn in a notebook",
    "drawn by its own test": "which gives it `RUNS`, `ax` and the results in tests/figures/results",
    "takes minutes": "and is run by the tests of its own room on less",
}
"""Why a block is checked but not run: what an annotation may say, and what it means."""


@dataclass(frozen=True)
class Block:
    """A fenced block: the page and line where it begins, its language, its text, and why it is not run."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README and every page of docs, by their paths in the project."""
    return ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md"))]


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page in their order; an annotation stands on the last line with words before its block."""
    found, opened, before = [], None, ""
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```") and opened is None:
            opened, language, text = number, line[3:].strip(), []
            said = NOT_RUN.fullmatch(before)
        elif line.startswith("```"):
            reason = said[1] if said else None
            found.append(Block(page, opened, language, "\n".join(text) + "\n", reason))
            opened, before = None, ""
        elif opened is not None:
            text.append(line)
        elif line.strip():
            before = line
    assert opened is None, f"{page}:{opened}: this block has no end"
    return found


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, a list of words each; continued lines are joined, comments left out."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def check(block: Block, parser: argparse.ArgumentParser) -> None:
    """Fail unless what a block says exists: verbs and options, modules and their names, targets, extras."""
    if block.language == "python":
        _check_python(block)
    elif block.language == "bash":
        _check_shell(block, parser)
    elif block.language != "text":
        read(block, Path())


def _check_python(block: Block) -> None:
    tree = ast.parse(block.text, str(block))
    modules: dict[str, ModuleType] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _is_here(alias.name):
                    modules[alias.asname or alias.name.partition(".")[0]] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and _is_here(node.module):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or _is_here(f"{node.module}.{alias.name}"), (
                    f"{block}: {node.module} has no {alias.name}"
                )
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), f"{block}: {node.value.id} has no {node.attr}"


def _is_here(name: str) -> bool:
    """Whether a module can be imported; one of handscope's own always must."""
    return name.partition(".")[0] == "handscope" or importlib.util.find_spec(name.partition(".")[0]) is not None


def _check_shell(block: Block, parser: argparse.ArgumentParser) -> None:
    text = block.text.replace("\\\n", " ")
    for said in re.findall(r"(?:^|&& )handscope ([^#;&|\n]*)", text, re.MULTILINE):
        quotes = said.count('"') % 2  # one that was opened before the command
        words = [re.sub(r"\$\w+", "1", word) for word in shlex.split(said.replace('"', "") if quotes else said)]
        try:
            parser.parse_args(words)
        except SystemExit:
            raise AssertionError(f"{block}: handscope {said}: there is no such command or option") from None
    for module in re.findall(r"python -m (handscope[\w.]*)", text):
        assert importlib.util.find_spec(module), f"{block}: there is no {module}"
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE)) <= targets, f"{block}: no such target of make"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"(?:handscope|\.)\[([\w,]+)\]", text):
        assert set(named.split(",")) <= set(extras), f"{block}: no such extra"


def read(block: Block, folder: Path) -> Any:
    """What the reader of its kind makes of a YAML, TOML or JSON block, which is left in `folder` under its name."""
    if block.language == "json":
        return json.loads(block.text)
    if block.language == "toml":
        return tomllib.loads(block.text)
    from handscope.evaluation_file import read_evaluation
    from handscope.labeling.subject import load_subject
    from handscope.study import Study

    said, before = yaml.safe_load(block.text), ""
    if "arms" in said:
        path, reader = folder / "evaluate.yaml", read_evaluation
    elif "noun" in said:
        path, reader = folder / f"{said['name']}_subject.yaml", load_subject
    elif "run" in said:
        path, reader = folder / "study.yaml", Study.from_yaml
    else:  # some keys of a subject
        path, reader = folder / "part.yaml", load_subject
        before = "name: part\nnoun: part\nplural: parts\nkinds: {}\n"
    path.write_text(before + block.text, encoding="utf-8")
    return reader(path)


def names_used(text: str) -> Iterator[str]:
    """The names that Python code reads."""
    return (node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name))
