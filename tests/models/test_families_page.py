"""docs/families.md: its example is run as it stands there, and its tables say what the families say."""

import re
from pathlib import Path

import pytest
from handscope.models import registry

PAGE = (Path(__file__).parents[2] / "docs" / "families.md").read_text(encoding="utf-8")


def test_the_example_registers_a_family_and_reads_its_blocks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_families", dict(registry._families))
    example = next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "register(" in block)
    assert example.count("\n") < 60
    exec(compile(example, "docs/families.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == "['blocks.0', 'blocks.1']\ntorch.Size([1, 24, 16])\n"


def test_the_table_names_every_family_that_is_generated_with_and_its_blocks() -> None:
    table = PAGE.split("\n## ")[1]  # the first section
    rows = {row.split("|")[1].strip(): row for row in table.splitlines() if row.startswith("| ")}
    for one in registry.families():
        if one.pipelines:
            assert all(f"`{blocks.kind}.N`" in rows[one.name] for blocks in one.lists), one.name
