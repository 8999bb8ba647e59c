"""Statistics of images, and the baselines of a run."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from handscope.extract.picture_statistics import STATISTICS, decode, image_statistics
from handscope.probes.baselines import prompt_words, random_projection, run_baselines
from handscope.run.trajectory import Trajectory
from made_runs import make_run


def square(side, colour=(1.0, 0.5, 0.0), background=(0.0, 0.0, 1.0)):
    image = np.tile(np.array(background), (32, 32, 1))
    start = 16 - side // 2
    image[start : start + side, start : start + side] = colour
    return image


def test_statistics_of_an_image_whose_answer_is_known():
    found = dict(zip(STATISTICS, image_statistics(square(16)[None])[0], strict=True))
    assert found["area"] == 0.25
    assert found["difference"] == pytest.approx(np.sqrt(1 + 0.25 + 1))
    light, dark = 0.299 + 0.5 * 0.587, 0.114
    assert found["brightness"] == pytest.approx(0.25 * light + 0.75 * dark)
    assert found["contrast"] == pytest.approx((light - dark) * np.sqrt(0.25 * 0.75))
    assert [found[f"background_{c}"] for c in ("red", "green", "blue")] == [0, 0, 1]
    assert found["gradient"] > 0


def test_statistics_follow_what_they_are_named_for():
    small, large, flat = image_statistics(np.stack([square(8), square(20), square(0)]))
    assert large[0] > small[0] and flat[3] == 0 and flat[1] == pytest.approx(0, abs=1e-12)
    assert np.isfinite(flat).all()


def test_prompt_words_leave_out_what_all_prompts_say():
    table = prompt_words(["a left hand, palm", "a right hand, palm", "a left hand, back"])
    assert table.shape == (3, 4)
    assert sorted(map(tuple, table.T)) == [(0, 0, 1), (0, 1, 0), (1, 0, 1), (1, 1, 0)]
    assert prompt_words(["a hand"] * 3).shape == (3, 1)


def test_a_random_projection_is_the_same_every_time():
    x = np.random.default_rng(0).normal(size=(10, 5)) * [1, 1, 0, 100, 1]
    assert random_projection(x).shape == (10, 1)
    np.testing.assert_array_equal(random_projection(x), random_projection(x))
    assert not np.allclose(random_projection(x), random_projection(x, seed=1))


def test_decoding_the_last_latents_gives_the_images_of_the_run(tiny_model, finished_run):
    samples = finished_run.samples()["sample"].tolist()[:3]
    latents = torch.stack([finished_run.trajectory(sample).latents[-1] for sample in samples])
    height, width = finished_run.samples().loc[0, ["height", "width"]].astype(int)
    images = decode(tiny_model, latents, height, width)
    assert images.shape == (3, height, width, 3)
    expected = np.stack([finished_run.image(sample) for sample in samples]) / 255
    np.testing.assert_allclose(images, expected, atol=1 / 255)


def test_baselines_of_a_planted_run_are_those_of_the_tokens_inside_the_mask(tmp_path):
    """Token k of sample s holds k + 32 s as noise, and that and 64 more as clean latents, on a straight line between.

    All of these numbers are whole and small, so that bfloat16 keeps them.
    """
    run = make_run(tmp_path / "run", 6, side=32)  # 4 by 4 tokens
    samples = run.samples()[["sample", "prompt"]].iloc[::-1].head(4).reset_index(drop=True)
    steps, sigmas = {4: 0, 2: 2, 1: 3}, torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    rng, inside = np.random.default_rng(0), {}
    planted = {}
    for number, sample in enumerate(samples["sample"]):
        inside[sample] = np.sort(rng.choice(16, 3 + number, replace=False))
        noise = (torch.arange(16.0) + 32 * number)[:, None].expand(16, 2)
        latents = noise + 64 * (1 - sigmas)[:, None, None]
        times = sigmas[:4] * 1000
        planted[sample] = Trajectory(latents.to(torch.bfloat16), sigmas, times, times)
    planted_run = SimpleNamespace(latents=planted.__getitem__, image=run.image, metadata=run.metadata)
    tokens = pd.DataFrame(
        [{"unit": n, "row": k // 4, "col": k % 4} for n, chosen in enumerate(inside.values()) for k in chosen]
    )
    index = pd.MultiIndex.from_product([samples["sample"], steps], names=["sample", "step"])
    statistics = pd.DataFrame(rng.random((12, 8)), index=index, columns=list(STATISTICS))
    shuffled = tokens.sample(frac=1, random_state=0)
    found = {(b.name, b.step): b.x for b in run_baselines(planted_run, samples, shuffled, 4, steps, statistics)}
    assert len(found) == 4 + 4 * 3
    for number, (sample, chosen) in enumerate(inside.items()):
        mean = chosen.mean() + 32 * number
        assert found["position", None][number].nonzero()[0].tolist() == chosen.tolist()
        assert found["noise", None][number] == pytest.approx([mean, mean])
        for step in steps:
            done = 64 * (1 - step / 4)
            assert found["x_t", step][number] == pytest.approx([mean + done] * 2)
            assert found["x0", step][number] == pytest.approx([mean + 64] * 2, abs=1e-3)
            flat = np.repeat(np.arange(16) + 32 * number + 64, 2)
            np.testing.assert_allclose(found["x0_flat", step][number], flat, atol=1e-3)
            np.testing.assert_array_equal(found["image", step][number], statistics.loc[(sample, step)])
        own = image_statistics(run.image(sample)[None] / 255)[0]
        np.testing.assert_allclose(found["final_image", None][number], own)
