"""Agreement: against scikit-learn, statsmodels and krippendorff, with intervals that cover, and a queue in order."""

import hashlib

import krippendorff
import numpy as np
import pytest
from handscope.analysis.statistics.agreement import (
    cohen_kappa,
    coincidences,
    confusion,
    krippendorff_alpha,
    over_groups,
)
from handscope.labeling.agreement import agreement, iou, review_queue
from handscope.labeling.database.annotation import Annotation
from handscope.labeling.database.labels import Labels
from handscope.run.folder import COLUMNS, Run, sample_id
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

GRID = (4, 4)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_kappa_is_that_of_scikit_learn_and_statsmodels(pairs):
    a, b = (list(side) for side in zip(*pairs))
    counts = confusion(a, b, 3).sum(0)
    found = float(cohen_kappa(counts))
    if len(set(a) | set(b)) == 1:
        assert np.isnan(found)
        return
    assert found == pytest.approx(cohen_kappa_score(a, b), abs=1e-9)
    assert found == pytest.approx(float(cohens_kappa(counts, return_results=False)), abs=1e-9)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@given(votes=st.lists(st.lists(st.integers(0, 2), min_size=0, max_size=4), min_size=1, max_size=20))
def test_alpha_is_that_of_krippendorff_with_gaps(level, votes):
    counts = np.array([np.bincount(given, minlength=3) for given in votes])
    found = float(krippendorff_alpha(coincidences(counts * (counts.sum(1) > 1)[:, None]).sum(0), level == "ordinal"))
    pairable = [set(given) for given in votes if len(given) > 1]
    if len(set().union(*pairable)) < 2:
        assert np.isnan(found)
        return
    assert found == pytest.approx(krippendorff.alpha(value_counts=counts, level_of_measurement=level), abs=1e-9)


def test_the_interval_is_the_slow_jackknife_over_prompts():
    random = np.random.default_rng(0)
    prompts = np.repeat(np.arange(12), 5)
    a = random.integers(0, 2, 60)
    b = np.where(random.random(60) < 0.25, 1 - a, a)
    value, low, high = over_groups(cohen_kappa, confusion(a, b, 2), prompts)
    slow = np.array([cohen_kappa_score(a[prompts != p], b[prompts != p]) for p in range(12)])
    deviation = np.sqrt(11 / 12 * np.square(np.arctanh(slow) - np.arctanh(slow).mean()).sum())
    assert value == pytest.approx(cohen_kappa_score(a, b))
    half = 2.200985 * deviation  # Student's t of 11 degrees of freedom; half a logit between -1 and 1 is Fisher's z
    assert (low, high) == pytest.approx((np.tanh(np.arctanh(value) - half), np.tanh(np.arctanh(value) + half)))


def test_the_interval_covers_the_truth_also_where_prompts_are_few_and_clustered():
    random = np.random.default_rng(1)

    def looks(prompts, each):
        wrong = np.repeat(random.beta(0.6, 3.4, prompts), each)  # some prompts are harder than others
        a = random.random(prompts * each) < 0.4
        return a.astype(int), np.where(random.random(prompts * each) < wrong, ~a, a).astype(int)

    truth = cohen_kappa_score(*looks(40000, 4))
    hits = []
    for _ in range(300):
        bounds = over_groups(cohen_kappa, confusion(*looks(10, 4), 2), np.repeat(np.arange(10), 4))
        hits.append(bounds[1] <= truth <= bounds[2])
    assert 0.92 <= np.mean(hits) <= 0.99


def test_perfect_agreement_of_a_few_is_not_certain():
    a = np.array([0, 1] * 4)
    few = over_groups(cohen_kappa, confusion(a, a, 2), np.arange(8))
    many = over_groups(cohen_kappa, confusion(np.tile(a, 10), np.tile(a, 10), 2), np.arange(80))
    assert few[0] == many[0] == few[2] == 1.0
    assert 0 < few[1] < 0.6 and 0.9 < many[1] < 1
    # Half the samples are bad: a share d that differs by chance leaves kappa 1 - 2 d.
    assert few[1] == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 8)))
    assert over_groups(cohen_kappa, confusion(a, a, 2), np.zeros(8))[0] == 1
    assert np.isnan(over_groups(cohen_kappa, confusion(a, a, 2), np.zeros(8))[1])


# The table of a run


