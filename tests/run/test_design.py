"""Which noises prompts share: own, paired and crossed are seen, anything else is refused."""

import pandas as pd
import pytest
from handscope.errors import HandscopeError
from handscope.run.design import Design, design_of, difference, noise_owners
from hypothesis import given
from hypothesis import strategies as st


def samples(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["prompt", "noise_sha256"])


def crossed(prompts: str, noises: str) -> list[tuple[str, str]]:
    return [(prompt, noise) for prompt in prompts for noise in noises]


def test_designs_are_seen_from_the_noises() -> None:
    assert design_of(samples(("a", "1"), ("a", "2"), ("b", "3"))) == Design("own")
    assert design_of(samples(*crossed("ba", "123"))) == Design("paired", (("b", "a"),))
    several = samples(*crossed("ab", "12"), *crossed("cd", "345"))
    assert design_of(several) == Design("paired", (("a", "b"), ("c", "d")))
    assert design_of(samples(*crossed("abc", "12"))) == Design("crossed")
    assert design_of(samples(("a", ""), ("b", ""), ("a", "1"))) == Design("own")  # nothing is known of them


@pytest.mark.parametrize(
    "rows",
    [
        [("a", "1"), ("b", "1"), ("a", "2"), ("b", "3")],  # one noise shared, the others not
        [*crossed("abc", "12"), ("a", "3")],
        [*crossed("ab", "1"), *crossed("bc", "2")],  # a chain of pairs
        [*crossed("ab", "1"), *crossed("cde", "2")],
    ],
)
def test_noises_that_are_shared_in_part_are_refused(rows: list[tuple[str, str]]) -> None:
    with pytest.raises(HandscopeError, match=r"of here were drawn with more than one prompt each, and neither"):
        design_of(samples(*rows), "here")


@given(st.permutations(crossed("abcd", "123")), st.integers(0, 11))
def test_a_crossing_lacks_no_sample(rows: list[tuple[str, str]], missing: int) -> None:
    assert design_of(samples(*rows)).kind == "crossed"
    with pytest.raises(HandscopeError):
        design_of(samples(*rows[:missing], *rows[missing + 1 :]))


def test_owners_of_noises() -> None:
    assert noise_owners("ab", None) == noise_owners("ab", "own") == {"a": "a", "b": "b"}
    assert noise_owners("abc", "crossed") == {"a": None, "b": None, "c": None}
    assert noise_owners("ab", "paired") == {"a": "a", "b": "a"}
    assert noise_owners("abcd", None, ["ab", "dc"]) == {"a": "a", "b": "a", "d": "d", "c": "d"}
    for prompts, pairs, said in (
        ("abc", [], "pairs of two prompts, found one of 3"),
        ("abc", ["ab"], "every prompt in one pair, found otherwise for 'c'"),
        ("abc", ["ab", "bc"], "every prompt in one pair, found otherwise for 'b'"),
    ):
        with pytest.raises(HandscopeError, match=said):
            noise_owners(prompts, "paired", pairs)
    with pytest.raises(HandscopeError, match="the design is crossed"):
        noise_owners("ab", "crossed", ["ab"])
    with pytest.raises(HandscopeError, match="a design of own, paired, crossed, found 'shared'"):
        noise_owners("ab", "shared")


def test_what_differs_between_prompts() -> None:
    assert difference("a hand, two fingers raised", "a hand, three fingers raised") == [("two", "three")]
    assert difference("a red hat", "a hat at night") == [("red", ""), ("", "at night")]
    assert difference("a hat", "a hat") == []
