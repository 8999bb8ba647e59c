"""The score where people draw and keep pictures: drawn again, stopped while it is drawn, mapped over, imported."""

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import handscope
import pytest
import torch
from flux_calls import call
from handscope import cli
from handscope.anatomy.integrations import comfyui, looks, redraw
from handscope.anatomy.integrations.columns import ScoreColumns
from handscope.anatomy.integrations.fiftyone import fiftyone_labels
from handscope.anatomy.integrations.looks import PlausibleHands
from handscope.anatomy.judge.scores import Verdict
from handscope.anatomy.judge.scoring import Scores, score
from handscope.errors import HandscopeError
from handscope.guidance import stop_callback
from handscope.models.model import load
from made_hands import examined, open_hands, rendered
from PIL import Image


def made(*pictures: list[float]) -> Scores:
    """Scores of pictures, each with hands of these scores; below one half is implausible."""
    image = [i for i, hands in enumerate(pictures) for _ in hands]
    verdicts = [
        Verdict("calibrated", value >= 0.5, value, {}, [] if value >= 0.5 else [f"wrong {value}"])
        for hands in pictures
        for value in hands
    ]
    return Scores("calibrated", examined(image, len(pictures)), verdicts)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> dict[float, Scores]:
    """A score that looks at the first value of the pictures only, wherever it is used."""
    of: dict[float, Scores] = {}

    def look(images: torch.Tensor, *_: object, **__: object) -> Scores:
        return of[round(float(images[0].flatten()[0]), 3)]

    for module in (redraw, comfyui, looks):
        monkeypatch.setattr(module, "score", look)
    return of


def test_what_pictures_come_to() -> None:
    scores = made([0.9, 0.2], [], [0.7])
    assert redraw.worst(scores) == [0.2, None, 0.7]
    assert redraw.rejected(scores) == [True, False, False]
    assert redraw.rejected(scores, ("implausible", "undetected")) == [True, True, False]
    assert redraw.reasons(scores) == [["wrong 0.2"], [], []]


def test_draws_until_one_passes_and_else_takes_the_best(judged: dict[float, Scores]) -> None:
    judged |= {0.1: made([0.2]), 0.2: made([0.4]), 0.3: made([0.8]), 0.4: made([])}
    asked: list[int] = []

    def draw(seed: int) -> torch.Tensor:
        asked.append(seed)
        return torch.full((1, 3, 8, 8), seed / 10)

    drawn = redraw.redraw(draw, [1, 2, 3, 4])
    assert (drawn.seed, drawn.attempts, drawn.accepted, asked) == (3, 3, True, [1, 2, 3])
    drawn = redraw.redraw(draw, [1, 2, 1])
    assert (drawn.seed, drawn.attempts, drawn.accepted) == (2, 3, False)
    drawn = redraw.redraw(draw, [4, 3], reject=("undetected",))
    assert (drawn.seed, drawn.accepted) == (3, True)
    with pytest.raises(HandscopeError, match="no seeds"):
        redraw.redraw(draw, [])


