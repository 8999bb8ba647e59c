"""Labels of several values: told within prompts or not at all, and the stage that asks in every cell."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.cli import main
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.labeling.exchange.values import import_values
from handscope.labeling.subject import Values, default_subject, parse_subject, set_subject
from handscope.labeling.values import read_values
from handscope.probes.held_out_ridge import HeldOutRidge
from handscope.probes.several import ALL, ORDER, Several, held_out, in_order, within
from handscope.probes.values import probe_values
from handscope.report.values import sentence, sentences, told
from handscope.run.folder import Run
from hypothesis import given
from hypothesis import strategies as st

RNG = np.random.default_rng(0)


def slow(scores: np.ndarray, higher: np.ndarray, groups: np.ndarray) -> tuple[list[float], list[int]]:
    """Every pair of one group in turn; `higher[i, j]`: whether i should score above j."""
    wins, pairs = [0.0] * (groups.max() + 1), [0] * (groups.max() + 1)
    for i, a in enumerate(groups):
        for j, b in enumerate(groups):
            if a == b and higher[i, j]:
                pairs[a] += 1
                wins[a] += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
    return wins, pairs


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)), min_size=2, max_size=20))
def test_pairs_are_those_of_one_group(rows: list[tuple[int, int, int]]) -> None:
    place, scores, groups = (np.array(column) for column in zip(*rows, strict=True))
    found = in_order(scores[None].astype(float), place[None], groups)
    expected = slow(scores, place[:, None] > place, groups)
    np.testing.assert_allclose([one[0] for one in found], expected)
    y = (place == 1).astype(float)
    found = within(scores[None].astype(float), y[None], groups)
    np.testing.assert_allclose([one[0] for one in found], slow(scores, y[:, None] > y, groups))


def test_each_target_is_predicted_as_it_would_be_alone() -> None:
    x, targets, fold = RNG.normal(size=(60, 20)), RNG.integers(0, 2, (3, 60)).astype(float), np.arange(60) % 5
    ridge = HeldOutRidge(x, fold)
    for target, found in zip(targets, held_out(x, fold, targets), strict=True):
        np.testing.assert_allclose(found, ridge.predict(target[:, None])[:, 0], rtol=1e-6)


def samples(prompts: int = 12, each: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Values 0, 1, 2 and prompts, which ask for one of them and get it in half of their samples."""
    prompt = np.repeat(np.arange(prompts), each)
    asked = prompt % 3
    return np.where(RNG.random(len(prompt)) < 0.5, asked, RNG.integers(0, 3, len(prompt))), prompt


def test_what_is_there_is_told_with_its_order() -> None:
    place, prompt = samples()
    x = RNG.normal(size=(len(place), 10))
    x[:, 0] += 2 * place
    told, said = Several.of(place, ["0", "1", "2"], prompt, True, 200).told(x)
    assert list(told) == [ALL, ORDER, "0", "1", "2"]
    for name in (ALL, ORDER, "0", "2"):
        one = told[name]
        assert one.p == pytest.approx(1 / 201) and one.interval[0] > 0.6 and one.interval[0] < one.auc < one.interval[1]
    assert told[ORDER].auc > 0.85 and (said == place).mean() > 0.6
    assert told[ALL].auc == pytest.approx(np.mean([told[name].auc for name in "012"]))
    assert 0.45 < told[ALL].null.mean() < 0.55
    assert not Several.of(place, ["0", "1", "2"], prompt, False, 20).told(x)[0].keys() & {ORDER}


def test_what_the_prompt_asks_for_is_not_told_within_prompts() -> None:
    """The features know the prompt and what it asks for, and nothing of the sample."""
    place, prompt = samples()
    x = np.eye(3)[prompt % 3] + 1e-3 * RNG.normal(size=(len(place), 3))
    told, said = Several.of(place, ["0", "1", "2"], prompt, True, 200).told(x)
    assert (said == place).mean() > 0.5, "between prompts the prompt helps"
    assert abs(told[ALL].auc - 0.5) < 0.1 and told[ALL].p > 0.05 and told[ORDER].p > 0.05


def test_chance_is_called_as_often_as_it_should_be() -> None:
    low = 0
    for _ in range(60):
        place, prompt = samples(8, 8)
        told, _ = Several.of(place, ["0", "1", "2"], prompt, True, 39).told(RNG.normal(size=(len(place), 5)))
        low += told[ALL].p <= 0.05
    assert low <= 8, "of 60 at 5%: more than 8 has a chance of 1 in 300"


