"""Rates and contrasts of tables made by hand: what counts in which, and what the scorer's error takes off."""

import json

import numpy as np
import pandas as pd
import pytest
from handscope.analysis.statistics.rates import clustered_share
from handscope.analysis.statistics.verdicts import Counts, corrected_rate
from handscope.errors import HandscopeError
from handscope.evaluation.contrasts import contrasts
from handscope.evaluation.rates import measured, rates
from handscope.evaluation.scored import COLUMNS, Scored, score_arms
from handscope.labeling.database.labels import Annotation, Labels
from handscope.labeling.subject import load_subject
from handscope.run.folder import Run

PLAIN, BAD, DOUBT, NONE = "plausible", "implausible", "cannot tell", "undetected"


def scored(errors=None) -> Scored:
    """Two arms of two prompts, the second of which asks for nothing; some pictures have two instances."""
    said = [
        ("a", "p-1", [(BAD, "count;fused"), (PLAIN, "")]),
        ("a", "p-2", [(PLAIN, "")]),
        ("a", "p-3", [(DOUBT, ""), (PLAIN, "")]),
        ("a", "q-1", [(NONE, "")]),
        ("b", "p-1", [(PLAIN, "")]),
        ("b", "p-2", [(NONE, "")]),
        ("b", "p-3", [(BAD, "count")]),
        ("b", "q-1", [(BAD, "other"), (BAD, "fused")]),
    ]
    rows = [
        (arm, sample, 0 if outcome == NONE else number, outcome, faults, 0.5)
        for arm, sample, found in said
        for number, (outcome, faults) in enumerate(found, 1)
    ]
    pictures = pd.DataFrame([(arm, sample) for arm, sample, _ in said], columns=["arm", "sample"])
    prompt = pictures["sample"].str[0]
    pictures = pictures.assign(prompt=prompt, noise="F " + pictures["sample"], asked=prompt == "p", path="x")
    return Scored(pd.DataFrame(rows, columns=list(COLUMNS)), pictures, "made", errors)


def test_what_counts_is_counted_once_a_picture_and_once_an_instance() -> None:
    made = scored()
    tables = measured(made)
    found = rates(made, tables).set_index(["arm", "unit", "measure"])
    expected = {
        ("a", "picture", "implausible"): (1, 2),  # the doubtful one is not told of
        ("a", "picture", "failed"): (1, 2),
        ("a", "picture", "undetected"): (1, 4),
        ("a", "picture", "avoided"): (0, 3),  # nothing was asked of q
        ("a", "picture", "cannot tell"): (1, 4),
        ("a", "picture", "count"): (1, 2),
        ("a", "instance", "implausible"): (1, 4),
        ("a", "instance", "cannot tell"): (1, 5),
        ("a", "instance", "fused"): (1, 4),
        ("b", "picture", "implausible"): (2, 3),
        ("b", "picture", "failed"): (2, 3),
        ("b", "picture", "avoided"): (1, 3),
        ("b", "instance", "implausible"): (3, 4),
        ("b", "instance", "other"): (1, 4),
    }
    for key, (bad, n) in expected.items():
        assert (found.loc[key, "bad"], found.loc[key, "n"]) == (bad, n), key
    row = found.loc["b", "instance", "implausible"]
    assert tuple(row[["rate", "lo", "hi"]]) == clustered_share([0, 1, 1, 1], ["p", "p", "q", "q"])
    plain = found.loc["a", "picture", "implausible"]
    assert (plain["least"], plain["most"]) == (1 / 4, 3 / 4)  # if all others were sound, and if none were


def test_the_scorers_error_is_taken_off_with_its_own_uncertainty() -> None:
    errors = np.array([[9.0, 1, 1, 19], [8, 2, 2, 18], [9, 1, 1, 19]])
    made = scored(errors)
    row = rates(made, measured(made)).set_index(["arm", "unit", "measure"]).loc["b", "instance", "implausible"]
    expected = corrected_rate([0, 1, 1, 1], ["p", "p", "q", "q"], Counts(errors))
    np.testing.assert_allclose(row[["corrected", "corrected_lo", "corrected_hi"]].astype(float), expected)