def test_a_pipeline_is_stopped_by_what_it_will_have_drawn(tiny_pipe_folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the predicted picture's hands are worse than the threshold, and nowhere else."""
    model = load(str(tiny_pipe_folder))
    look = PlausibleHands(model.pipe, 32, 32)
    for hands, stopped in (([0.1], True), ([0.9], False), ([], False)):
        scores, seen = made(hands, [0.9]), []
        monkeypatch.setattr(looks, "score", lambda images, s=scores, n=seen, **_: n.append(images.shape) or s)
        call(model, callback_on_step_end=stop_callback(look, 2, 0.5))
        assert model.pipe.interrupt == stopped and look.scores is scores and seen == [(2, 3, 32, 32)]


def test_columns_for_a_map(tmp_path: Path) -> None:
    hand = Image.fromarray((open_hands(1, 1)[0] * 255).round().byte().permute(1, 2, 0).numpy())
    hand.save(tmp_path / "hand.png")
    data = io.BytesIO()
    hand.save(data, "PNG")
    stored = {"bytes": data.getvalue(), "path": None}
    batch = {"image": [hand, None, str(tmp_path / "hand.png"), stored, Image.new("L", (64, 64))], "text": list("abcde")}
    columns = ScoreColumns(options={"search": "plain"})(batch)
    assert set(columns) == {"hands_outcome", "hands_score", "hands_reasons", "hands_hands"}
    outcome = columns["hands_outcome"]
    assert outcome[1] is None and outcome[4] == "undetected" and outcome[0] == outcome[2] == outcome[3] != "undetected"
    assert columns["hands_score"][0] == pytest.approx(score(hand, search="plain").verdicts[0].score)
    assert columns["hands_score"][1] is columns["hands_score"][4] is None
    assert columns["hands_hands"] == [1, None, 1, 1, 0] and columns["hands_reasons"][4] == []
    with pytest.raises(HandscopeError, match="no column 'photo'"):
        ScoreColumns("photo")(batch)
    with pytest.raises(HandscopeError, match="batched=True"):
        ScoreColumns()({"image": hand})


def test_over_a_dataset() -> None:
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Dataset"):
        pytest.skip("the folder of that name is this project's own")
    table = datasets.Dataset.from_dict({"image": [Image.new("RGB", (64, 64))] * 2}).map(ScoreColumns(), batched=True)
    assert table["hands_outcome"] == ["undetected"] * 2


def test_fiftyone_labels_of_a_folder(tmp_path: Path) -> None:
    path = rendered(tmp_path / "pictures", 1)[0]
    Image.new("RGB", (64, 64)).save(tmp_path / "pictures" / "nothing.png")
    command = ["anatomy", "score", str(tmp_path / "pictures"), "--out", str(tmp_path / "out"), "--search", "plain"]
    assert cli.main([*command, "--fiftyone"]) == 0
    written = tmp_path / "out" / "fiftyone"
    data, labels = (json.loads((written / f"{name}.json").read_text()) for name in ("data", "labels"))
    document = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert set(data.values()) == {one["path"] for one in document["pictures"]} and set(labels["labels"]) == set(data)
    (name,) = [name for name, where in data.items() if where == str(path)]
    (hand,) = labels["labels"][name]
    assert labels["classes"][hand["label"]] == document["hands"][0]["outcome"]
    x, y, width, height = hand["bounding_box"]
    points = torch.tensor(document["hands"][0]["landmarks"])[:, :2]
    with Image.open(path) as image:
        ends = torch.tensor([x, y, x + width, y + height]) * torch.tensor([*image.size, *image.size])
    torch.testing.assert_close(ends, torch.cat([points.amin(0), points.amax(0)]), atol=0.01, rtol=0)
    assert fiftyone_labels(document) == (data, labels)
    assert sorted(map(len, labels["labels"].values())) == [0, 1]


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """As much of ComfyUI as the nodes ask for; its sampler draws latents that hold the seed."""
    said = SimpleNamespace(seeds=[], arguments=None)

    def common_ksampler(model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise=1.0):
        said.seeds.append(seed)
        said.arguments = (model, steps, cfg, sampler_name, scheduler, positive, negative, denoise)
        return ({"samples": latent["samples"] + seed},)

    class ExecutionBlocker:
        def __init__(self, message: str | None) -> None:
            self.message = message

    sampler = SimpleNamespace(SAMPLERS=["euler", "dpmpp_2m"], SCHEDULERS=["normal"])
    parts = {
        "nodes": {"common_ksampler": common_ksampler},
        "comfy": {},
        "comfy.samplers": {"KSampler": sampler},
        "comfy_execution": {},
        "comfy_execution.graph": {"ExecutionBlocker": ExecutionBlocker},
    }
    for name, values in parts.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    said.blocker = ExecutionBlocker
    return said


def test_comfyui_loads_the_folder_by_its_path(comfy: SimpleNamespace) -> None:
    """As ComfyUI does, under a name of its own, and every node says what ComfyUI asks of it."""
    path = Path(handscope.__file__).parent / "anatomy" / "integrations" / "comfyui" / "__init__.py"
    spec = importlib.util.spec_from_file_location("/ComfyUI/custom_nodes/handscope", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(module.NODE_CLASS_MAPPINGS) == set(module.NODE_DISPLAY_NAME_MAPPINGS)
    for node in module.NODE_CLASS_MAPPINGS.values():
        inputs = node.INPUT_TYPES()
        names = [name for group in inputs.values() for name in group]
        function = getattr(node, node.FUNCTION)
        assert names == list(function.__code__.co_varnames[1 : function.__code__.co_argcount])
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) and isinstance(node.CATEGORY, str)
        for group in inputs.values():
            for kind, *options in group.values():
                assert (isinstance(kind, str) and kind.isupper()) or (isinstance(kind, list) and kind)
                assert all(isinstance(option, dict) for option in options)


def test_comfyui_scores_pictures_as_they_are() -> None:
    images = torch.stack([open_hands(1, 1, 192)[0], torch.full((3, 192, 192), 0.5)]).permute(0, 2, 3, 1)
    same, report, bad, lowest = comfyui.ScoreHands().score(images, "calibrated", "plain", 2)
    scores = score(images.permute(0, 3, 1, 2), search="plain")
    assert same is images and bad == scores.outcomes().count("implausible")
    assert lowest == scores.verdicts[0].score and report.splitlines()[1] == "2: undetected"
    assert report.startswith(f"1: {scores.outcomes()[0]} {lowest:.2f}")


def test_comfyui_rejects(comfy: SimpleNamespace, judged: dict[float, Scores]) -> None:
    images = torch.zeros(3, 8, 8, 3) + torch.arange(3)[:, None, None, None] / 10
    judged[0.0] = made([0.9], [0.2], [])
    node, rest = comfyui.RejectHands(), ("calibrated", "plain", 2)
    passed, out, report = node.sort(images, "implausible", *rest)
    assert passed[:, 0, 0, 0].tolist() == pytest.approx([0, 0.2]) and len(out) == 1 and len(report.splitlines()) == 3
    passed, out, _ = node.sort(images, "implausible or no hand found", *rest)
    assert len(passed) == 1 and len(out) == 2
    judged[0.0] = made([0.2], [0.2], [0.3])
    passed, out, _ = node.sort(images, "implausible", *rest)
    assert isinstance(passed, comfy.blocker) and passed.message is None and len(out) == 3


def test_comfyui_draws_again(comfy: SimpleNamespace, judged: dict[float, Scores]) -> None:
    judged |= {0.7: made([0.1]), 0.8: made([0.9])}
    vae = SimpleNamespace(decode=lambda latents: latents.expand(1, 8, 8, 3) / 10)
    settings = (5, 3.0, "euler", "normal", 1.0, "implausible", "calibrated", "plain", 2)
    images, latent, seed, report = comfyui.DrawHandsAgain().draw(
        "model", vae, "yes", "no", {"samples": torch.zeros(1, 1, 1, 1)}, 7, 4, *settings
    )
    assert comfy.seeds == [7, 8] and seed == 8 and float(latent["samples"]) == 8 and report == "1: plausible 0.90"
    assert float(images[0, 0, 0, 0]) == pytest.approx(0.8)
    assert comfy.arguments == ("model", 5, 3.0, "euler", "normal", "yes", "no", 1.0)
