"""Which samples an analysis takes: enough, surely labelled, no noise under two prompts, and no picture twice."""

import pandas as pd
import pytest
from handscope.errors import HandscopeError
from handscope.labeling.table import labelled


def table(prompts: int = 5, of_each: int = 4) -> pd.DataFrame:
    rows = [
        {
            "sample": f"p{p}-{i}",
            "prompt": f"p{p}",
            "verdict": ("good", "bad")[i % 2],
            "bad": i % 2,
            "noise_sha256": f"{p}-{i}",
            "image_sha256": f"picture {p}-{i}",
        }
        for p in range(prompts)
        for i in range(of_each)
    ]
    return pd.DataFrame(rows)


def test_a_noise_under_two_prompts_is_refused() -> None:
    rows = table()
    assert len(labelled(rows, "sure", 5, "here")) == 20
    rows.loc[7, "noise_sha256"] = rows.loc[0, "noise_sha256"]
    with pytest.raises(HandscopeError, match="1 initial noises of here were drawn with more than one prompt"):
        labelled(rows, "sure", 5, "here")
    rows["noise_sha256"] = ""  # not known: nothing can be said
    assert len(labelled(rows, "sure", 5, "here")) == 20


def test_the_same_noise_twice_under_one_prompt_stays_in_one_fold() -> None:
    rows = table()
    rows.loc[1, "noise_sha256"] = rows.loc[0, "noise_sha256"]
    assert len(labelled(rows, "sure", 5, "here")) == 20


def test_copies_of_a_picture_are_refused() -> None:
    for copy in (1, 7):  # under the same prompt, and under another one
        rows = table()
        rows.loc[copy, "image_sha256"] = rows.loc[0, "image_sha256"]
        with pytest.raises(HandscopeError, match=f"1 pictures of here .*p0-0 and {rows['sample'][copy]} are one"):
            labelled(rows, "sure", 5, "here")
        rows.loc[copy, "verdict"] = "unsure"
        assert len(labelled(rows, "sure", 5, "here")) == 19
    rows["image_sha256"] = ""  # not known: nothing can be said
    assert len(labelled(rows, "sure", 5, "here")) == 19


def test_too_few_are_refused() -> None:
    with pytest.raises(HandscopeError, match="at least 5 good and 5 bad samples of 6 or more prompts"):
        labelled(table(), "sure", 6, "here")
    with pytest.raises(HandscopeError, match="2 good and 2 bad"):
        labelled(table(2, 2), "sure", 2, "here")
