"""Weights that an evaluation puts on a model, all through diffusers: they act, come off, and are refused if wrong."""

import json
import shutil
from pathlib import Path

import made_families
import numpy as np
import pytest
import torch
from diffusers import FluxControlNetModel, FluxPipeline
from handscope.errors import HandscopeError
from handscope.evaluation.evaluate import check, evaluate
from handscope.evaluation_file import read_evaluation
from handscope.models.model import load
from handscope.run.folder import Run
from made_once import made_once
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

PROMPTS = ["a left hand", "five fingers raised"]
FAMILIES = ("sd3", "flux2-klein", "flux2-dev")


def save_lora(pipe: FluxPipeline, folder: Path) -> None:
    """A LoRA of random weights, saved as a training script does."""
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipe.transformer.add_adapter(config)
    FluxPipeline.save_lora_weights(folder, transformer_lora_layers=get_peft_model_state_dict(pipe.transformer))


@pytest.fixture(scope="module")
def weights(tiny_pipe_folder, tmp_path_factory) -> Path:
    """A LoRA, a transformer, a ControlNet with its maps, and a textual inversion, for the tiny FLUX."""

    def make(folder: Path) -> None:
        save_lora(FluxPipeline.from_pretrained(tiny_pipe_folder), folder / "lora")
        shutil.copytree(Path(tiny_pipe_folder) / "transformer", folder / "transformer")
        (path,) = (folder / "transformer").glob("*.safetensors")
        trained = load_file(path)
        save_file(trained | {"proj_out.weight": 2 * trained["proj_out.weight"]}, path, metadata={"format": "pt"})
        pipe = FluxPipeline.from_pretrained(tiny_pipe_folder)
        net = FluxControlNetModel.from_transformer(
            pipe.transformer, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2
        )
        for parameter in net.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.5)
        net.save_pretrained(folder / "controlnet")
        (folder / "maps").mkdir()
        for number, prompt in enumerate(PROMPTS):
            Image.new("RGB", (32, 32), (200 * number, 90, 10)).save(folder / "maps" / f"{prompt.replace(' ', '_')}.png")
        ip = {f"ip_adapter.{block}.to_{side}_ip.{part}": torch.randn(32, 16) if part == "weight" else torch.randn(32)
              for block in range(2) for side in "kv" for part in ("weight", "bias")}  # fmt: skip
        ip |= {"image_proj.proj.weight": torch.randn(4 * 16, 8), "image_proj.proj.bias": torch.randn(4 * 16),
               "image_proj.norm.weight": torch.ones(16), "image_proj.norm.bias": torch.zeros(16)}  # fmt: skip
        (folder / "ip").mkdir()
        save_file(ip, folder / "ip" / "ip.safetensors")
        seen = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                                image_size=32, patch_size=16, projection_dim=8)  # fmt: skip
        CLIPVisionModelWithProjection(seen).save_pretrained(folder / "encoder")
        save_file({"<anatomical>": torch.randn(16)}, folder / "inversion.safetensors")

    return made_once(tmp_path_factory, "weights", make)


@pytest.fixture
def plan_of(tmp_path, tiny_pipe_folder, weights):
    """The plan of some arms."""

    def read(*arms: str, model: object = tiny_pipe_folder):
        head = {"folder": str(tmp_path / "out"), "prompts": PROMPTS, "seeds": [0, 1], "scorer": "made_plugins:bright",
                "defaults": {"model": str(model), "steps": 2}}  # fmt: skip
        path = tmp_path / "evaluate.yaml"
        path.write_text(json.dumps(head)[:-1] + ', "arms": [' + ", ".join(arms) + "]}")
        for name in weights.iterdir():
            if not (tmp_path / name.name).exists():
                (tmp_path / name.name).symlink_to(name)
        return read_evaluation(path)

    return read


def pictures(plan, arm: str) -> np.ndarray:
    run = Run(plan.folder / arm.replace(" ", "_"))
    return np.stack([run.image(name) for name in run.metadata()]).astype(int)


