"""Looks become labels, labels follow their pictures, and the judge says how far it may be trusted."""

import hashlib
import math

import numpy as np
import pandas as pd
import pytest
from handscope.errors import HandscopeError
from handscope.extract.regenerate import psnr
from handscope.labeling.database.labels import Labels
from handscope.organism.judge import Judge, choose_band, evaluate, fit, kappa_interval, kappa_or_zero, out_of_fold
from handscope.organism.render import render_dataset
from handscope.organism.study import auto, sheets
from handscope.organism.study.shipped import ShippedLabels
from handscope.run.folder import COLUMNS, Run, sample_id
from PIL import Image
from sklearn.metrics import cohen_kappa_score


@pytest.fixture
def run(tmp_path):
    """A run of 12 rendered pictures, which the labels do not need to tell from generated ones."""
    renders = render_dataset(12, seed=8)
    made, rows = Run(tmp_path / "run"), {}
    for seed, (image, prompt) in enumerate(
        zip(renders.images.permute(0, 2, 3, 1).numpy(), renders.captions, strict=True)
    ):
        sample = sample_id(prompt, seed)
        made.samples_dir.mkdir(exist_ok=True)
        Image.fromarray(image).save(made.image_path(sample))
        known = {
            "sample": sample,
            "prompt": prompt,
            "seed": seed,
            "file_name": f"{sample}.png",
            "height": 96,
            "width": 96,
            "image_sha256": hashlib.sha256(image.tobytes()).hexdigest(),
            "noise_sha256": "0",
            "steps": 20,
            "guidance": 3.5,
        }
        rows[sample] = {column: known.get(column, 1) for column in COLUMNS}
    made.write_metadata(rows)
    return made


def look(folder, levels):
    key = pd.read_csv(folder / "key.csv")
    pd.DataFrame(
        {
            "number": key.number,
            "level": levels(key),
            "kinds": ["count" if level.startswith("bad") else "" for level in levels(key)],
        }
    ).to_csv(folder / "looks.csv", index=False)


