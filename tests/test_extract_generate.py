"""Generation: what a seed means, what a second call makes, what a trajectory holds."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PROMPTS, SEEDS, STEPS
from handscope.errors import HandscopeError
from handscope.extract.generate import generate
from handscope.extract.models import Model
from handscope.extract.prompts import read_prompts
from handscope.extract.run import Run, sample_id


def test_a_seed_means_the_image_of_the_bare_pipeline(tiny_model: Model, finished_run: Run) -> None:
    sample = sample_id(PROMPTS[3], 2)
    image = tiny_model.pipe(
        PROMPTS[3],
        height=32,
        width=32,
        num_inference_steps=STEPS,
        guidance_scale=3.5,
        max_sequence_length=20,
        generator=torch.Generator().manual_seed(2),
        output_type="np",
    ).images[0]
    difference = finished_run.image(sample).astype(int) - (image * 255).round()
    assert np.abs(difference).max() <= 1  # one alone and sixteen together round differently


def test_a_sample_does_not_depend_on_its_company(tiny_model: Model, finished_run: Run, tmp_path: Path) -> None:
    few = generate(tiny_model, Run(tmp_path), PROMPTS[:1:-1], [5, 1, 9], steps=STEPS, batch_size=16).set_index("sample")
    many = finished_run.samples().set_index("sample")
    both = many.index.intersection(few.index)
    assert len(both) == 12
    for column in ("image_sha256", "noise_sha256", "batch_size"):
        assert few.loc[both, column].equals(many.loc[both, column])


def test_metadata_and_hashes_are_those_of_the_files(finished_run: Run) -> None:
    samples = finished_run.samples()
    assert len(samples) == len(PROMPTS) * len(SEEDS)
    assert samples["image_sha256"].nunique() == len(samples)
    for row in samples.iloc[::7].itertuples():
        assert row.sample == sample_id(row.prompt, row.seed)
        assert row.image_sha256 == hashlib.sha256(finished_run.image(row.sample).tobytes()).hexdigest()
        assert (
            row.noise_sha256
            == hashlib.sha256(finished_run.trajectory(row.sample).latents[0].numpy().tobytes()).hexdigest()
        )
    lines = finished_run.metadata_path.read_text(encoding="utf-8").splitlines()
    assert all((finished_run.samples_dir / json.loads(line)["file_name"]).is_file() for line in lines)


def test_a_trajectory_is_the_path_from_noise_to_the_image(tiny_model: Model, finished_run: Run) -> None:
    sample = sample_id(PROMPTS[0], 0)
    path = finished_run.trajectory(sample)
    assert path.latents.shape == (STEPS + 1, 16, 16)
    decoded = tiny_model.decode(path.latents[-1:], 32, 32)[0].permute(1, 2, 0).numpy()
    assert np.abs(finished_run.image(sample) - decoded * 255).max() <= 0.51
    assert path.sigmas[0] == 1 and path.sigmas[-1] == 0
    assert torch.allclose(path.timesteps, path.sigmas[:-1] * 1000)
    assert torch.allclose(path.model_timesteps, path.timesteps)


def test_velocity_is_what_the_transformer_said(tiny_model: Model, finished_run: Run) -> None:
    sample = sample_id(PROMPTS[0], 0)
    path = finished_run.trajectory(sample)
    with torch.no_grad():
        inputs = tiny_model.adapter.inputs(tiny_model, [PROMPTS[0]], 3.5, 32, 32)
        for i in range(STEPS):
            velocity = tiny_model.transformer(
                hidden_states=path.latents[i : i + 1], timestep=path.timesteps[i : i + 1] / 1000, **inputs
            )[0][0]
            assert torch.allclose(path.velocity(i), velocity, atol=1e-4)
            assert torch.allclose(path.x0(i), path.latents[i] - path.sigmas[i] * velocity, atol=1e-4)


def test_the_transformer_sees_rounded_timesteps_in_bfloat16(tiny_pipe_folder: Path, tmp_path: Path) -> None:
    from handscope.extract.models import load

    run = Run(tmp_path)
    generate(load(str(tiny_pipe_folder), dtype="bfloat16"), run, PROMPTS[:1], [0], steps=STEPS)
    path = run.trajectory(sample_id(PROMPTS[0], 0))
    assert path.latents.dtype == torch.bfloat16
    expected = (path.timesteps.bfloat16() / 1000) * 1000
    assert torch.equal(path.model_timesteps, expected.float())
    assert not torch.equal(path.model_timesteps, path.timesteps)


def test_a_second_call_makes_only_what_is_missing(
    tiny_model: Model, finished_run: Run, run_copy: Callable[[Run], Run]
) -> None:
    run = run_copy(finished_run)
    lost = [sample_id(PROMPTS[0], 1), sample_id(PROMPTS[7], 5)]
    run.image_path(lost[0]).unlink()
    run.trajectory_path(lost[1]).unlink()
    before = {path: path.stat().st_mtime_ns for path in run.samples_dir.glob("*.png")}
    made: list[int] = []
    again = generate(
        tiny_model,
        run,
        PROMPTS,
        SEEDS,
        steps=STEPS,
        batch_size=16,
        progress=lambda stage, done, total: made.append(done),
    )
    assert made == [46, 48]
    assert again.equals(finished_run.samples())
    changed = {path.stem for path in run.samples_dir.glob("*.png") if before.get(path) != path.stat().st_mtime_ns}
    assert changed == set(lost)
    assert torch.equal(run.trajectory(lost[1]).latents, finished_run.trajectory(lost[1]).latents)


@pytest.mark.parametrize("settings", [{"steps": 5}, {"guidance": 2.0}, {"height": 64}])
def test_a_run_is_not_mixed(
    tiny_model: Model, finished_run: Run, run_copy: Callable[[Run], Run], settings: dict
) -> None:
    run = run_copy(finished_run)
    with pytest.raises(HandscopeError, match="Use another run folder"):
        generate(tiny_model, run, PROMPTS, [99], **{"steps": STEPS, **settings})
    assert run.samples().equals(finished_run.samples())


def test_another_model_is_refused(tiny_pipe_folder: Path, finished_run: Run, run_copy: Callable[[Run], Run]) -> None:
    from handscope.extract.models import load

    with pytest.raises(HandscopeError, match=r"model\.dtype = float32, and now it is bfloat16"):
        generate(load(str(tiny_pipe_folder), dtype="bfloat16"), run_copy(finished_run), PROMPTS, SEEDS, steps=STEPS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": [2**32]}, "0 to 4294967295"),
        ({"seeds": [-1]}, "0 to 4294967295"),
        ({"seeds": [0.5]}, "whole number"),
        ({"seeds": []}, "at least one"),
        ({"prompts": []}, "at least one"),
        ({"prompts": ["  "]}, "a word in it"),
        ({"prompts": "a hand"}, "list of prompts"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"height": 30}, "multiple of 8"),
        ({"width": 0}, "multiple of 8"),
        ({"guidance": float("nan")}, "guidance"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_written(
    tiny_model: Model, tmp_path: Path, arguments: dict, message: str
) -> None:
    with pytest.raises(HandscopeError, match=message):
        generate(tiny_model, Run(tmp_path), **{"prompts": ["a hand"], "seeds": [0], **arguments})
    assert not list(tmp_path.iterdir())


def test_prompts_are_read_without_comments(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeff# hands\n\n a left hand \r\na “right” hand\n  # no\n".encode())
    assert read_prompts(path) == ["a left hand", "a “right” hand"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "at least one prompt"),
        (b"# only this\n", "at least one prompt"),
        (b"caf\xe9\n", "0xe9 at position 3"),
        (None, "could not be read"),
    ],
)
def test_a_bad_prompt_file_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HandscopeError, match=message):
        read_prompts(path)


def test_damaged_files_are_named_with_the_mend(finished_run: Run, run_copy: Callable[[Run], Run]) -> None:
    run = run_copy(finished_run)
    sample = sample_id(PROMPTS[0], 0)
    for path, read in ((run.image_path(sample), run.image), (run.trajectory_path(sample), run.trajectory)):
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(HandscopeError, match=f"{path.name} is damaged.*run generate again"):
            read(sample)
        path.unlink()
        with pytest.raises(HandscopeError, match=f"{path.name} is missing.*run generate again"):
            read(sample)
    run.metadata_path.write_text("{\n", encoding="utf-8")
    with pytest.raises(HandscopeError, match=r"metadata\.jsonl is damaged"):
        run.samples()


def test_a_trajectory_of_another_sample_is_refused(finished_run: Run, run_copy: Callable[[Run], Run]) -> None:
    run = run_copy(finished_run)
    one, other = sample_id(PROMPTS[0], 0), sample_id(PROMPTS[0], 1)
    run.trajectory_path(other).replace(run.trajectory_path(one))
    with pytest.raises(HandscopeError, match="belongs to another generation"):
        run.trajectory(one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "no/such/model"}, "There is no model"),
        ({"device": "cuda:99"}, "cannot be used"),
        ({"device": "gpu"}, "cannot be used"),
        ({"dtype": "float16"}, "float32, bfloat16"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused(tiny_pipe_folder: Path, arguments: dict, message: str) -> None:
    from handscope.extract.models import load

    with pytest.raises(HandscopeError, match=message):
        load(**{"name": str(tiny_pipe_folder), **arguments})


def test_truncated_weights_are_refused(tiny_pipe_folder: Path, tmp_path: Path) -> None:
    import shutil

    from handscope.extract.models import load

    folder = tmp_path / "pipe"
    shutil.copytree(tiny_pipe_folder, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(HandscopeError, match="could not be loaded"):
        load(str(folder))
