"""Trainings on tiny models: the loss is the pipeline's own velocity, a killed training goes on, diffusers loads it."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from handscope import cli
from handscope.errors import HandscopeError
from handscope.extract.generate import draw
from handscope.mitigations import flow_loss
from handscope.mitigations.flow_loss import FINE, FlowLoss, between
from handscope.mitigations.inside import reach, without
from handscope.mitigations.learners import DreamBooth, LoRA, TextualInversion
from handscope.mitigations.pictures import captioned, pixels
from handscope.mitigations.settings import Training
from handscope.mitigations.train import CHECKPOINT, LOSSES, Samples, train
from handscope.models.model import Model, load
from handscope.models.sampling import Sampling
from hypothesis import given
from hypothesis import strategies as st
from made_families import save
from made_tiny import PROMPTS
from PIL import Image
from safetensors.torch import load_file

FAMILIES = ("flux2-klein", "sd3", "z-image")
SHORT = Training(steps=6, batch=2, rate=1e-2, schedule="cosine", average=0.5, dropout=0.3, save_every=2)


@pytest.fixture(scope="module")
def family_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny pipelines of other families, by name."""
    folders = {name: tmp_path_factory.mktemp("families") / name for name in FAMILIES}
    for name, folder in folders.items():
        save(name, folder)
    return folders


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of noise with captions in metadata.jsonl."""
    folder = tmp_path_factory.mktemp("album")
    random = np.random.default_rng(0)
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as file:
        for number, caption in enumerate(PROMPTS[:6]):
            Image.fromarray(random.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
            file.write(json.dumps({"file_name": f"{number}.png", "text": caption}) + "\n")
    return folder


def fresh(folder: Path) -> Model:
    return load(str(folder))


def picture(model: Model) -> np.ndarray:
    return draw(model, [(PROMPTS[0], 1)], 2, 3.5, model.height, model.width, trajectories=False).images[0]


# --- the loss


@pytest.mark.parametrize("name", ["flux", *FAMILIES])
def test_the_loss_is_that_of_the_velocity_by_which_the_pipeline_draws(name, tiny_model, family_folders, monkeypatch):
    model = tiny_model if name == "flux" else fresh(family_folders[name])
    size, at = (model.height, model.width), 17
    guidance = 3.5 if name == "flux" else 0.0 if name == "z-image" else 1.0
    monkeypatch.setattr(
        flow_loss, "compute_density_for_timestep_sampling", lambda way, n, *more, **named: torch.full((n,), at / FINE)
    )
    prompts = [PROMPTS[0]] * 2
    latents = torch.stack([model.noise(seed, *size) for seed in (5, 6)])
    embeddings = model.encode(prompts).batch(prompts, model.device, model.dtype)
    with torch.no_grad():
        found = FlowLoss(model, *size, "logit_normal", 3.5)(latents, embeddings, torch.Generator().manual_seed(3))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    sampling = Sampling(model, FINE, guidance, *size)
    sigma = sampling.sigmas[at]
    _, velocity = sampling.step((1 - sigma) * latents + sigma * noise, prompts, at)
    torch.testing.assert_close(found, (velocity - (noise - latents)).square().mean((1, 2)))


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=9), st.floats(0, 1))
def test_times_lie_between_those_of_the_schedule(table, share):
    found = between(torch.tensor(table).double(), torch.tensor([share]))
    expected = np.interp(np.float32(share), np.linspace(0, 1, len(table)), table)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_a_model_that_predicts_noise_has_no_loss_here(tiny_model):
    from dataclasses import replace

    from handscope.models.families.pixart import FAMILY

    with pytest.raises(HandscopeError, match="no training loss for PixArt"):
        FlowLoss(replace(tiny_model, family=FAMILY), 32, 32, "none", 1.0)


# --- what is learnt


def test_what_a_lora_has_learnt_is_what_diffusers_loads(tiny_pipe_folder, album, tmp_path):
    model = fresh(tiny_pipe_folder)
    before, plain = picture(model), {k: v.clone() for k, v in model.transformer.state_dict().items()}
    learner = LoRA(model, rank=2)
    assert not any("norm" in name for name in learner.layers)
    assert len([name for name in learner.layers if name.endswith("attn.to_q")]) == 5
    saved = train(learner, tmp_path, captioned(album), SHORT, samples=Samples((PROMPTS[0],), 2))
    after = picture(model)
    assert not np.array_equal(before, after)
    weights = model.transformer.state_dict()
    assert all(torch.equal(value, weights.get(name, weights.get(_base(name)))) for name, value in plain.items())
    again = fresh(tiny_pipe_folder)
    again.pipe.load_lora_weights(saved.parent)
    assert np.array_equal(picture(again), after)
    (sample,) = (tmp_path / "samples" / "step-000006").iterdir()
    assert Image.open(sample).size == (32, 32)


def test_a_lora_from_inside(tiny_pipe_folder, album, tmp_path):
    model = fresh(tiny_pipe_folder)
    before = picture(model)
    with pytest.raises(HandscopeError, match="No LoRA is loaded"):
        reach(model)
    saved = train(LoRA(model, 2, alpha=6, targets=["attn.to_q", "ff.net.2"]), tmp_path, captioned(album), SHORT)
    after, table = picture(model), reach(model)
    weights = load_file(saved)
    double = ["double.0", "double.0", "double.1", "double.1"]
    assert table["block"].tolist() == [*double, "single.0", "single.1", "single.2"]
    plain = fresh(tiny_pipe_folder).transformer.transformer_blocks[1].ff.net[2].weight
    name = "transformer.transformer_blocks.1.ff.net.2"
    change = 3 * weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"]
    row = table[(table["block"] == "double.1") & (table["layer"] == "ff.net.2")].iloc[0]
    assert row["share"] == pytest.approx(float((change.norm() / plain.norm()).detach()), rel=1e-5)
    with pytest.raises(HandscopeError, match="change nothing in single.9"), without(model, ["single.9"]):
        pass
    with without(model, table["block"].unique().tolist()):
        assert np.array_equal(picture(model), before)
    with without(model, ["double.1"]):
        assert not np.array_equal(picture(model), before) and not np.array_equal(picture(model), after)
    assert np.array_equal(picture(model), after)


def _base(name: str) -> str:
    """The name of a weight that peft has wrapped."""
    layer, _, kind = name.rpartition(".")
    return f"{layer}.base_layer.{kind}"


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families_are_trained_by_the_same_means(name, family_folders, album, tmp_path):
    model = fresh(family_folders[name])
    training = Training(steps=2, batch=2, rate=1e-2, checkpointing=True)
    saved = train(LoRA(model, rank=2), tmp_path, captioned(album), training)
    again = fresh(family_folders[name])
    before = picture(again)
    again.pipe.load_lora_weights(saved.parent)
    assert np.array_equal(picture(again), picture(model))
    assert not np.array_equal(picture(again), before)


def test_a_new_word_is_what_diffusers_loads(tiny_pipe_folder, album, tmp_path):
    model = fresh(tiny_pipe_folder)
    learner = TextualInversion(model, "<fine>", "a", vectors=2)
    begun = [p.detach().clone() for p in learner.parameters()]
    assert begun[0].shape == begun[1].shape == (2, 16)
    train(learner, tmp_path, captioned(album), SHORT)
    assert all(not torch.equal(a, b) for a, b in zip(begun, learner.parameters()))
    pipe = fresh(tiny_pipe_folder).pipe
    pipe.load_textual_inversion(tmp_path, weight_name="learned_embeds.safetensors")
    other = {"text_encoder": pipe.text_encoder_2, "tokenizer": pipe.tokenizer_2}
    pipe.load_textual_inversion(tmp_path, weight_name="learned_embeds_2.safetensors", **other)
    with torch.no_grad():
        found = pipe.encode_prompt("<fine> hand", None, max_sequence_length=20)[:2]
        learnt = model.pipe.encode_prompt("<fine> hand", None, max_sequence_length=20)[:2]
        plain = pipe.encode_prompt("a hand", None, max_sequence_length=20)[:2]
    torch.testing.assert_close(found, learnt)
    assert not torch.equal(found[0], plain[0])


def test_all_weights_are_what_diffusers_loads(tiny_pipe_folder, album, tmp_path):
    model = fresh(tiny_pipe_folder)
    saved = train(DreamBooth(model), tmp_path, captioned(album), Training(steps=2, batch=2))
    again = type(model.transformer).from_pretrained(saved)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.transformer.parameters(), strict=True))


def test_the_prior_is_added_with_its_weight(tiny_pipe_folder, album, tmp_path):
    losses = {}
    for weight in (0.0, 0.5, 1.0):
        folder, training = tmp_path / str(weight), Training(steps=1, batch=2, prior_weight=weight)
        train(LoRA(fresh(tiny_pipe_folder), 2), folder, captioned(album)[:3], training, captioned(album)[3:])
        losses[weight] = losses_of(folder)[0]
    assert losses[0.5] - losses[0.0] == pytest.approx((losses[1.0] - losses[0.0]) / 2, rel=1e-4)
    assert losses[1.0] > losses[0.0]


def losses_of(folder: Path) -> list[float]:
    with open(folder / LOSSES, newline="", encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


# --- going on


@pytest.mark.process
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_training_goes_on_with_the_same_losses_to_the_same_weights(
    accumulate, tiny_pipe_folder, album, tmp_path
):
    training = Training(**{**vars(SHORT), "accumulate": accumulate})
    whole = train(LoRA(fresh(tiny_pipe_folder), 2), tmp_path / "whole", captioned(album), training)

    def killed(stage: str, done: int, total: int) -> None:
        if stage == "train" and done == 5:  # step 5 is in the table of losses and not in the checkpoint of step 4
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        train(LoRA(fresh(tiny_pipe_folder), 2), tmp_path / "part", captioned(album), training, progress=killed)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(losses_of(tmp_path / "part")) == 5
    part = train(LoRA(fresh(tiny_pipe_folder), 2), tmp_path / "part", captioned(album), training)
    assert (tmp_path / "part" / LOSSES).read_bytes() == (tmp_path / "whole" / LOSSES).read_bytes()
    assert part.read_bytes() == whole.read_bytes()


@pytest.mark.process
@pytest.mark.slow
def test_two_processes_are_one_that_takes_two_batches_a_step(tiny_pipe_folder, album, tmp_path):
    given = ["train", "lora", str(album), str(tmp_path / "two"), "--model", str(tiny_pipe_folder), "--rank", "2"]
    given += ["--steps", "3", "--batch", "2", "--rate", "0.01", "--targets", "attn.to_q", "--device", "cpu"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "handscope", *given]
    subprocess.run(command, check=True, capture_output=True, timeout=280)
    training = Training(steps=3, batch=2, rate=0.01, accumulate=2)
    train(LoRA(fresh(tiny_pipe_folder), 2, targets=["attn.to_q"]), tmp_path / "one", captioned(album), training)
    two, one = losses_of(tmp_path / "two"), losses_of(tmp_path / "one")
    assert len(two) == 3
    np.testing.assert_allclose(two, one, rtol=1e-5)
    files = [load_file(tmp_path / name / "pytorch_lora_weights.safetensors") for name in ("two", "one")]
    for name, weight in files[0].items():
        torch.testing.assert_close(weight, files[1][name], rtol=1e-3, atol=1e-4)


def test_a_training_of_something_else_is_refused(tiny_pipe_folder, album, tmp_path):
    train(LoRA(fresh(tiny_pipe_folder), 2), tmp_path, captioned(album), Training(steps=2, batch=2))
    kept = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(HandscopeError, match="another training .*batch 2 then, 3 now"):
        train(LoRA(fresh(tiny_pipe_folder), 2), tmp_path, captioned(album), Training(steps=2, batch=3))
    with pytest.raises(HandscopeError, match="another learnt"):
        train(LoRA(fresh(tiny_pipe_folder), 3), tmp_path, captioned(album), Training(steps=2, batch=2))
    with pytest.raises(HandscopeError, match="another pictures"):
        train(LoRA(fresh(tiny_pipe_folder), 2), tmp_path, captioned(album)[:5], Training(steps=2, batch=2))
    assert (tmp_path / CHECKPOINT).read_bytes() == kept
    train(LoRA(fresh(tiny_pipe_folder), 2), tmp_path, captioned(album), Training(steps=3, batch=2))  # lengthened
    assert len(losses_of(tmp_path)) == 3


# --- what is refused before anything is trained


def test_pictures_and_captions_are_found(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    image.save(tmp_path / "a.png")
    with pytest.raises(HandscopeError, match="1 of 1 .* have none, a.png among them"):
        captioned(tmp_path)
    (tmp_path / "a.txt").write_text("a red one\n")
    assert [one.caption for one in captioned(tmp_path)] == ["a red one"]
    (tmp_path / "metadata.csv").write_text("file_name,text,said\na.png,first,second\n")
    assert [one.caption for one in captioned(tmp_path)] == ["first"]
    assert [one.caption for one in captioned(tmp_path, "said")] == ["second"]
    (tmp_path / "metadata.csv").write_text("file_name,text\nb.png,first\n")
    with pytest.raises(HandscopeError, match="not there, .*b.png"):
        captioned(tmp_path)
    fitted = pixels(tmp_path / "a.png", 10, 10)
    assert fitted.shape == (3, 10, 10) and torch.equal(fitted[0], torch.ones(10, 10)) and not fitted[1:].any()
    with pytest.raises(HandscopeError, match="10 by 20 pixels, fewer than the 12 by 12"):
        pixels(tmp_path / "a.png", 12, 12)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(HandscopeError, match="a.png cannot be trained on"):
        pixels(tmp_path / "a.png", 10, 10)


def test_what_does_not_fit_is_refused(tiny_pipe_folder, family_folders):
    model = fresh(tiny_pipe_folder)
    with pytest.raises(HandscopeError, match="ends in 'to_nothing'; its blocks have attn.add_k_proj"):
        LoRA(model, targets=["to_nothing"])
    with pytest.raises(HandscopeError, match="does not know|knows"):
        TextualInversion(model, "a", "hand,")
    with pytest.raises(HandscopeError, match="loads no textual inversion"):
        TextualInversion(fresh(family_folders["sd3"]), "<fine>", "a")
    with pytest.raises(HandscopeError, match="--dtype float32"):
        DreamBooth(load(str(tiny_pipe_folder), dtype="bfloat16"))
    LoRA(model, 2)
    with pytest.raises(HandscopeError, match="acts in the model already"):
        LoRA(model, 2)
    for wrong in ({"weighting": "x"}, {"schedule": "x"}, {"precision": "x"}, {"steps": 0}, {"dropout": 1.0}):
        with pytest.raises(HandscopeError, match=f"Expected {next(iter(wrong))}"):
            Training(**wrong)


def test_the_verb_trains_and_refuses_in_a_sentence(tiny_pipe_folder, album, tmp_path, capfd):
    given = ["train", "lora", str(album), str(tmp_path / "out"), "--model", str(tiny_pipe_folder)]
    given += ["--rank", "2", "--targets", "attn.to_q,attn.to_v", "--steps", "1", "--batch", "2"]
    assert cli.main(given) == 0
    out, _ = capfd.readouterr()
    assert "1 steps on 6 pictures" in out and "pytorch_lora_weights.safetensors" in out
    (tmp_path / "empty").mkdir()
    assert cli.main(["train", "dreambooth", str(tmp_path / "empty"), str(tmp_path / "no")]) == 2
    assert "no pictures in" in capfd.readouterr().err
    assert not (tmp_path / "no").exists()