@pytest.fixture
def labelled(run, tmp_path):
    """The run looked at twice, with every third picture bad and one in dispute, and the labels that this makes."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    samples = run.samples()["sample"].tolist()
    bad, disputed = set(samples[::3]), samples[1]
    assert sheets.draw(run, folders[0], seed=1) == 1 and sheets.draw(run, folders[1], seed=2, mirrored=True) == 1
    look(folders[0], lambda key: ["bad" if s in bad or s == disputed else "good" for s in key["sample"]])
    look(folders[1], lambda key: ["bad" if s in bad else "good" for s in key["sample"]])
    left = sheets.left_open(*map(sheets.read_look, folders[:2]))
    assert left == [disputed]
    sheets.draw(run, folders[2], seed=3, samples=left)
    look(folders[2], lambda key: ["bad?"])
    out = tmp_path / "datasets"
    return sheets.merge(run, folders, out), out, bad, disputed


def test_the_two_looks_are_shuffled_apart_and_the_second_is_mirrored(run, tmp_path):
    sheets.draw(run, tmp_path / "a", seed=1)
    sheets.draw(run, tmp_path / "b", seed=1, mirrored=True)
    sheets.draw(run, tmp_path / "c", seed=2)
    keys = [pd.read_csv(tmp_path / name / "key.csv")["sample"].tolist() for name in "abc"]
    assert keys[0] == keys[1] != keys[2] and sorted(keys[0]) == sorted(keys[2])
    plain, mirrored = (np.asarray(Image.open(tmp_path / name / "sheet_00.png"))[16:160, :144] for name in "ab")
    assert np.array_equal(plain[:, ::-1], mirrored) and not np.array_equal(plain, mirrored)


def test_looks_make_verdicts(labelled):
    table, _, bad, disputed = labelled
    verdicts = table.set_index("sample").verdict
    assert set(verdicts.index[verdicts == "bad"]) == bad
    assert verdicts[disputed] == "unsure"
    assert (table.loc[table.verdict == "bad", "kinds"] == "count").all() and (
        table.loc[table.verdict == "good", "kinds"] == ""
    ).all()
    assert "kappa" in sheets.agreement(table)


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        (["good", "good"], "good"),
        (["bad", "bad"], "bad"),
        (["good", "bad", "bad"], "bad"),
        (["good", "bad", "bad?"], "unsure"),
        (["good?", "good", "good"], "good"),
        (["good?", "good", "bad"], "good?"),
        (["bad?", "bad?", "bad"], "bad?"),
        (["bad?", "bad?", "bad?"], "unsure"),
    ],
)
def test_a_majority_decides_and_doubt_is_kept(looks, expected):
    assert sheets.verdict(looks) == expected


def test_a_look_with_a_missing_line_or_an_unknown_level_is_refused(run, tmp_path):
    sheets.draw(run, tmp_path, seed=1)
    look(tmp_path, lambda key: ["good"] * len(key))
    whole = (tmp_path / "looks.csv").read_text()
    (tmp_path / "looks.csv").write_text(whole.replace("\n3,good,", "\n3,fine,"))
    with pytest.raises(HandscopeError, match="number 3 has 'fine'"):
        sheets.read_look(tmp_path)
    (tmp_path / "looks.csv").write_text(whole.replace("\n3,good,", ""))
    with pytest.raises(HandscopeError, match=r"do not match: \[3\]"):
        sheets.read_look(tmp_path)


def test_labels_follow_the_picture_and_not_the_seed(run, labelled, monkeypatch):
    table, folder, bad, disputed = labelled
    shipped = ShippedLabels.load(folder)
    samples = run.samples()["sample"].tolist()
    assert all(shipped.likeness(sample, run.image(sample)) == math.inf for sample in samples)
    slight, other = samples[0], samples[3]
    image = run.image(slight).copy()
    image[:2, :2] ^= 1
    Image.fromarray(image).save(run.image_path(slight))
    Image.fromarray(run.image(other)[:, ::-1]).save(run.image_path(other))
    metadata = run.metadata()
    for sample in (slight, other):
        with Image.open(run.image_path(sample)) as changed:
            metadata[sample]["image_sha256"] = hashlib.sha256(changed.tobytes()).hexdigest()
    run.write_metadata(metadata)
    judge = fit(np.zeros((4, 1)), np.array([0, 1, 0, 1]), ["area"], {"trusted": False}, (0.5, 0.5))
    monkeypatch.setattr(auto.ShippedLabels, "of", lambda name: shipped)
    monkeypatch.setattr(auto.Judge, "of", lambda name: judge)
    sources = auto.label_auto(run)
    assert sources == {"hand labels": 11, "judge": 1}
    said = run.settings["labels"]
    assert (said["shipped_identical"], said["shipped_alike"]) == (10, 1)
    current = Labels(run.labels_path).current()
    assert current[other].verdict == "unsure", "a judge that is not trusted decides nothing"
    assert current[slight].verdict == "bad" and current[disputed].verdict == "unsure"
    for annotation in current.values():
        hand = annotation.instances > 0
        assert hand.any() and (annotation.labels[~hand] == 1).all()
        assert set(annotation.labels[hand]) == {{"good": 2, "bad": 3, "unsure": 0}[annotation.verdict]}
    rows = len(Labels(run.labels_path).table())
    assert auto.label_auto(run) == sources and len(Labels(run.labels_path).table()) == rows


def test_a_picture_that_was_swapped_and_settings_that_were_never_tested_are_refused(run):
    first, second = run.samples()["sample"][:2]
    run.image_path(first).write_bytes(run.image_path(second).read_bytes())
    with pytest.raises(HandscopeError, match=f"{first}.png is not the one that was generated"):
        auto.label_auto(run)
    assert not run.labels_path.exists() or Labels(run.labels_path).table().empty
    metadata = run.metadata()
    metadata[first]["steps"] = 4
    run.write_metadata(metadata)
    with pytest.raises(HandscopeError, match="with steps 20, and sample .* has steps 4"):
        auto.label_auto(run)


def test_a_mosaic_of_other_pictures_is_refused(run, labelled):
    _, folder, _, _ = labelled
    sample = run.samples()["sample"][0]
    with Image.open(folder / "hand_labels.webp") as image:
        mosaic = np.asarray(image.convert("RGB"))
    Image.fromarray(mosaic[96:]).save(folder / "hand_labels.webp", lossless=True)
    with pytest.raises(HandscopeError, match="do not fit a mosaic"):
        ShippedLabels.load(folder)
    Image.fromarray(np.roll(mosaic, 96, 0)).save(folder / "hand_labels.webp", lossless=True)
    with pytest.raises(HandscopeError, match="is not the one that was labelled"):
        ShippedLabels.load(folder).likeness(sample, run.image(sample))


def test_psnr_is_the_closed_form():
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 51, np.uint8)
    assert psnr(black, grey) == pytest.approx(20 * math.log10(5)) and psnr(grey, grey) == math.inf


def judged(signal, n=300, seed=0):
    random = np.random.default_rng(seed)
    groups, bad = np.repeat(np.arange(30), n // 30), random.integers(0, 2, n)
    x = random.normal(size=(n, 4))
    x[:, 0] += signal * bad
    p, decided = out_of_fold(x, bad, groups, random.random(n) < 0.9, list("abcd"))
    return evaluate(p, decided, bad, groups)


def test_the_judge_is_trusted_for_a_signal_and_not_for_noise():
    strong, none = judged(4.0), judged(0.0)
    assert strong["trusted"] and strong["kappa_decided"] >= strong["kappa"] > 0.8
    assert not none["trusted"] and abs(none["kappa"]) < 0.2


def test_kappa_agrees_with_scikit_learn():
    random = np.random.default_rng(1)
    a, b = random.integers(0, 2, 50), random.integers(0, 2, 50)
    assert kappa_or_zero(a, b) == pytest.approx(cohen_kappa_score(a, b))


def test_interval_of_kappa_is_that_of_rows_drawn_one_by_one():
    rng = np.random.default_rng(1)
    groups, a = rng.integers(0, 9, 60), rng.integers(0, 2, 60)
    b = np.where(rng.random(60) < 0.8, a, 1 - a)
    members, random, values = [np.flatnonzero(groups == g) for g in np.unique(groups)], np.random.default_rng(3), []
    for _ in range(2000):
        rows = np.concatenate([members[i] for i in random.integers(len(members), size=len(members))])
        values.append(kappa_or_zero(a[rows], b[rows]))
    assert kappa_interval(a, b, groups, seed=3) == np.quantile(values, [0.025, 0.975]).round(3).tolist()


def test_the_band_is_as_narrow_as_agreement_allows():
    p, bad = np.linspace(0.02, 0.98, 200), (np.linspace(0.02, 0.98, 200) > 0.5).astype(int)
    assert choose_band(p, bad) == (0.5, 0.5)
    assert choose_band(p, np.random.default_rng(0).integers(0, 2, 200)) == (0.0, 1.0)


def test_a_judge_is_the_same_after_saving(tmp_path):
    judge = fit(
        np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2, list("abc"), {"trusted": True}, (0.3, 0.7)
    )
    judge.save(tmp_path / "judge.json")
    assert Judge.load(tmp_path / "judge.json") == judge
    (tmp_path / "judge.json").write_text("{")
    with pytest.raises(HandscopeError, match="install handscope again"):
        Judge.load(tmp_path / "judge.json")
