"""The table of stages, and what is made from it: the page of commands, the help, what a study runs."""

import inspect
import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from handscope import cli
from handscope.extract.extract import extract
from handscope.stages import LABELS, STAGES, SUBJECT, TABLES, Stage
from handscope.study import Study

ROOT = Path(__file__).parents[1]


def table_of_stages() -> str:
    """The table of stages as it stands in docs/commands.md."""
    rows = ["| stage | command | function | reads | writes |", "|---|---|---|---|---|"]
    for stage in STAGES:
        name = stage.name if stage.always else rf"{stage.name} \*"
        reads = ", ".join([*filter(None, [stage.needs]), *places(stage.reads)])
        tables = [table.path for table in stage.tables]
        more = len(tables) - 1
        written = [f"`{tables[0]}`" + (f" and {more} more" if more else "")] if tables else []
        writes = ", ".join([*written, *places(stage.files)])
        command, function = f"`handscope {stage.command}`", f"`handscope.{stage.function}`"
        rows.append(f"| {name} | {command} | {function} | {reads} | {writes} |")
    return "\n".join(rows)


def places(patterns: tuple[str, ...]) -> list[str]:
    """Files by their names, or their folder where a glob names several of it, or more than two stand there."""
    named = [name for name in patterns if name != SUBJECT]
    folders = Counter(name.rpartition("/")[0].partition("/")[0] for name in named)
    several = {name.partition("/")[0] for name in named if "*" in name} | {f for f, n in folders.items() if n > 2}
    whole = {name: f"{name.partition('/')[0]}/" for name in named if "/" in name and name.partition("/")[0] in several}
    short = [whole.get(name, name) for name in named]
    return [f"`{name}`" for name in dict.fromkeys(short)]


def test_the_page_of_commands_has_the_table_of_stages():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert table_of_stages() in page, f"docs/commands.md should say\n{table_of_stages()}"


def test_the_page_of_tables_is_made_from_the_table_of_stages():
    made = runpy.run_path(str(ROOT / "docs" / "make_tables.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run python docs/make_tables.py"


def test_the_page_of_a_study_names_every_key():
    text = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")
    table = text[text.index("| key | value | default |") :].partition("\n\n")[0]
    for name, field in Study.model_fields.items():
        assert f"`{field.alias or name}`" in table, name


def test_what_a_stage_reads_is_written_before_it():
    written: set[str] = {"run.yaml", SUBJECT}
    drawn = ("commitment", "mend*", "patch*", "lens*", "heads", "feature*")
    for stage in STAGES:
        assert set(stage.reads) <= written, f"{stage.name} reads {set(stage.reads) - written}"
        written |= {*stage.writes, *(f"figures/{name}.png" for name in drawn)}


def test_no_two_stages_write_the_same_file():
    every = [path for stage in STAGES for path in stage.writes]
    assert len(every) == len(set(every))
    assert len(TABLES) == sum(len(stage.tables) for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_names_functions_that_take_its_settings(stage: Stage):
    function = extract if stage.name == "extract" else stage.do()  # handscope.extract is a module that can be called
    parameters = inspect.signature(function).parameters
    # What `extract` is given as a plan, and whether labels are made, `study` makes of its keys.
    own = {"label": {"labels"}, "extract": {"blocks", "steps", "stream", "at"}}.get(stage.name, set())
    assert {*stage.settings, *stage.defaults} - own <= set(parameters)
    assert ("model" in parameters) == (stage.model and stage.name != "survey")
    assert set(stage.settings.values()) <= set(Study.model_fields)
    for name, value in stage.defaults.items():
        default = parameters[name].default
        if default is not inspect.Parameter.empty and default is not None:
            assert default == (tuple(value) if isinstance(value, list) else value), name


def test_every_stage_is_a_verb_with_its_help():
    (group,) = (action for action in cli._parser()._actions if action.dest == "verbs" or hasattr(action, "choices")
                and action.choices and "generate" in action.choices)  # fmt: skip
    helps = {action.dest: action.help for action in group._choices_actions}
    assert {stage.name: stage.help for stage in STAGES}.items() <= helps.items()


def test_the_table_is_light_to_import():
    code = "import sys, json, handscope.stages, handscope.cli; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"numpy", "torch", "pandas", "pydantic", "yaml"} & set(json.loads(result.stdout))


def test_a_study_runs_what_it_asks_for_in_order(tmp_path):
    given = {"folder": tmp_path, "prompts": ("a hand",), "seeds": (0,)}
    assert [stage.name for stage in Study(**given).chosen] == [stage.name for stage in STAGES if stage.always]
    asked_for = Study(**given, also=("commit", "survey")).chosen
    names = ["generate", "label", "extract", "survey", "analyze", "probe", "commit", "report"]
    assert [stage.name for stage in asked_for] == names
    assert LABELS in asked_for[1].files