def test_pairs_are_pictures_of_the_same_noises_and_nothing_else_is() -> None:
    made = scored()
    found = contrasts(made, measured(made), "a", {}).set_index(["unit", "measure"])
    row = found.loc["picture", "implausible"]
    assert (row["design"], row["n"], row["left_out"], row["mended"], row["broken"]) == ("same noises", 1, 3, 1, 0)
    failed = found.loc["picture", "failed"]
    assert (failed["n"], failed["mended"], failed["broken"]) == (2, 1, 1)
    assert found.loc["instance", "implausible"]["design"] == "same prompts"
    assert np.isnan(found.loc["picture", "undetected"]["p"]) and failed["holm"] == failed["p"]
    moved = made.pictures.assign(noise=["F x", *made.pictures["noise"][1:]])
    other = Scored(made.instances, moved, "made")
    row = contrasts(other, measured(other), "a", {}).set_index(["unit", "measure"]).loc["picture", "implausible"]
    assert (row["design"], row["n"], row["n_against"]) == ("same prompts", 3, 2)
    assert np.isnan(row["mended"]) and row["difference"] == pytest.approx(2 / 3 - 1 / 2)


def test_verdicts_come_from_a_table_or_from_labels(finished_run, tmp_path) -> None:
    runs, subject = {"x": finished_run}, load_subject("hand")
    samples = {"x": list(finished_run.metadata())[:6]}
    table = tmp_path / "said.csv"

    def write(rows: list[str]) -> None:
        table.write_text("arm,file_name,verdict,faults\n" + "\n".join(rows))

    rows = [f"x,{name}.png,{'bad' if i < 2 else 'good'},{'count' if i < 2 else ''}"
            for i, name in enumerate(samples["x"])]  # fmt: skip
    write([*rows, f"x,{samples['x'][3]}.png,bad,fused"])  # a second instance
    made = score_arms(str(table), runs, samples, subject, tmp_path)
    assert measured(made)["picture"]["implausible"].tolist() == [1, 1, 0, 1, 0, 0]
    assert made.instances["instance"].tolist() == [1, 1, 1, 1, 2, 1, 1]
    misspelt = [*rows[:5], rows[5].replace("good", "so")]
    for broken, said in ((rows[1:], "says nothing of 1 pictures"), (misspelt, "'so'")):
        write(broken)
        with pytest.raises(HandscopeError, match=said):
            score_arms(str(table), runs, samples, subject, tmp_path)
    # A blind look at the arm, of which two pictures are labelled.
    folder = tmp_path / "blind"
    look = Run(folder)
    lines = finished_run.metadata()
    taken = {f"look-{i}": lines[name] | {"sample": f"look-{i}"} for i, name in enumerate(samples["x"])}
    look.samples_dir.mkdir()
    look.write_metadata(taken)
    key = {opaque: ["x", name] for opaque, name in zip(taken, samples["x"])}
    (folder / "key.json").write_text(json.dumps({"arms": ["x"], "pictures": key}))
    with pytest.raises(HandscopeError, match="Nothing of the blind look"):
        score_arms("labels", runs, samples, subject, tmp_path)
    grid = np.ones((4, 4), np.uint8)
    said = (("look-0", "bad", ("count",)), ("look-1", "good", ()))
    Labels(look.labels_path).add(
        [Annotation(name, taken[name]["image_sha256"], grid * 2, grid, one, kinds) for name, one, kinds in said]
    )
    made = score_arms("labels", runs, samples, subject, tmp_path)
    assert made.pictures["sample"].tolist() == samples["x"][:2]
    assert made.instances[["outcome", "faults"]].to_numpy().tolist() == [[BAD, "count"], [PLAIN, ""]]