@pytest.mark.parametrize(("place", "prompt", "words"), [
    ([0] * 20 + [1] * 3, list(range(23)), "found 20 of a, 3 of b"),
    ([0] * 20, list(range(20)), "found 20 of a, 0 of b"),
    ([0] * 10 + [1] * 10, [0, 1, 2, 3, 4] * 2 + [5, 6, 7, 8, 9] * 2, "All samples of a prompt have the same value"),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused(place, prompt, words) -> None:
    with pytest.raises(HandscopeError, match=words):
        Several.of(place, ["a", "b"], prompt, False)


def with_values(run: Run, levels: tuple[str, ...] = ("1", "2", "3")) -> Run:
    set_subject(run, dataclasses.replace(default_subject(), values=Values("raised", list(levels), ordered=True)))
    return run


def csv(run: Run, path: Path) -> Path:
    names = list(run.metadata())
    rows = [{"file": f"{name}.png", "count": 1 + i % 3} for i, name in enumerate(names)]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_values_are_imported_and_asked_for_in_every_cell(tiny_model, extracted_run, run_copy, tmp_path, capsys) -> None:
    run = with_values(run_copy(extracted_run))
    assert main(["labels", "import", str(run.path), str(csv(run, tmp_path / "counts.csv")), "--values", "count"]) == 0
    extract(tiny_model, run, Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=4))
    assert "48 values" in capsys.readouterr().out and set(read_values(run).values()) == {"1", "2", "3"}
    assert main(["values", str(run.path), "--permutations", "19"]) == 0
    said = capsys.readouterr().out
    table = probe_values(run, 19)
    assert table.groupby(["block", "step"])["value"].apply(list).map(tuple).unique().tolist() == [
        (ALL, ORDER, "1", "2", "3")
    ]
    assert len(table) == 9 * 5 and (table["p_family"] >= table["p"]).all() and (table["p_floor"] >= 0.05).all()
    confusion = pd.read_csv(run.analysis_dir / "value_confusion.csv")
    assert (confusion.groupby(["block", "step"])["n"].sum() == 48).all()
    assert (confusion[confusion["value"] == 2].groupby(["block", "step"])["n"].sum() == 16).all()
    assert set(pd.read_csv(run.analysis_dir / "value_baselines.csv")["step"]) == {4, 2, 1}
    assert told(run) in re.sub(r"\S*/run/", f"{run.path}/", said) or "raised is told" in said
    before = (run.analysis_dir / "value_probes.csv").stat().st_mtime_ns
    probe_values(run, 19)
    assert (run.analysis_dir / "value_probes.csv").stat().st_mtime_ns == before
    (tmp_path / "more.csv").write_text(f"sample,count\n{next(iter(run.metadata()))},3\n")
    import_values(run, tmp_path / "more.csv", "count")
    assert list(read_values(run).values()).count("3") == 17
    probe_values(run, 19)
    assert (run.analysis_dir / "value_probes.csv").stat().st_mtime_ns != before


@pytest.mark.parametrize(("text", "column", "words"), [
    ("sample,count\nNAME,7\n", "count", "says '7' of 'count', and the subject's values are 1, 2, 3"),
    ("sample,count\nNAME,1\n", "colour", "Expected a column 'colour' in .* found sample, count"),
    ("sample,count\nnothing,1\n", "count", "1 of 1 pictures .* no samples"),
    ("sample,count\nNAME,1\nNAME.png,2\n", "count", "two rows of"),
])  # fmt: skip
def test_values_that_do_not_fit_are_refused(extracted_run, run_copy, tmp_path, text, column, words) -> None:
    run = with_values(run_copy(extracted_run))
    (tmp_path / "in.csv").write_text(text.replace("NAME", next(iter(run.metadata()))))
    with pytest.raises(HandscopeError, match=words):
        import_values(run, tmp_path / "in.csv", column)
    assert not run.values_path.exists()


def test_a_subject_without_values_says_how_to_have_them(extracted_run, tmp_path) -> None:
    with pytest.raises(HandscopeError, match=r"no label of several values: give its file a key such as values: \{of"):
        probe_values(extracted_run)
    said = {"name": "ring", "noun": "ring", "plural": "rings", "kinds": {}}
    subject = parse_subject(said | {"values": {"of": "colour", "levels": ["red", "blue"]}}, "it")
    assert subject.values == Values("colour", ["red", "blue"])
    with pytest.raises(HandscopeError, match="values.levels"):
        parse_subject(said | {"values": {"of": "colour", "levels": ["red"]}}, "it")


def test_a_sentence_says_what_was_found_and_over_how_many_tests() -> None:
    row = {
        "block": "single.0", "step": 4, "value": "all", "n": 40, "n_prompts": 8, "n_pairs": 100, "auc": 0.7, "lo": 0.6,
        "hi": 0.8, "null_mean": 0.5, "null_sd": 0.05, "p": 0.001, "p_floor": 0.001, "p_family": 0.01, "q": 0.002,
    }  # fmt: skip
    table = pd.DataFrame([row, row | {"step": 2, "auc": 0.55, "p": 0.2, "q": 0.2, "p_family": 0.4}])
    said = sentence(table, Values("raised", ["1", "2"]))
    assert "raised is told in 1 of 2 cells (corrected over 2 tests), most in single.0 at step 4: AUC 0.70" in said
    none = sentence(table.assign(q=0.5, p_family=0.5), None)
    assert none.startswith("It is not shown that among samples of one prompt the value is told") and "n = 40" in none
    order = pd.DataFrame([row | {"value": "order", "p_family": 0.6, "q": 0.6}, row | {"value": "2"}])
    both = sentences(pd.concat([table, order], ignore_index=True), Values("raised", ["1", "2"]))
    assert "the order of raised is told: not separable from chance in each of 1 cells (corrected over 4 tests)" in both
    assert "share in order 0.70" in both and both.endswith("Single values that are told from the rest: 2 in 1 cell.")
    assert sentences(table, None).endswith("rest: none.") and "order" not in sentences(table, None)
