"""A study file to begin with: every key, each with its default, and what was asked for."""

import dataclasses
import re

import pytest
import yaml
from handscope.cli import main
from handscope.commands.study import TEMPLATE
from handscope.labeling.subject import Subject, load_subject, parse_subject
from handscope.plain_yaml import PlainLoader
from handscope.study import Study


def uncommented() -> dict[str, object]:
    text = TEMPLATE.read_text(encoding="utf-8")
    return yaml.load(re.sub(r"(?m)^# (?=[a-z_]+: )", "", text), PlainLoader)


def test_the_template_has_every_key_with_its_default():
    said = uncommented()
    fields = {field.alias or name: field for name, field in Study.model_fields.items()}
    assert set(said) == set(fields)
    for key, value in said.items():
        field = fields[key]
        if key in ("run", "prompts", "seeds", "subject"):
            continue
        found = tuple(value) if isinstance(value, list) else value
        assert found == field.default, key


def test_a_study_begins_from_what_was_asked_for(tmp_path, capsys):
    prompts = tmp_path / "mine: 1.txt"
    prompts.write_text("a cat\na dog\n", encoding="utf-8")
    file = tmp_path / "deep" / "cats.yaml"
    assert main(["init", str(file), "--model", "some/model", "--prompts", "../mine: 1.txt"]) == 0
    study = Study.from_yaml(file)
    assert (study.model, study.prompts, study.labels) == ("some/model", ("a cat", "a dog"), "existing")
    assert study.folder.name == "cats" and study.seeds == tuple(range(12))
    before = file.read_text(encoding="utf-8")
    assert main(["init", str(file)]) == 2 and file.read_text(encoding="utf-8") == before
    assert "is there already" in capsys.readouterr().err


def test_a_subject_that_is_missing_is_begun_beside_the_study_and_a_misspelt_one_is_refused(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    assert main(["init", str(file), "--subject", "Red-Ring.yaml"]) == 0
    assert "give your own" in capsys.readouterr().out
    subject = load_subject(tmp_path / "Red-Ring.yaml")
    assert (subject.name, subject.plural, subject.one) == ("red_ring", "red rings", "a red ring")
    assert Study.from_yaml(file).subject == str(tmp_path / "Red-Ring.yaml")
    before = (tmp_path / "Red-Ring.yaml").read_bytes()
    assert main(["init", str(tmp_path / "again.yaml"), "--subject", "Red-Ring.yaml"]) == 0
    assert (tmp_path / "Red-Ring.yaml").read_bytes() == before
    for subject in ("ring", "elsewhere/ring.yaml"):
        assert main(["init", str(tmp_path / "other.yaml"), "--subject", subject]) == 2
        assert "init --subject" in capsys.readouterr().err and not (tmp_path / "other.yaml").exists()


def test_every_key_of_a_subject_that_is_begun_may_be_uncommented(tmp_path):
    assert main(["init", str(tmp_path / "mine.yaml"), "--subject", "ring.yaml"]) == 0
    text = (tmp_path / "ring.yaml").read_text(encoding="utf-8")
    said = yaml.load(re.sub(r"(?m)^# (?=[a-z_]+: )", "", text), PlainLoader)
    assert set(said) <= {field.name for field in dataclasses.fields(Subject)}
    assert parse_subject(said, "it").verdicts["bad"] == "bad"


def test_a_key_can_be_set_at_the_command_line_and_nothing_is_done_in_a_dry_run(tmp_path, capsys):
    file = tmp_path / "study.yaml"
    assert main(["init", str(file), "--run", str(tmp_path / "run")]) == 0
    said = ["--set", "also=[commit]", "--set", "seeds=0-2"]
    assert main(["study", str(file), "--dry-run", *said]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    stages = "generate label extract analyze probe commit report"
    assert " ".join(line.split()[0] for line in lines) == stages
    assert all("to do" in line for line in lines) and not (tmp_path / "run").exists()
    assert main(["study", str(file), "--set", "folds=lots"]) == 2
    assert "'folds'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["study", str(file), "--set", "device"])


@pytest.mark.parametrize(("changes", "words"), [
    ({"prompts": ["a", "b"]}, "give at least 5 prompts, or fewer folds"),
    ({"prompts": ["a", "b"], "folds": 2, "seeds": [0, 1]}, "4 samples"),
])  # fmt: skip
def test_a_study_that_is_too_small_is_refused_before_anything_is_drawn(tmp_path, capsys, changes, words):
    file = tmp_path / "study.yaml"
    settings = {"run": str(tmp_path / "run"), "seeds": [0, 1, 2]} | changes
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert main(["study", str(file)]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_what_is_said_can_be_read_by_a_script_or_left_out(tmp_path, capsys):
    import json

    file = tmp_path / "study.yaml"
    assert main(["init", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "init"
    assert main(["study", str(file), "--dry-run", "--json", "--set", f"run={tmp_path / 'run'}"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["stage"] == "generate" and lines[0]["summary"].startswith("to do")
    assert main(["models", "--json", "-q"]) == 0
    assert {"family", "transformer"} <= set(json.loads(capsys.readouterr().out)["families"][0])
    assert main(["study", str(file), "--dry-run", "-q", "--set", f"run={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["power", str(tmp_path / "none"), "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert main(["power", str(tmp_path / "none")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_numbers_that_are_not_finite_are_null():
    import numpy as np
    from handscope.commands.verb import _plain

    assert _plain({"a": np.float32("nan"), 1: (np.int64(3), float("inf"))}) == {"a": None, "1": [3, None]}


def test_a_shell_completes_verbs_and_paths(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--completion", "bash"])
    script = capsys.readouterr().out
    assert left.value.code == 0 and "generate" in script and "_shtab_compgen_files" in script
    with pytest.raises(SystemExit) as left:
        main(["--completion", "cmd"])
    assert left.value.code == 2 and "Expected one of bash" in capsys.readouterr().err