@pytest.fixture
def run(tmp_path):
    """Samples of six prompts, two each, with no pictures: agreement reads none."""
    made = Run(tmp_path / "run")
    rows = {}
    for prompt in range(6):
        for seed in (0, 1):
            name = sample_id(f"prompt {prompt}", seed)
            row = dict.fromkeys(COLUMNS, 1) | {"sample": name, "prompt": f"prompt {prompt}", "seed": seed}
            rows[name] = row | {"image_sha256": hashlib.sha256(name.encode()).hexdigest()}
    made.samples_dir.mkdir()
    made.write_metadata(rows)
    return made


def said(run, sample, author, verdict, where=slice(0, 2), **more):
    hands = np.zeros(GRID, np.uint8)
    hands[where] = 1
    label = {"g": 2, "b": 3, "u": 0}[verdict[0]]
    labels = np.where(hands > 0, label, 1)
    fields = {"source": "hand", **more}
    return Annotation(sample, run.metadata()[sample]["image_sha256"], labels, hands, verdict, author=author, **fields)


def test_what_two_annotators_share_is_compared(run):
    samples = run.samples()["sample"].tolist()
    verdicts = {"ada": "good good bad bad good bad? good? bad unsure good bad good".split()}
    verdicts["ben"] = "good bad bad bad good bad good bad good unsure good good".split()
    labels = Labels(run.labels_path)
    labels.add([said(run, s, author, v) for author, given in verdicts.items() for s, v in zip(samples, given)])
    labels.add([said(run, s, "handscope", "bad") for s in samples])
    labels.add([said(run, s, "ada", v, source="review") for s, v in zip(samples, verdicts["ben"])])
    table = agreement(run).set_index("measure")
    assert set(table["of"]) == {"ada and ben", "all"}
    kept = [i for i in range(12) if "unsure" not in (verdicts["ada"][i], verdicts["ben"][i])]
    sides = [[given[i].startswith("bad") for i in kept] for given in verdicts.values()]
    row = table.loc["verdict kappa"]
    assert row["value"] == pytest.approx(cohen_kappa_score(*sides)) and row["low"] < row["value"] < row["high"]
    assert (row["samples"], row["prompts"], row["note"]) == (10, 5, "")
    # Unsure hands have tokens of no label: on the other samples half the tokens are hand, half are not.
    tokens = [[label for i in range(12) for label in [1] * 8 + [SIDE[given[i][0]]] * 8] for given in verdicts.values()]
    both = [(x, y) for x, y in zip(*tokens) if x and y]
    assert table.loc["token kappa", "value"] == pytest.approx(cohen_kappa_score(*zip(*both)))
    assert table.loc["hand IoU", "value"] == 1.0 and table.loc["hand IoU", "low"] < 1
    votes = [[np.nan if v == "unsure" else v.startswith("bad") for v in given] for given in verdicts.values()]
    expected = krippendorff.alpha(np.array(votes, float), level_of_measurement="nominal")
    assert table.loc["verdict alpha", "value"] == pytest.approx(expected)


SIDE = {"g": 2, "b": 3, "u": 0}


def test_of_several_annotators_there_is_one_number_for_all(run):
    random = np.random.default_rng(3)
    samples = run.samples()["sample"].tolist()
    given = {author: random.choice(["good", "bad"], 12) for author in ("ada", "ben", "cy")}
    skipped = {"ada": set(), "ben": set(samples[:4]), "cy": set(samples[6:])}
    Labels(run.labels_path).add(
        [said(run, s, a, str(v)) for a, all_of in given.items() for s, v in zip(samples, all_of) if s not in skipped[a]]
    )
    table = agreement(run)
    kappas = table[table["measure"] == "verdict kappa"].set_index("of")
    assert list(kappas.index) == ["ada and ben", "ada and cy", "ben and cy", "all"]
    assert kappas["samples"].tolist() == [8, 6, 2, 12]
    by_hand = []
    for a, b in (("ada", "ben"), ("ada", "cy"), ("ben", "cy")):
        both = [i for i, s in enumerate(samples) if s not in skipped[a] | skipped[b]]
        by_hand.append((cohen_kappa_score(given[a][both], given[b][both]), len(both)))
    known = [(k, n) for k, n in by_hand if not np.isnan(k)]
    assert kappas.loc["all", "value"] == pytest.approx(sum(k * n for k, n in known) / sum(n for _, n in known))
    assert (kappas["note"] == "").equals(kappas["low"].notna())


