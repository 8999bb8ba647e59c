"""What grows from a click: the tokens of one colour that hang together."""

import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.labeling.order import make_order
from handscope.labeling.server.session import Session
from handscope.labeling.suggestions.region import region
from hypothesis import given
from hypothesis import strategies as st


def picture(mask: np.ndarray, inside, outside, side: int = 4) -> np.ndarray:
    colours = np.where(mask[..., None], inside, outside).astype(np.uint8)
    return np.kron(colours, np.ones((side, side, 1), np.uint8))


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3), st.integers(0, 3))
def test_a_box_of_another_colour_is_found_whole(height, width, top, left):
    mask = np.zeros((10, 12), bool)
    mask[top : top + height, left : left + width] = True
    image = picture(mask, (200, 150, 120), (40, 60, 160))
    assert (region(image, mask.shape, top, left) == mask).all()
    assert (region(image, mask.shape, 9, 11) == ~mask).all()


def test_another_part_of_the_same_colour_is_left_out_and_shadows_are_not():
    mask = np.zeros((12, 12), bool)
    mask[1:5, 1:5] = mask[8:11, 8:11] = True
    image = picture(mask, (200, 150, 120), (40, 160, 60)).astype(float)
    image[:, ::2] *= 0.9
    found = region(image.astype(np.uint8), mask.shape, 2, 2)
    assert found[1:5, 1:5].all() and found.sum() == 16


def test_a_network_takes_its_place_and_is_held_to_the_grid(finished_run):
    order = make_order(finished_run, "random")
    sample = order.samples[0]

    def nothing(image, shape, row, column):
        return np.zeros(shape)

    assert not Session(finished_run, order, grow=nothing).grown(sample, 0, 0).any()
    for grow, cell, said in (
        (lambda *_: np.zeros((2, 2)), (0, 0), "mask of 4 by 4 tokens"),
        (nothing, (4, 0), "row 4"),
        (nothing, (0, -1), "column -1"),
    ):
        with pytest.raises(HandscopeError, match=said):
            Session(finished_run, order, grow=grow).grown(sample, *cell)