def test_weights_act_as_strongly_as_is_said_and_leave_the_model_as_it_was(plan_of) -> None:
    plan = plan_of(
        '{"name": "lora", "lora": {"path": "lora", "scale": [0, 1]}}',
        '{"name": "word", "prompt": "{prompt} <anatomical>", "inversion": {"path": "inversion.safetensors", '
        '"token": "<anatomical>"}}',
        '{"name": "trained", "transformer": "transformer"}',
        '{"name": "shifted", "scheduler": {"name": "FlowMatchEulerDiscreteScheduler", '
        '"options": {"base_shift": 4.0, "max_shift": 4.0}}}',
        '{"name": "control", "controlnet": {"path": "controlnet", "pictures": "maps", "strength": [0, 1.0]}}',
        '{"name": "like", "ip_adapter": {"path": "ip", "file": "ip.safetensors", "encoder": "encoder", '
        '"pictures": "maps", "scale": [0, 1]}}',
        '{"name": "plain"}',
    )
    outcome = evaluate(plan)
    assert not outcome.failed
    plain = pictures(plan, "plain")
    fresh = load(plan.arms["plain"].model)
    assert fresh.state == "plain"
    for arm in ("lora 0", "control 0", "like 0"):  # the model as it is, and behind it the plain arm, drawn last
        np.testing.assert_allclose(pictures(plan, arm), plain, atol=1)
    for arm in ("lora 1", "word", "trained", "shifted", "control 1.0", "like 1"):
        assert np.abs(pictures(plan, arm) - plain).max() > 3, arm
    apart = outcome.contrasts
    assert set(apart["design"].dropna()) == {"same noises", "same prompts"}
    assert set(apart.loc[apart["unit"] == "picture", "design"].dropna()) == {"same noises"}
    drawn_with = Run(plan.folder / "lora_1").settings["drawn_with"]
    assert drawn_with["lora"]["scale"] == 1 and len(drawn_with["lora_sha256"]) == 64
    alone = evaluate(plan_of('{"name": "alone"}'))
    assert not alone.failed
    np.testing.assert_array_equal(pictures(plan, "alone"), plain)


def test_weights_that_do_not_fit_are_refused_before_anything_is_drawn(plan_of, tmp_path, weights) -> None:
    lora = load_file(weights / "lora" / "pytorch_lora_weights.safetensors")
    plan_of('{"name": "a"}')
    for name, tensors in {
        "wide": {key: torch.zeros(tensor.shape[0], 64) if "lora_A" in key else tensor for key, tensor in lora.items()},
        "deep": {key.replace("blocks.0", "blocks.9"): tensor for key, tensor in lora.items()},
        "unet": {key.replace("transformer.", "unet.", 1): tensor for key, tensor in lora.items()},
        "none": {"weight": torch.zeros(2)},
        "vector": {"<x>": torch.zeros(5)},
    }.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    other = tmp_path / "other"
    shutil.copytree(weights / "transformer", other)
    (path,) = other.glob("*.safetensors")
    trained = load_file(path)
    save_file({name: tensor for name, tensor in trained.items() if "proj_out" not in name}, path)
    net = json.loads((weights / "controlnet" / "config.json").read_text())
    shutil.copytree(weights / "controlnet", tmp_path / "wider")
    (tmp_path / "wider" / "config.json").write_text(json.dumps(net | {"joint_attention_dim": 99}))
    for arm, said in (
        ('{"path": "wide.safetensors"}', "as if it had 64 numbers on a side"),
        ('{"path": "deep.safetensors"}', "which the transformer in"),
        ('{"path": "unet.safetensors"}', "is of a UNet"),
        ('{"path": "none.safetensors"}', "holds no LoRA weights"),
        ('{"path": "broken.safetensors"}', "no whole .safetensors file"),
    ):
        with pytest.raises(HandscopeError, match=said):
            check(plan_of(f'{{"name": "a", "lora": {arm}}}'))
    for arm, said in (
        ('"inversion": {"path": "vector.safetensors", "token": "<x>"}', "vectors of 5 numbers"),
        ('"transformer": "other"', "tensors differ in name or shape"),
        ('"controlnet": {"path": "wider", "pictures": "maps"}', "has joint_attention_dim 99"),
        ('"controlnet": {"path": "transformer", "pictures": "maps"}', "Expected a FluxControlNetModel"),
        ('"controlnet": {"path": "controlnet", "pictures": "lora"}', "There are no pictures"),
        ('"ip_adapter": {"path": "ip", "file": "ip.safetensors", "pictures": "maps"}', "add encoder: FOLDER"),
    ):
        with pytest.raises(HandscopeError, match=said):
            check(plan_of(f'{{"name": "a", {arm}}}'))
    assert not (tmp_path / "out").exists()


def test_a_model_of_any_family_is_an_arm(plan_of, tmp_path_factory) -> None:
    folders = {name: made_once(tmp_path_factory, name, lambda folder, name=name: made_families.save(name, folder))
               for name in FAMILIES}  # fmt: skip
    arms = [f'{{"name": "{name}", "model": "{folder}"}}' for name, folder in folders.items()]
    away = [f'{{"name": "away {name}", "model": "{folder}", "negative": "red"}}'
            for name, folder in folders.items()]  # fmt: skip
    plan = plan_of(*arms, *away)
    outcome = evaluate(plan)
    # A distilled model has nothing to be led away from, and says so.
    assert outcome.failed.keys() == {"away flux2-dev"} and "negative" in outcome.failed["away flux2-dev"]
    designs = outcome.contrasts.query("unit == 'picture' and measure == 'implausible'").set_index("arm")["design"]
    assert designs["flux2-klein"] == designs["flux2-dev"] == "same prompts" and designs["away sd3"] == "same noises"
    assert len(outcome.scored.pictures) == 5 * 4
