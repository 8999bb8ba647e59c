"""A published table against its own numbers, and counts against scipy and statsmodels."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.claims.tables import read_published, rederive
from handscope.errors import HandscopeError
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from statsmodels.stats.contingency_tables import Table2x2


@pytest.fixture(scope="module")
def shipped() -> pd.DataFrame:
    return rederive(read_published()).set_index("quantity")


def test_what_the_shipped_table_implies(shipped: pd.DataFrame) -> None:
    """Worked out by hand from the printed rows."""
    value = shipped["value"]
    assert value["mean rate, Diffusion"] == pytest.approx(38.72)
    assert value["mean rate, GAN"] == pytest.approx(9.40)
    assert value["odds ratio of mean rates"] == pytest.approx(6.08, abs=0.01)
    assert value["ratio of mean rates"] == pytest.approx(4.119, abs=0.001)
    assert value["reduction"] == pytest.approx(51.2, abs=0.05)
    assert value["reduction of the means"] == pytest.approx(51.2, abs=0.05)
    assert value["mean fid, lower by"] == pytest.approx(29.3, abs=0.05)
    assert value["mean count, by rate"] == pytest.approx(24.1, abs=0.05)
    assert value["mean proportion, all rows"] == pytest.approx(52.6, abs=0.05)
    assert value["agreement by chance behind kappa"] == pytest.approx(0.517, abs=0.001)
    assert value["rate behind the flags, Diffusion"] == pytest.approx(37.2, abs=0.1)
    assert value["rate behind the flags, GAN"] == pytest.approx(4.1, abs=0.1)
    assert shipped.loc["odds ratio of mean rates", ["lo", "hi"]].tolist() == pytest.approx([5.68, 6.52], abs=0.02)
    assert value["design effect of the printed interval"] == pytest.approx(3.2, abs=0.1)


def test_where_the_shipped_table_does_not_add_up(shipped: pd.DataFrame) -> None:
    wrong = set(shipped.index[shipped["agrees"].map(lambda one: one is False)])
    assert wrong == {
        "odds ratio, lower bound", "odds ratio, upper bound", "mean fid, lower by", "mean count, Diffusion",
        "mean joint, Diffusion", "mean proportion, Diffusion", "reduction", "reduction, lower bound",
        "reduction, upper bound",
    }  # fmt: skip
    assert shipped.loc[["mean rate, GAN", "ratio of mean rates", "mean before", "mean after"], "agrees"].all()


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=2, max_size=2))
def test_counts_give_the_odds_ratio_of_statsmodels_and_the_test_of_scipy(cells: list[tuple[int, int]]) -> None:
    (a, b), (c, d) = cells
    if a / (a + b) < c / (c + d):
        (a, b), (c, d) = (c, d), (a, b)
    rows = pd.DataFrame({"group": ["x", "y"], "name": ["p", "q"], "n": [a + b, c + d], "bad": [a, c]})
    from handscope.claims.tables import Published

    table = rederive(Published(rows.assign(rate=100 * rows["bad"] / rows["n"]), ("x", "y"))).set_index("quantity")
    expected = Table2x2(np.array([[a, b], [c, d]]))
    assert table.loc["odds ratio", ["value", "lo", "hi"]].tolist() == pytest.approx(
        [expected.oddsratio, *expected.oddsratio_confint()]
    )
    assert table.loc["p of Fisher's exact test", "value"] == pytest.approx(fisher_exact([[a, b], [c, d]])[1])


def test_any_csv_of_counts_can_be_rederived(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("group,name,n,bad\nours,a,200,10\nours,b,100,6\ntheirs,c,50,20\n")
    published = read_published(path)
    assert published.groups == ("theirs", "ours") and not published.printed
    table = rederive(published).set_index("quantity")
    assert table.loc["mean rate, ours", "value"] == pytest.approx(5.5)
    assert table.loc["odds ratio", "value"] == pytest.approx((20 / 30) / (16 / 284))
    assert all(one is None for one in table["agrees"])
    path.write_text("group,name,rate\nx,a,0\ny,b,30\n")
    zero = rederive(read_published(path)).set_index("quantity")
    assert zero.loc["ratio of mean rates", "value"] == math.inf


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("group,name\nx,a\n", "needs the columns"),
        ("group,name,n,bad\nx,a,10,11\ny,b,5,1\n", "0 ≤ bad ≤ n"),
        ("group,name,rate\nx,a,101\ny,b,3\n", "0 to 100"),
        ("group,name,rate\nx,a,many\ny,b,3\n", "no number"),
        ("group,name,rate\nx,a,1\n", "two groups"),
    ],
)
def test_a_table_that_makes_no_sense_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(HandscopeError, match=words):
        read_published(path)
    with pytest.raises(HandscopeError, match="could not be read"):
        read_published(tmp_path / "none.csv")
