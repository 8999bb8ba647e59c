"""Donors that are drawn for their recipients: their noise, their words, their verdicts, and parts made with them."""

import numpy as np
import pandas as pd
import pytest
import torch
from handscope.errors import HandscopeError
from handscope.evaluation.patch_donors import drawn_pairs
from handscope.evaluation.patching import Looked, Settings, patch_parts
from handscope.guidance.interchange import Interchange
from handscope.labeling.table import sample_table


def look(pictures, prompts) -> Looked:
    """Every other picture is bad, whatever it shows."""
    return Looked(np.arange(len(pictures)) % 2.0, {"outline": pictures.mean(-1) > 127})


def tokens_of(picture, rows: int, columns: int) -> np.ndarray:
    return np.eye(rows, columns, dtype=bool)


@pytest.mark.parametrize("kind", ["inside", "prompt"])
def test_donors_differ_in_what_they_shall_alone(kind, tiny_model, finished_run, tmp_path):
    interchange = Interchange(tiny_model, 4, 3.5, 32, 32)
    given = interchange, finished_run, tmp_path, kind, 4, look, tokens_of
    pairs, samples = drawn_pairs(*given, tries=2)
    table = sample_table(finished_run).set_index("sample")
    assert len(pairs) == 4 and set(pairs["toward"]) == {1, -1}
    for row in pairs.itertuples():
        recipient, donor = samples.drawn([row.recipient]), samples.drawn([row.donor])
        verdict = table.loc[row.recipient, "verdict"]
        assert (verdict == "good") == (row.toward > 0)
        assert samples.table.loc[row.donor, "bad"] == (verdict == "good")
        assert samples.table.loc[row.own, "bad"] == (verdict == "bad") and row.own != row.donor
        same = (recipient.at(4) == donor.at(4)).all(-1)[0].numpy()
        if kind == "inside":
            assert (same == ~samples.tokens(row.recipient)).all() and donor.prompts == recipient.prompts
        else:
            assert same.all() and donor.prompts != recipient.prompts
        again = interchange.drawn(donor.prompts, donor.at(4)).final
        assert torch.allclose(again, donor.final, atol=1e-5)
        assert (samples.tokens(row.donor) == np.eye(4, dtype=bool).flatten()).all()
    kept, _ = drawn_pairs(*given, tries=2)
    pd.testing.assert_frame_equal(kept, pairs)
    settings = Settings(blocks=("single.0",), steps=(3,), arms={"own class": 4}, batch_size=4)
    patch_parts(tiny_model, finished_run, tmp_path, pairs, look, settings, samples=samples)
    assert pd.read_csv(tmp_path / "parts" / "own_class-000.csv")["pair"].tolist() == pairs["pair"].tolist()


def test_where_no_donor_differs_there_is_no_pair(tiny_model, finished_run, tmp_path):
    interchange = Interchange(tiny_model, 4, 3.5, 32, 32)

    def never(pictures, prompts) -> Looked:
        return Looked(np.full(len(pictures), 0.2), {})

    with pytest.raises(HandscopeError, match="Expected donors of a kind among inside, prompt, found 'hat'"):
        drawn_pairs(interchange, finished_run, tmp_path, "hat", 4, look, tokens_of)
    rows, _ = drawn_pairs(interchange, finished_run, tmp_path / "some", "prompt", 8, never, tokens_of, tries=1)
    assert set(rows["toward"]) == {-1} and (rows["own"] == "").all()
