"""Given pictures: encoded, put under noise, and read at the noise levels of a generation."""

import json
import shutil
from pathlib import Path

import handscope as hs
import numpy as np
import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from handscope import figures
from handscope.analysis import analyze
from handscope.errors import HandscopeError
from handscope.evaluation.commitment import Region, commit
from handscope.extract.estimate import estimate
from handscope.extract.given import read_given, seeds_of
from handscope.extract.survey.survey import survey
from handscope.labeling.database.labels import Labels
from handscope.labeling.exchange.pictures import import_pictures
from handscope.models.clean import KINDS, noised, predicted_clean
from handscope.probes import probe
from handscope.report.page import report
from handscope.run.folder import Run
from made_tiny import STEPS
from PIL import Image

PLAN = hs.Plan(["double.1", "single.2"], [4, 1], of=STEPS)
WANTED = {"steps": STEPS, "batch_size": 8}


def folder_of(run: Run, into: Path, samples: int = 48) -> Path:
    """Pictures of a drawn run in an imagefolder, with its labels: a box and a verdict."""
    into.mkdir()
    lines = []
    labels = Labels(run.labels_path).current()
    for sample, row in list(run.metadata().items())[:samples]:
        shutil.copy(run.image_path(sample), into)
        rows, columns = (8 * axis for axis in labels[sample].instances.nonzero())
        box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 8, int(np.ptp(rows)) + 8]
        said = {"file_name": row["file_name"], "prompt": row["prompt"], "verdict": labels[sample].verdict}
        lines.append(json.dumps(said | {"objects": {"bbox": [box]}}))
    (into / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return into


@pytest.fixture(scope="module")
def given_run(tiny_model, finished_run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The pictures of `finished_run` as given ones, with its labels; nothing is extracted yet."""
    run = Run(tmp_path_factory.mktemp("given") / "run")
    folder = folder_of(finished_run, run.path.parent / "pictures")
    done = import_pictures(tiny_model, run, folder, **WANTED)
    assert done.added == done.labels == 48 and not done.left_out
    return run


@pytest.mark.parametrize("kind", KINDS)
def test_noise_on_clean_latents_is_what_the_clean_prediction_takes_off(kind: str) -> None:
    clean, epsilon = torch.randn(2, 3, 5, dtype=torch.float64)
    signal = 0.3 if kind == "flow" else (1 - 0.7**2) ** 0.5
    output = {"flow": epsilon - clean, "epsilon": epsilon, "v": signal * epsilon - 0.7 * clean}[kind]
    assert torch.allclose(predicted_clean(noised(clean, epsilon, kind, 0.7), output, kind, 0.7), clean)


def test_encoding_undoes_decoding_where_the_autoencoder_can(tiny_model) -> None:
    """The tiny autoencoder is random, so the order of channels and tokens is tried on one that copies its input."""
    vae = tiny_model.pipe.vae
    picture = torch.rand(1, 3, 32, 48)

    class Copies:
        config, dtype = vae.config, torch.float32

        def encode(self, images: torch.Tensor) -> object:
            small = torch.nn.functional.avg_pool2d(images, 4)
            mode = torch.cat([small, small[:, :1]], 1) * 0.5 + 0.25
            return type("Encoded", (), {"latent_dist": type("Dist", (), {"mode": staticmethod(lambda: mode)})})

        def decode(self, latents: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
            return (torch.nn.functional.interpolate((latents[:, :3] - 0.25) / 0.5, scale_factor=4),)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_model.pipe, "vae", Copies())
        patch.setattr(Copies, "config", FrozenDict(scaling_factor=1.7, shift_factor=-0.4))
        latents = tiny_model.encode_image(picture)
        again = tiny_model.decode(latents, 32, 48)
    blurred = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(picture, 4), scale_factor=4)
    assert latents.shape == (1, 24, 16)
    torch.testing.assert_close(again, blurred)


@pytest.mark.parametrize("noises", [1, 3])
def test_activations_are_those_of_the_noised_latents_by_the_slow_way(
    noises: int, tiny_model, finished_run, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    folder = folder_of(finished_run, tmp_path / "pictures", 5)
    import_pictures(tiny_model, run, folder, noises=noises, **WANTED)
    store = hs.extract(tiny_model, run, PLAN, tokens="all")
    family, times = tiny_model.family, tiny_model.family.schedule(tiny_model.pipe, STEPS, 32, 32)
    for sample, row in run.metadata().items():
        image = torch.tensor(run.image(sample)).permute(2, 0, 1)[None] / 255
        clean = tiny_model.encode_image(image)
        inputs = family.inputs(tiny_model, [row["prompt"]], row["guidance"], 32, 32)
        for step in PLAN.steps:
            index = STEPS - step
            expected, noisy = [], []
            for seed in seeds_of(row):
                sigma = times.sigmas[index]
                x = (1 - sigma) * clean + sigma * tiny_model.noise(seed, 32, 32)
                bare = hs.Plan(PLAN.blocks, [1], of=1)
                with torch.no_grad(), hs.capture(tiny_model.transformer, bare) as seen:
                    family.call(tiny_model.transformer, x, times.timesteps[index], inputs)
                expected.append(seen["single.2", 1][0])
                noisy.append(x[0])
            found, tokens = store.read("single.2", step)
            own = found[(tokens["sample"] == sample).to_numpy()]
            torch.testing.assert_close(torch.from_numpy(own), torch.stack(expected).mean(0), rtol=0.01, atol=0.01)
            torch.testing.assert_close(run.latents(sample).noisy(index), torch.stack(noisy).mean(0))
        assert len(set(seeds_of(row))) == noises


def test_every_picture_has_noise_of_its_own_and_is_one_sample(given_run) -> None:
    table = given_run.samples()
    assert table["noise_sha256"].is_unique and table["seed"].is_unique and len(table) == 48
    assert table["prompt"].nunique() == 8  # of one prompt, one group
    assert table["sample"].str.partition("-")[0].nunique() == 8


def test_all_that_follows_works_as_on_drawn_samples(
    tiny_model, given_run, run_copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpainted(drawn: object, folder: Path, name: str) -> Path:
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (1, 1)).save(folder / f"{name}.png")
        return folder / f"{name}.png"

    monkeypatch.setattr(figures, "save", unpainted)
    run = run_copy(given_run)
    plan = hs.Plan(["single.2"], [2], of=STEPS)
    store = hs.extract(tiny_model, run, plan)
    assert len(store.samples) == 48 and not run.trajectories_dir.exists()
    cells = analyze(run, permutations=3, folds=2)
    probes = probe(run, permutations=3, folds=2)
    assert len(cells) == 1 and len(probes) == 2
    page = report(run).read_text(encoding="utf-8")
    assert "The pictures were given" in page
    shards = {path: path.stat().st_mtime_ns for path in run.activations_dir.glob("shards/*.h5")}
    hs.extract(tiny_model, run, plan)
    assert shards == {path: path.stat().st_mtime_ns for path in run.activations_dir.glob("shards/*.h5")}


def test_a_survey_reads_them_too(tiny_model, given_run, run_copy) -> None:
    run = run_copy(given_run)
    store = survey(tiny_model, run)
    assert store is not None
    plan = hs.Plan(["single.2"], [2], of=STEPS)
    rows = list(run.metadata().values())[:8]
    seen, _ = read_given(tiny_model, run, plan, rows)
    names = [row["sample"] for row in rows]
    means = {str(cell): mean for cell, mean, _ in store.read(names)}["single.2/2"]
    for i, sample in enumerate(names):
        tokens = Labels(run.labels_path).current()[sample].instances.ravel() > 0
        expected = seen["single.2", 2][i][torch.from_numpy(tokens)].mean(0)
        torch.testing.assert_close(torch.from_numpy(means[i]), expected, rtol=1e-4, atol=1e-5)


def test_a_dry_run_counts_a_forward_for_each_noise(tiny_model, finished_run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    import_pictures(tiny_model, run, folder_of(finished_run, tmp_path / "pictures", 5), noises=3, **WANTED)
    road = estimate(tiny_model, run, PLAN, tokens="all").roads[0]
    assert (road.name, road.samples, road.calls) == ("noised", 5, 6)
    assert not run.noised_dir.exists()


def test_what_needs_a_path_refuses_given_pictures(tiny_model, given_run, extracted_run, tmp_path: Path) -> None:
    with pytest.raises(HandscopeError, match="were given, and no generation drew them: generate is of drawn samples"):
        hs.generate(tiny_model, given_run, ["a hand"], [0], steps=STEPS)
    with pytest.raises(HandscopeError, match="when it was decided is of drawn samples"):
        commit(tiny_model, given_run, [Region("all", "px", (1.0,), lambda pictures: pictures)])
    with pytest.raises(HandscopeError, match="holds samples that a model drew"):
        import_pictures(tiny_model, extracted_run, folder_of(extracted_run, tmp_path / "pictures", 2))


def test_another_picture_in_its_place_is_refused(tiny_model, given_run, run_copy) -> None:
    run = run_copy(given_run)
    one, other = list(run.metadata())[:2]
    shutil.copy(run.image_path(other), run.image_path(one))
    with pytest.raises(HandscopeError, match="is not the one that was given .* remove it and import it again"):
        hs.extract(tiny_model, run, PLAN)
