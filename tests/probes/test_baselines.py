"""Statistics of images, and the baselines of a run."""

import numpy as np
import pandas as pd
import pytest
from handscope.extract.picture_statistics import STATISTICS, decode, image_statistics
from handscope.probes.baselines import prompt_words, random_projection, run_baselines


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
    import torch

    samples = finished_run.samples()["sample"].tolist()[:3]
    latents = torch.stack([finished_run.trajectory(sample).latents[-1] for sample in samples])
    height, width = finished_run.samples().loc[0, ["height", "width"]].astype(int)
    images = decode(tiny_model, latents, height, width)
    assert images.shape == (3, height, width, 3)
    expected = np.stack([finished_run.image(sample) for sample in samples]) / 255
    np.testing.assert_allclose(images, expected, atol=1 / 255)


def test_baselines_of_a_run_read_the_hand_tokens(extracted_run):
    from handscope.extract.store.store import ActivationStore

    store = ActivationStore(extracted_run.activations_dir)
    samples = extracted_run.samples()[["sample", "prompt"]].iloc[::-1].head(6).reset_index(drop=True)
    steps = {step: store.plan.index(step) for step in store.plan.steps}
    index = pd.MultiIndex.from_product([samples["sample"], steps], names=["sample", "step"])
    statistics = pd.DataFrame(np.random.default_rng(0).random((18, 8)), index=index, columns=list(STATISTICS))
    tokens = store.tokens[store.tokens["sample"].isin(samples["sample"]) & (store.tokens["instance"] > 0)]
    found = {(b.name, b.step): b.x for b in run_baselines(extracted_run, samples, tokens, 4, steps, statistics)}
    assert len(found) == 4 + 4 * 3
    number, sample = 2, samples["sample"][2]
    own = tokens[tokens["sample"] == sample]
    mask = np.zeros(16, bool)
    mask[own["row"] * 4 + own["col"]] = True
    assert found["position", None][number].nonzero()[0].tolist() == mask.nonzero()[0].tolist()
    trajectory = extracted_run.trajectory(sample)
    np.testing.assert_allclose(found["noise", None][number], trajectory.latents[0][mask].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["x_t", 2][number], trajectory.latents[2][mask].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["x0", 2][number], trajectory.x0(2)[mask].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["x0_flat", 1][number], trajectory.x0(3).ravel(), rtol=1e-6)
    np.testing.assert_allclose(found["image", 1][number], statistics.loc[(sample, 1)])
