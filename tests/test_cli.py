"""The command line: what it prints, how fast it answers, and with which status it ends."""

import argparse
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from handscope import cli
from handscope.commands import report
from handscope.errors import HandscopeError
from made_tiny import PROMPTS, hand_made_labels


@pytest.mark.process
def test_help_names_every_stage_and_loads_nothing_that_takes_long(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "handscope", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert result.returncode == 0
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert "handscope" in loaded and loaded.isdisjoint({"torch", "diffusers", "numpy", "pandas", "scipy", "matplotlib"})
    for stage in ("study", "generate", "label", "extract", "store", "survey", "analyze", "probe", "report", "watch"):
        assert f"\n    {stage} " in result.stdout


def test_every_option_is_documented() -> None:
    for name, verb in verbs(cli._parser()):
        for action in verb._actions:
            verb_group = isinstance(action, argparse._SubParsersAction)
            assert verb_group or action.help, f"{name} {action.option_strings or action.dest} has no help"


def verbs(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every verb by its name, ``store check`` among them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                yield f"{prefix}{name}", verb
                yield from verbs(verb, f"{prefix}{name} ")


@pytest.mark.slow
def test_stages_one_by_one(tiny_pipe_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from handscope.labeling.database.labels import Labels
    from handscope.run.folder import Run

    prompts, folder = tmp_path / "prompts.txt", tmp_path / "run"
    prompts.write_text("\n".join(PROMPTS), encoding="utf-8")

    def handscope(*arguments: str | Path) -> str:
        capfd.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 0
        out, err = capfd.readouterr()
        assert err == ""  # not a terminal: no bars, and no library warns
        assert len(out.splitlines()) == 1
        return out

    size = ("--steps", "4", "--seeds", "0-3,4,5")
    out = handscope("generate", folder, "--prompts", prompts, "--model", tiny_pipe_folder, *size)
    assert "48 samples of 8 prompts" in out
    Labels(folder / "labels.sqlite").add(hand_made_labels(Run(folder)))
    out = handscope("extract", folder, "--blocks", "double.1, single.2", "--steps", "4,1")
    assert "4 cells of 48 samples" in out
    said = handscope("analyze", folder, "--permutations", "20", "--folds", "3")
    assert "tells bad samples from good ones" in said and f"In {folder / 'analysis' / 'cells.csv'}" in said
    said = handscope("probe", folder, "--permutations", "5", "--folds", "3")
    assert "tells bad samples from good ones" in said and f"In {folder / 'analysis' / 'probes.csv'}" in said
    assert str(folder / "report.html") in handscope("report", folder)
    assert (folder / "report.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")


def test_store_verbs(extracted_run, run_copy, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = run_copy(extracted_run)
    shards = sorted((run.activations_dir / "shards").glob("*.h5"))

    def store(*arguments: str | Path, status: int = 0) -> str:
        capfd.readouterr()
        assert cli.main(["store", *map(str, arguments)]) == status
        out, err = capfd.readouterr()
        assert err == ""
        return out

    said = store("info", run.path)
    assert "single.0" in said and "432: " in said and "48, " in said and "not there" not in said
    assert "nothing is wrong" in store("check", run.path)

    (run.activations_dir / "store.h5").unlink()
    assert "not there" in store("info", run.activations_dir)
    assert "store.h5" in store("consolidate", run.path)
    assert (run.activations_dir / "store.h5").exists()

    for number, half in enumerate((shards[:20], shards[20:])):
        (tmp_path / f"machine{number}" / "shards").mkdir(parents=True)
        for path in half:
            (tmp_path / f"machine{number}" / "shards" / path.name).write_bytes(path.read_bytes())
    said = store("merge", tmp_path / "joined", tmp_path / "machine0", tmp_path / "machine1")
    assert "48 samples of 2 sources" in said
    assert "nothing is wrong" in store("check", tmp_path / "joined")

    damaged = bytearray(shards[3].read_bytes())
    damaged[-50] ^= 0xFF
    shards[3].write_bytes(damaged)
    shards[5].write_bytes(shards[5].read_bytes()[:2000])
    said = store("check", run.path, status=1)
    assert shards[3].name in said and shards[5].name in said and shards[4].name not in said


def test_later_verbs_load_the_model_as_the_run_was_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from handscope.commands.options import model_of
    from handscope.models import model as models
    from handscope.run.folder import Run

    asked: list[tuple] = []
    monkeypatch.setattr(models, "load", lambda *given, **named: asked.append((given, named)))
    run = Run(tmp_path)
    file, base = "flux.safetensors", "some/flux"
    begun = {"name": file, "base": base, "revision": "abc", "device": "cuda:1"}
    begun |= {"offload": "model", "quantisation": "bnb-4bit"}
    run.write_settings({"provenance": begun, "model": {"dtype": "bfloat16"}})
    cases = {
        "": ((file, "cuda:1", "bfloat16", "abc"), "model", "bnb-4bit", base),
        "--device cpu": ((file, "cpu", "bfloat16", "abc"), None, "bnb-4bit", base),
        "--offload none": ((file, "cuda:1", "bfloat16", "abc"), None, "bnb-4bit", base),
        "--offload sequential": ((file, "cuda:1", "bfloat16", "abc"), "sequential", "bnb-4bit", base),
        "--model other": (("other", "cuda:1", "bfloat16", None), "model", "bnb-4bit", None),
    }
    for options, (given, offload, quantisation, base) in cases.items():
        model_of(run, cli._parser().parse_args(["extract", str(tmp_path), *options.split()]))
        assert asked.pop() == (given, {"offload": offload, "quantisation": quantisation, "base": base}), options


def test_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(arguments: argparse.Namespace, progress: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "_report", interrupted)
    assert cli.main(["report", "anywhere"]) == 130
    assert "Run the same command again to go on" in capsys.readouterr().err


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(arguments: argparse.Namespace, progress: object) -> None:
        raise ValueError("a fault")

    monkeypatch.setattr(report, "_report", faulty)
    with pytest.raises(ValueError, match="a fault"):
        cli.main(["report", "anywhere"])


@pytest.mark.parametrize(
    "error", [HandscopeError("Expected this, found that."), PermissionError(13, "Permission denied", "/there/run.yaml")]
)
def test_what_a_user_can_mend_ends_with_status_2(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(arguments: argparse.Namespace, progress: object) -> None:
        raise error

    monkeypatch.setattr(report, "_report", refused)
    assert cli.main(["report", "anywhere"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("handscope: ") and len(message.splitlines()) == 1
    assert str(getattr(error, "filename", None) or error) in message


@pytest.mark.process
def test_progress_is_drawn_on_a_terminal_only(tmp_path: Path) -> None:
    code = (
        "import time; from handscope.progress import bars\n"
        "with bars() as progress:\n"
        "    for done in range(4): progress('generate', done, 10); time.sleep(0.2)"
    )
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=end, cwd=tmp_path, env={**os.environ, "TERM": "xterm"}
    )
    os.close(end)
    drawn = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        drawn += part
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert b"generate" in drawn and b"3/10" in drawn and b"/s" in drawn

    silent = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, cwd=tmp_path)
    assert silent.stderr == silent.stdout == b""


@pytest.mark.process
def test_progress_is_drawn_in_a_notebook() -> None:
    import nbclient
    import nbformat

    code = (
        "from handscope.progress import bars\n"
        "with bars() as progress:\n"
        "    for done in range(6): progress('extract', done, 10)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=60).execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert "extract" in output.data["text/html"] and "5/10" in output.data["text/html"]


@pytest.mark.parametrize(
    "arguments", [["--seeds", "a-b"], ["--seeds", "0-"], ["--steps", "many"], ["--dtype", "float16"]]
)
def test_malformed_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["generate", "runs/none", "--prompt", "a hand", *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["analyze", "runs/none", "--folds", "1"],
        ["analyze", "runs/none", "--permutations", "0"],
        ["probe", "runs/none", "--seed", "-4"],
        ["extract", "runs/none", "--blocks", ","],
    ],
)
def test_options_out_of_range_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert arguments[2] in capsys.readouterr().err