def test_no_number_without_a_reason(run):
    assert agreement(run).empty and list(agreement(run)) == [
        "measure", "of", "value", "low", "high", "samples", "prompts", "note",
    ]  # fmt: skip
    samples = run.samples()["sample"].tolist()
    Labels(run.labels_path).add([said(run, s, a, "good") for s in samples[:2] for a in ("ada", "ben")])
    table = agreement(run)
    assert (table["note"] != "").equals(table[["value", "low"]].isna().any(axis=1))
    assert "one and the same verdict" in table.loc[table["measure"] == "verdict kappa", "note"].item()
    assert "of one prompt" in table.loc[table["measure"] == "hand IoU", "note"].item()


def test_ratings_agree_as_krippendorff_says(run):
    random = np.random.default_rng(5)
    labels, samples = Labels(run.labels_path), run.samples()["sample"].tolist()
    values = random.choice([0.0, 0.5, 1.0], (3, 12))
    values[0, :5] = np.nan
    for rater, row in zip(("ada", "ben", "cy"), values):
        for sample, value in zip(samples, row):
            if not np.isnan(value):
                labels.rate(sample, run.metadata()[sample]["image_sha256"], rater, value, 1.0, f"{rater}{sample}")
    labels.rate(samples[6], "of another image", "dan", 1.0, 1.0, "d")
    table = agreement(run).set_index("of")
    assert list(table.index) == ["ada and ben", "ada and cy", "ben and cy", "all"]
    assert table["samples"].tolist() == [7, 7, 12, 12]
    expected = krippendorff.alpha(values, level_of_measurement="ordinal")
    assert table.loc["all", "value"] == pytest.approx(expected)
    expected = krippendorff.alpha(values[:2], level_of_measurement="ordinal")
    assert table.loc["ada and ben", "value"] == pytest.approx(expected)


def test_the_queue_holds_disagreements_the_worst_first(run):
    first, second, third, fourth, fifth, sixth = run.samples()["sample"][:6]
    labels = Labels(run.labels_path)
    labels.add([said(run, first, "ada", "good"), said(run, first, "ben", "good?")])  # agree
    labels.add([said(run, second, "ada", "good?"), said(run, second, "ben", "bad?")])
    labels.add([said(run, third, "ada", "good"), said(run, third, "ben", "bad")])
    labels.add([said(run, fourth, "ada", "good"), said(run, fourth, "ben", "good", slice(1, 3))])  # IoU 1/3
    labels.add([said(run, fifth, "ada", "good"), said(run, fifth, "ben", "bad", slice(2, 4))])  # no overlap either
    labels.add([said(run, sixth, "ada", "good"), said(run, sixth, "ben", "bad", done=False)])  # a draft
    queue = review_queue(run)
    assert queue["sample"].tolist() == [fifth, third, fourth, second]
    assert queue["disagreement"].tolist() == pytest.approx([2, 1, 2 / 3, 1 / 3])
    assert queue.loc[0, "why"] == "ada says good, ben bad; hand tokens of ada and ben overlap by 0.00"
    assert not queue["reviewed"].any()
    labels.add([said(run, third, "cy", "bad", source="review")])
    assert review_queue(run).set_index("sample")["reviewed"].to_dict() == {
        fifth: False, third: True, fourth: False, second: False,
    }  # fmt: skip


def test_hands_of_one_verdict_that_differ_are_a_disagreement(run):
    sample = run.samples()["sample"][0]
    hands = np.zeros(GRID, np.uint8)
    hands[0], hands[2] = 1, 2
    image = run.metadata()[sample]["image_sha256"]
    for author, worse in (("ada", 1), ("ben", 2)):
        grid = np.where(hands == worse, 3, np.where(hands > 0, 2, 1))
        Labels(run.labels_path).add([Annotation(sample, image, grid, hands, "bad", ("count",), author, "hand")])
    assert review_queue(run)["why"].tolist() == ["ada and ben disagree on a hand"]


def test_labels_of_another_image_are_not_compared(run):
    sample = run.samples()["sample"][0]
    grid = np.ones(GRID, np.uint8)
    for author in ("ada", "ben"):
        other = Annotation(sample, "of another image", grid, 0 * grid, "good", author=author, source="hand")
        Labels(run.labels_path).add([other])
    assert agreement(run).empty and review_queue(run).empty


def test_iou():
    a, b = np.zeros(GRID, np.uint8), np.zeros(GRID, np.uint8)
    assert np.isnan(iou(a, b))
    a[0], b[0, :2] = 1, 7
    assert iou(a, b) == 0.5
