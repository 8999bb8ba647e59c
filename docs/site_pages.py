"""What the site is made of besides the pages in docs/: README as its first page, the options of every command, the
public names of Python, and the project's files that pages link to. mkdocs calls the functions named on_*.
"""

import argparse
import importlib
import re
import tempfile
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(?=\))")
PACKAGES = ("analysis", "anatomy", "comparison", "figures", "guidance", "models", "probes")
"""The packages whose `__all__` says what is public."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let mkdocstrings read the package alone: the root of the checkout holds environments, tests and runs besides."""
    place = Path(tempfile.mkdtemp(prefix="site-")) / "handscope"
    place.mkdir()
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    rooms = {name.split(".")[1] for name in listed if "." in name}
    for path in [*ROOT.glob("*.py"), *(ROOT / room for room in rooms)]:
        (place / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config["handlers"]["python"]["paths"] = [str(place.parent)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and every file of the project that a page links to."""
    made = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8"),
        "reference/options.md": options(),
        "reference/python.md": names(),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    pages = {ROOT / "README.md", *(ROOT / "docs" / file.src_uri for file in files if file.src_uri.endswith(".md"))}
    waiting = [page for page in pages if page.exists()]
    while waiting:
        page = waiting.pop()
        for said, _ in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / said).resolve()
            place = _place(path)
            if path.is_file() and place and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, abs_src_path=str(path)))
                if path.suffix == ".md":
                    waiting.append(path)
    return files


def _place(path: Path) -> str | None:
    """Where on the site a file of the project stands."""
    if not path.is_relative_to(ROOT):
        return None
    name = path.relative_to(ROOT)
    if name == Path("README.md"):
        return "index.md"
    return str(name.relative_to("docs") if name.parts[0] == "docs" else "project" / name)


def _home(uri: str) -> Path:
    """The file of the project that a page of the site was made of."""
    if uri == "index.md":
        return ROOT / "README.md"
    return ROOT / uri.removeprefix("project/") if uri.startswith("project/") else ROOT / "docs" / uri


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the project into links between pages of the site."""
    uri = page.file.src_uri
    home = _home(uri).parent
    up = "../" * uri.count("/")

    def moved(match: re.Match[str]) -> str:
        place = _place((home / match[1]).resolve())
        return match[0] if place is None else f"{up}{place}{match[2] or ''}"

    return LINK.sub(moved, markdown)


def options() -> str:
    """Every command with its options, as ``--help`` has them."""
    from handscope import cli

    parts = ["# Every option", "Made from the parser of the command line: what `handscope COMMAND --help` prints."]
    for name, parser in _verbs(cli._parser()):
        parts += [f"## handscope {name}", f"```text\n{_help(parser)}\n```"]
    return "\n\n".join(parts) + "\n"


def _help(parser: argparse.ArgumentParser) -> str:
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)
    return parser.format_help().strip()


def _verbs(parser: argparse.ArgumentParser, before: str = "") -> list[tuple[str, argparse.ArgumentParser]]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                found += [(f"{before}{name}", inner), *_verbs(inner, f"{before}{name} ")]
    return found


def names() -> str:
    """Every public name with its docstring."""
    parts = [
        "# Python",
        "Public names, with the shapes they take and give, their errors and their sources. What is not listed here may "
        "change without a word.",
    ]
    for module in ("handscope", *(f"handscope.{name}" for name in PACKAGES)):
        parts.append(f"# {module}\n" if module != "handscope" else "")
        homes = {_where(module, name) for name in importlib.import_module(module).__all__}
        parts += [f"::: {home}" for home in sorted(homes - {None}, key=lambda home: home.rpartition(".")[2].lower())]
    return "\n\n".join(parts) + "\n"


def _where(module: str, name: str) -> str | None:
    """The full name of a public name where it is written; None of one that is no class or function."""
    value = getattr(importlib.import_module(module), name)
    home = getattr(value, "__module__", None)
    return f"{home}.{value.__qualname__}" if home and hasattr(value, "__qualname__") else None
