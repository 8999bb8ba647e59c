"""A generation step by step is the pipeline's."""

import numpy as np
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.extract.generate import draw
from handscope.models.model import Model, load
from handscope.models.sampling import Sampling

PROMPTS = ["a left hand, palm view, five fingers raised", "a right hand, back view, five fingers raised"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_have_the_bits_of_the_pipeline(tiny_pipe_folder, dtype: str) -> None:
    model: Model = load(str(tiny_pipe_folder), dtype=dtype)
    drawn = draw(model, list(zip(PROMPTS, (3, 4))), 5, 2.5, 32, 48)
    sampling = Sampling(model, 5, 2.5, 32, 48)
    x = sampling.noise([3, 4])
    for index in range(5):
        assert torch.equal(x, torch.stack([path.latents[index] for path in drawn.trajectories]))
        before = x
        x, velocity = sampling.step(x, PROMPTS, index)
        clean = sampling.clean(before, velocity, index)
        implied = torch.stack([path.x0(index) for path in drawn.trajectories])
        tolerance = 1e-4 if dtype == "float32" else 0.2  # what bfloat16 latents still say of the velocity
        torch.testing.assert_close(clean, implied, rtol=tolerance, atol=tolerance)
    assert torch.equal(x, torch.stack([path.latents[5] for path in drawn.trajectories]))
    assert np.array_equal(sampling.images(x), drawn.images)
    assert sampling.calls == 10


def test_an_index_beyond_the_end_is_refused(tiny_model) -> None:
    sampling = Sampling(tiny_model, 2)
    with pytest.raises(HandscopeError, match="0 to 1"):
        sampling.step(sampling.noise([0]), PROMPTS[:1], 2)
