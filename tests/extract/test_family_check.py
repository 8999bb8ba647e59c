"""The self-test passes every family as it is, and finds each thing that a table may have wrong."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from handscope import cli
from handscope.errors import HandscopeError
from handscope.extract.family_check import REPLAY, Checked, check_call, check_model, check_pipeline
from handscope.models import registry
from handscope.models.families.flux import FAMILY as FLUX
from handscope.models.family import Family
from handscope.models.model import Model, load
from made_around import make
from made_families import MAKERS, save, t5

SIZES = {"sana": (32, 64)}
SIDES = "conditional and unconditional rows are told apart"


def outcomes(checked: Checked) -> dict[str, str]:
    return {check.claim: check.outcome for check in checked.checks}


@pytest.mark.parametrize("name", MAKERS)
def test_every_family_passes(name: str, tmp_path: Path) -> None:
    save(name, tmp_path / "pipe")
    checked = check_model(load(str(tmp_path / "pipe")), guidance=2.5, steps=2, size=SIZES.get(name, (32, 48)))
    assert checked.passed, str(checked)
    missing = [check.claim for check in checked.checks if check.outcome == "not applicable"]
    expected = ["text and image are not swapped"] if name == "sana" else []
    assert missing == expected + ([SIDES] if name in ("flux2-klein-distilled", "flux2-dev") else [])


@pytest.fixture
def flux(tiny_model: Model) -> Model:
    return tiny_model


def test_flux_passes_and_says_what_was_tried(flux: Model) -> None:
    checked = check_model(flux)
    missing = [claim for claim, outcome in outcomes(checked).items() if outcome == "not applicable"]
    assert checked.passed and missing == [SIDES], str(checked)
    assert "a grid of 2 by 4, in double.0, single.0" in str(checked) and str(checked).startswith("FLUX.1 (FluxTransf")


def test_a_call_of_ones_own(flux: Model) -> None:
    inputs = flux.family.inputs(flux, ["an open hand"], 3.5, 32, 48)
    x = flux.noise(0, 32, 48)[None]
    checked = check_call(flux.transformer, lambda: flux.family.call(flux.transformer, x, torch.tensor(500.0), inputs))
    assert checked.passed
    found = outcomes(checked)
    assert [claim for claim, outcome in found.items() if outcome == "not applicable"] == [
        "a replay has the bits of the whole run",
        "x0 is what the scheduler steps to",
    ]
    square = flux.noise(0, 32, 32)[None]
    inputs = flux.family.inputs(flux, ["an open hand"], 3.5, 32, 32)
    checked = check_call(flux.transformer, lambda: flux.family.call(flux.transformer, square, torch.ones(()), inputs))
    assert "it is square, so take another" in str(checked)


class Slow(type(FLUX)):  # type: ignore[misc]
    """Says another time than the pipeline."""

    def time(self, *given: Any) -> dict[str, torch.Tensor]:
        return {"timestep": super().time(*given)["timestep"] * 0.99}


class Turned(type(FLUX)):  # type: ignore[misc]
    """Puts columns for rows where it decodes."""

    def unpack(self, pipe: Any, latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return super().unpack(pipe, latents, width, height).transpose(2, 3)


def as_class(kind: type, family: Family) -> Family:
    return kind(**{field.name: getattr(family, field.name) for field in fields(family)})


def order(*streams: str) -> Any:
    """A list whose one tensor has its streams in another order."""
    return lambda family: replace(family, lists=(family.lists[0], replace(family.lists[1], gives=(streams,), also=())))


WRONG = {
    # A family's tiny model, what its table then has wrong, and the claims that fail.
    "sides": ("sd3", lambda family: replace(family, together=("cond", "uncond")), {SIDES, REPLAY}),
    "order": ("flux2-klein-distilled", order("image", "text", "reference"), {"a changed latent lands on its token"}),
    "prediction": ("flux", lambda family: replace(family, prediction="epsilon"), {"x0 is what the scheduler steps to"}),
    "time": ("flux", lambda family: as_class(Slow, family), {REPLAY}),
    "place": ("flux", lambda family: as_class(Turned, family), {"a changed latent shows in its place"}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_table_has_wrong_is_found(
    wrong: str, tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, change, expected = WRONG[wrong]
    model = tiny_model
    if name != "flux":
        save(name, tmp_path / "pipe")
        model = load(str(tmp_path / "pipe"))
    made = change(model.family)
    monkeypatch.setattr(registry, "_BUILT_IN", {})
    monkeypatch.setattr(registry, "_families", {made.name: made})
    checked = check_model(replace(model, family=made), guidance=2.5, steps=2, size=(32, 48))
    failed = {check.claim for check in checked.checks if check.outcome == "failed"}
    assert failed & expected, str(checked)
    assert not checked.passed


def test_the_command(tiny_pipe_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models"]) == 0
    said = capsys.readouterr().out
    assert "FLUX.1" in said and "double.N, single.N" in said and "all stages" in said and "diffusers 0.42.1" in said
    assert cli.main(["models", "check", str(tiny_pipe_folder), "--steps", "2"]) == 0
    assert "a changed latent lands on its token" in capsys.readouterr().out
    assert cli.main(["models", "check", str(tmp_path)]) == 2
    assert "model_index.json" in capsys.readouterr().err
    assert cli.main(["models", "check", str(tiny_pipe_folder), "--height", "32"]) == 2
    assert "both --height and --width" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["pixart", "dit"])
def test_a_folder_that_is_only_read_around_calls_is_checked_by_a_call(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = make(name).pipe
    if name == "pixart":
        words, encoder = t5(32)
        pipe.register_modules(tokenizer=words, text_encoder=encoder)
    pipe.save_pretrained(tmp_path / "pipe")
    size = ["--height", "32", "--width", "48"] if name == "pixart" else []
    assert cli.main(["models", "check", str(tmp_path / "pipe"), "--steps", "2", *size]) == 0
    said = capsys.readouterr().out
    assert "a changed latent lands on its token" in said and "failed" not in said


def test_a_pipeline_that_wants_more_than_a_prompt_is_named(tmp_path: Path) -> None:
    pipe = make("pixart").pipe  # it has no text encoder
    with pytest.raises(HandscopeError, match="PixArtSigmaPipeline could not be called with .*check_call"):
        check_pipeline(pipe, steps=1)
