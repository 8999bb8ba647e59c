"""Generation: what a seed means, what a second call makes, what a trajectory holds."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.generate import generate
from handscope.models.model import Model, load
from handscope.run.folder import Run, sample_id
from handscope.run.prompts import own_seed, read_prompts
from made_tiny import PROMPTS, SEEDS, STEPS, named


def test_a_seed_means_the_image_of_the_bare_pipeline(tiny_model: Model, finished_run: Run) -> None:
    sample = named(PROMPTS[3], 2)
    image = tiny_model.pipe(
        PROMPTS[3],
        height=32,
        width=32,
        num_inference_steps=STEPS,
        guidance_scale=3.5,
        max_sequence_length=20,
        generator=torch.Generator().manual_seed(own_seed(PROMPTS[3], 2)),
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


def test_no_two_prompts_share_a_noise_unless_it_is_asked_for(
    tiny_model: Model, finished_run: Run, tmp_path: Path
) -> None:
    assert finished_run.samples()["noise_sha256"].is_unique
    shared = generate(tiny_model, Run(tmp_path), PROMPTS[:3], [4, 5], steps=STEPS, design="crossed")
    assert shared["seed"].tolist() == [4, 5] * 3
    assert shared.groupby("seed")["noise_sha256"].nunique().tolist() == [1, 1]
    later = generate(tiny_model, Run(tmp_path / "own"), PROMPTS[:1], [4], steps=STEPS).iloc[0]
    assert later["seed"] == own_seed(PROMPTS[0], 4) == own_seed(PROMPTS[0], 0) + 4
    assert own_seed("an open hand", 2**32 - 1) == own_seed("an open hand", 0) - 1  # it goes round


def test_a_trajectory_is_the_path_from_noise_to_the_image(tiny_model: Model, finished_run: Run) -> None:
    sample = named(PROMPTS[0], 0)
    path = finished_run.trajectory(sample)
    assert path.latents.shape == (STEPS + 1, 16, 16)
    decoded = tiny_model.decode(path.latents[-1:], 32, 32)[0].permute(1, 2, 0).numpy()
    assert np.abs(finished_run.image(sample) - decoded * 255).max() <= 0.51
    assert path.sigmas[0] == 1 and path.sigmas[-1] == 0
    assert torch.allclose(path.timesteps, path.sigmas[:-1] * 1000)
    assert torch.allclose(path.model_timesteps, path.timesteps)


def test_velocity_is_what_the_transformer_said(tiny_model: Model, finished_run: Run) -> None:
    sample = named(PROMPTS[0], 0)
    path = finished_run.trajectory(sample)
    with torch.no_grad():
        inputs = tiny_model.family.inputs(tiny_model, [PROMPTS[0]], 3.5, 32, 32)["calls"]["cond"]
        for i in range(STEPS):
            velocity = tiny_model.transformer(
                hidden_states=path.latents[i : i + 1], timestep=path.timesteps[i : i + 1] / 1000, **inputs
            )[0][0]
            assert torch.allclose(path.velocity(i), velocity, atol=1e-4)
            assert torch.allclose(path.x0(i), path.latents[i] - path.sigmas[i] * velocity, atol=1e-4)


def test_the_transformer_sees_rounded_timesteps_in_bfloat16(tiny_pipe_folder: Path, tmp_path: Path) -> None:
    from handscope.models.model import load

    run = Run(tmp_path)
    generate(load(str(tiny_pipe_folder), dtype="bfloat16"), run, PROMPTS[:1], [0], steps=STEPS)
    path = run.trajectory(named(PROMPTS[0], 0))
    assert path.latents.dtype == torch.bfloat16
    expected = (path.timesteps.bfloat16() / 1000) * 1000
    assert torch.equal(path.model_timesteps, expected.float())
    assert not torch.equal(path.model_timesteps, path.timesteps)


def test_a_second_call_makes_only_what_is_missing(
    tiny_model: Model, finished_run: Run, run_copy: Callable[[Run], Run]
) -> None:
    run = run_copy(finished_run)
    lost = [named(PROMPTS[0], 1), named(PROMPTS[7], 5)]
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
        progress=lambda stage, done, total: made.append(done) if stage == "generate" else None,
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
    from handscope.models.model import load

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
        ({"guidance": True}, "guidance"),
        ({"steps": True}, "steps"),
        ({"steps": 2.0}, "steps"),
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
    sample = named(PROMPTS[0], 0)
    for path, read in ((run.image_path(sample), run.image), (run.trajectory_path(sample), run.trajectory)):
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(HandscopeError, match=f"{path.name} is damaged: remove it and run generate again"):
            read(sample)
        path.unlink()
        with pytest.raises(HandscopeError, match=f"{path.name} is missing: run generate again"):
            read(sample)
    run.metadata_path.write_text("{\n", encoding="utf-8")
    with pytest.raises(HandscopeError, match=r"metadata\.jsonl is damaged"):
        run.samples()


def test_a_trajectory_of_another_sample_is_refused(finished_run: Run, run_copy: Callable[[Run], Run]) -> None:
    run = run_copy(finished_run)
    one, other = named(PROMPTS[0], 0), named(PROMPTS[0], 1)
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
    from handscope.models.model import load

    with pytest.raises(HandscopeError, match=message):
        load(**{"name": str(tiny_pipe_folder), **arguments})


def test_truncated_weights_are_refused(tiny_pipe_folder: Path, tmp_path: Path) -> None:
    import shutil

    from handscope.models.model import load

    folder = tmp_path / "pipe"
    shutil.copytree(tiny_pipe_folder, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(HandscopeError, match="could not be loaded"):
        load(str(folder))


# --- without trajectories, other sizes, and what a trajectory says of itself


def test_images_without_trajectories_are_the_same_and_trajectories_can_be_added(
    tiny_model: Model, finished_run: Run, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    settings = {"steps": STEPS, "batch_size": 16}
    few = generate(tiny_model, run, PROMPTS[:3], SEEDS, trajectories=False, **settings)
    expected = finished_run.samples().set_index("sample").loc[few["sample"]]
    assert few["image_sha256"].tolist() == expected["image_sha256"].tolist()
    assert not run.trajectories_dir.exists() and run.settings["generation"]["trajectories"] is False
    with pytest.raises(HandscopeError, match="is missing: run generate again with trajectories"):
        run.trajectory(few["sample"][0])

    run.image_path(few["sample"][4]).unlink()
    made: list[int] = []
    generate(
        tiny_model,
        run,
        PROMPTS[:3],
        SEEDS,
        trajectories=False,
        progress=lambda stage, done, total: made.append(done) if stage == "generate" else None,
        **settings,
    )
    assert made == [17, 18]

    again = generate(tiny_model, run, PROMPTS[:3], SEEDS, **settings)
    assert again["image_sha256"].tolist() == few["image_sha256"].tolist()
    assert run.settings["generation"]["trajectories"] is True
    for sample in few["sample"][::7]:
        assert torch.equal(run.trajectory(sample).latents, finished_run.trajectory(sample).latents)


@pytest.mark.parametrize(("height", "width"), [(24, 40), (64, 16)])
def test_any_size_of_whole_tokens(tiny_model: Model, tmp_path: Path, height: int, width: int) -> None:
    run = Run(tmp_path)
    row = generate(tiny_model, run, PROMPTS[:1], [3], steps=2, height=height, width=width).iloc[0]
    assert (row["height"], row["width"]) == (height, width)
    assert run.image(row["sample"]).shape == (height, width, 3)
    path = run.trajectory(row["sample"])
    assert path.latents.shape == (3, height * width // 64, 16)
    assert torch.equal(path.sigmas, tiny_model.family.schedule(tiny_model.pipe, 2, height, width)[0])
    decoded = tiny_model.decode(path.latents[-1:], height, width)[0].permute(1, 2, 0).numpy()
    assert np.abs(run.image(row["sample"]) - decoded * 255).max() <= 0.51


def test_a_pipeline_call_with_a_prompt_goes_on_working(tiny_pipe_folder: Path, tmp_path: Path) -> None:
    from handscope.models.model import load

    call = {"num_inference_steps": 2, "height": 32, "width": 32, "max_sequence_length": 20, "output_type": "np"}
    images = []
    model = load(str(tiny_pipe_folder))
    for _ in range(2):
        images.append(model.pipe(PROMPTS[5], generator=torch.Generator().manual_seed(1), **call).images)
        generate(model, Run(tmp_path), PROMPTS[:2], [0], steps=2)
        model.release()
    assert np.array_equal(*images)


@pytest.mark.parametrize("key", ["weight_hash", "height", "width", "scheduler", "noise_sha256", "sample"])
def test_a_trajectory_of_something_else_is_refused(finished_run: Run, run_copy: Callable[[Run], Run], key: str) -> None:
    run = run_copy(finished_run)
    sample = named(PROMPTS[0], 0)
    metadata = run.trajectory_metadata(run.metadata()[sample])
    assert metadata.keys() == {"sample", "noise_sha256", "weight_hash", "height", "width", "scheduler"}
    path = run.trajectory(sample)
    path.save(run.trajectory_path(sample), metadata | {key: "another"})
    with pytest.raises(HandscopeError, match=f"expected {key} = .*, found another"):
        run.trajectory(sample)
    del metadata[key]
    path.save(run.trajectory_path(sample), metadata)
    with pytest.raises(HandscopeError, match=f"expected {key} = .*, found None"):
        run.trajectory(sample)


def test_a_trajectory_of_the_first_version_is_held_to_its_sample_and_noise(
    finished_run: Run, run_copy: Callable[[Run], Run]
) -> None:
    run = run_copy(finished_run)
    sample = named(PROMPTS[0], 0)
    path, row = run.trajectory(sample), run.metadata()[sample]
    path.save(run.trajectory_path(sample), {"sample": sample, "noise_sha256": row["noise_sha256"]})
    assert torch.equal(run.trajectory(sample).latents, path.latents)
    path.save(run.trajectory_path(sample), {"sample": sample, "noise_sha256": "another"})
    with pytest.raises(HandscopeError, match="belongs to another generation"):
        run.trajectory(sample)


def test_another_scheduler_is_not_mixed_in(
    tiny_pipe_folder: Path, finished_run: Run, run_copy: Callable[[Run], Run]
) -> None:
    from handscope.models.model import load

    model = load(str(tiny_pipe_folder))
    model.pipe.scheduler = type(model.pipe.scheduler).from_config(model.pipe.scheduler.config, max_shift=2.0)
    with pytest.raises(HandscopeError, match=r"generation\.scheduler = FlowMatch.*Use another run folder"):
        generate(model, run_copy(finished_run), PROMPTS, SEEDS, steps=STEPS)


def test_settings_of_model_and_generation_stay_when_some_are_written(finished_run: Run, run_copy: Callable) -> None:
    run = run_copy(finished_run)
    before = run.settings
    run.write_settings({"model": {"dtype": "float32"}, "note": {"a": 1}})
    assert run.settings == before | {"note": {"a": 1}}
    run.write_settings({"note": {"b": 2}})
    assert run.settings["note"] == {"b": 2}


# --- two processes, killed processes


def test_two_processes_do_not_generate_into_one_run(tiny_model: Model, finished_run: Run, run_copy: Callable) -> None:
    run = run_copy(finished_run)
    with (
        Run(run.path).writing_samples(),
        pytest.raises(HandscopeError, match="Another process is generating into .*use another run folder"),
    ):
        generate(tiny_model, run, PROMPTS, [*SEEDS, 77], steps=STEPS)
    assert run.samples().equals(finished_run.samples())
    assert len(generate(tiny_model, run, PROMPTS[:1], [77], steps=STEPS)) == 1


def test_what_a_killed_process_left_is_cleared_away(tiny_model: Model, finished_run: Run, run_copy: Callable) -> None:
    run = run_copy(finished_run)
    sample = named(PROMPTS[0], 0)
    left = [
        run.samples_dir / f".{sample}.0a1b2c3d.tmp.png",
        run.samples_dir / ".metadata.0a1b2c3d.tmp.jsonl",
        run.trajectories_dir / f".{sample}.0a1b2c3d.tmp.safetensors",
    ]
    for path in left:
        path.write_bytes(b"half")
    whole = {path for path in run.path.rglob("*") if path not in left}
    with run.writing_samples(), pytest.raises(HandscopeError), Run(run.path).writing_samples():
        pass
    assert not any(path.exists() for path in left)
    assert whole <= set(run.path.rglob("*"))


def test_where_there_are_no_locks_nothing_is_cleared(run_copy: Callable, finished_run: Run, monkeypatch) -> None:
    import fcntl

    from handscope.run import folder as module

    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    run = run_copy(finished_run)
    left = run.samples_dir / ".a.tmp.png"
    left.write_bytes(b"another machine's, perhaps")
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with run.writing_samples():
        assert left.exists()
    monkeypatch.setattr(module, "fcntl", None)
    with run.writing_samples():
        assert left.exists()


def test_numbers_of_numpy_are_pythons_own(tiny_model: Model, tmp_path: Path) -> None:
    one, side = np.int64(1), np.int32(32)
    given = {"steps": np.int64(2), "batch_size": one, "height": side, "width": side, "guidance": np.float32(3.5)}
    made = generate(tiny_model, Run(tmp_path / "a"), PROMPTS[:1], np.arange(1), **given)
    plain = generate(tiny_model, Run(tmp_path / "b"), PROMPTS[:1], [0], steps=2, batch_size=1, guidance=3.5)
    assert made.equals(plain) and Run(tmp_path / "a").settings == Run(tmp_path / "b").settings


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_a_seed_does_not_hear_of_torchs_default_dtype(tiny_model: Model, tmp_path: Path, default: torch.dtype) -> None:
    wanted = generate(tiny_model, Run(tmp_path / "a"), PROMPTS[:1], [0], steps=2)
    torch.set_default_dtype(default)
    try:
        found = generate(tiny_model, Run(tmp_path / "b"), PROMPTS[:1], [0], steps=2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.equals(wanted)
    path = Run(tmp_path / "b").trajectory(found["sample"][0])
    assert path.model_timesteps.dtype == torch.float32


def test_a_seed_does_not_hear_of_torchs_default_device(tiny_model: Model) -> None:
    wanted = tiny_model.noise(5, 32, 32)
    torch.set_default_device("meta")
    try:
        found = tiny_model.noise(5, 32, 32)
    finally:
        torch.set_default_device(None)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("trajectories", [True, False])
def test_what_is_not_numbers_is_refused_at_the_first_batch_with_its_step(
    tiny_pipe_folder: Path, tmp_path: Path, trajectories: bool
) -> None:
    model, calls = load(str(tiny_pipe_folder)), []

    def spoil(module: object, args: object, output: tuple) -> tuple:
        calls.append(len(output[0]))
        if len(calls) == 3:
            output[0][1] = float("nan")
        return output

    model.transformer.register_forward_hook(spoil)
    run = Run(tmp_path)
    with pytest.raises(HandscopeError, match=f"step 2 of 4, 1 of 2 samples are not numbers .* of '{PROMPTS[1]}'"):
        generate(model, run, PROMPTS, [0], steps=4, batch_size=2, trajectories=trajectories)
    assert len(calls) == 3 and run.samples().empty and not list(run.samples_dir.glob("*.png"))


def test_a_decoder_that_gives_no_numbers_is_named(tiny_pipe_folder: Path, tmp_path: Path) -> None:
    model = load(str(tiny_pipe_folder))
    with torch.no_grad():
        model.pipe.vae.decoder.conv_out.bias.fill_(float("inf"))
        model.pipe.vae.decoder.conv_out.weight.fill_(float("nan"))
    with pytest.raises(HandscopeError, match="After the decoder, 1 of 1 samples are not numbers"):
        generate(model, Run(tmp_path), PROMPTS[:1], [0], steps=1)
