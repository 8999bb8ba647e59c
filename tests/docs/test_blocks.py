"""Every code block of README and docs/ is run in the order of its page, or checked where an annotation says why not."""

import re
from collections import Counter
from pathlib import Path

import pytest
from handscope import cli
from made_once import made_once
from made_pages import FILES, NAMES, SAMPLE, SIZES, World, make_demo
from pages import REASONS, Block, blocks, check, commands, names_used, pages, read

LANGUAGES = {"python", "bash", "yaml", "json", "toml", "text"}
PAGES = [page for page in pages() if blocks(page)]
counts: Counter[str] = Counter()


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the organism, with its tables and probes, as small as pages can be read on."""
    return made_once(tmp_path_factory, "demo_of_pages", make_demo)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_have_a_language_and_a_known_reason(page: str) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block}: name the language of the block, or text"
        assert block.reason is None or block.reason in REASONS, f"{block}: {block.reason!r} is no known reason"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(
    page: str, demo: Path, tiny_pipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    world = World(page, tmp_path, demo, tiny_pipe_folder)
    parser = cli._parser()
    for block in blocks(page):
        check(block, parser) if block.reason else run(block, world)
        counts["shown" if block.language == "text" else "checked" if block.reason else "run"] += 1


def run(block: Block, world: World) -> None:
    """Run a block in its page's folder, with what earlier blocks left there; what it takes as given is made first."""
    text = block.text.replace(SAMPLE, world.sample)
    text = re.sub(SIZES, str(world.model.height), text) if block.language == "python" else text
    for name in FILES:
        if name in text:
            world.file(name)
    if block.language == "python":
        for name in {*names_used(text)} & NAMES.keys() - world.names.keys():
            world.names[name] = NAMES[name](world)
        exec(compile(text, str(block), "exec"), world.names)
    elif block.language == "bash":
        for words in commands(text):
            assert words[0] == "handscope", f"{block}: {words[0]} is not run here: say why above the block"
            assert cli.main(words[1:]) == 0, f"{block}: {' '.join(words)}"
    elif block.language != "text":
        read(block, world.folder)


def test_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nblocks of {len(PAGES)} pages: {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}")
    every = sum(block.language != "text" for page in PAGES for block in blocks(page))
    not_run = sum(block.reason is not None for page in PAGES for block in blocks(page))
    assert not_run < every / 2, "most blocks are to be run"
