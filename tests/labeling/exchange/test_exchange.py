"""Labels out and in again: identical in every format, readable by other tools, refused where they do not belong."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from handscope import cli
from handscope.errors import HandscopeError
from handscope.labeling.database.annotation import Annotation
from handscope.labeling.database.labels import Labels
from handscope.labeling.exchange.export import LIST, export_labels
from handscope.labeling.exchange.importing import import_labels
from handscope.labeling.exchange.pixels import gather, spread
from handscope.labeling.exchange.rle import decode, encode
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

FORMATS = ("labels.npz", "labels.json", "labels.csv", "labels.csv.gz", "labels.parquet", "labels")


def painted(run, sample, author="ada", seed=0, **more):
    """Two hands and an unsure one, some tokens left open."""
    random = np.random.default_rng(seed)
    hands = random.choice(np.array([0, 0, 1, 2, 200], np.uint8), (4, 4))
    labels = np.select([hands == 1, hands == 2, hands == 200], [2, 3, 0], random.integers(0, 2, (4, 4)))
    fields = {"faults": {2: ("fused:global", "count")}, "author": author, "source": "hand", "seconds": 12.345678901}
    image = run.metadata()[sample]["image_sha256"]
    return Annotation(sample, image, labels, hands, "bad?", **{**fields, **more})


@pytest.fixture
def bare(finished_run, run_copy):
    """A run without labels."""
    run = run_copy(finished_run)
    for path in run.path.glob("labels.sqlite*"):
        path.unlink()
    return run


@pytest.fixture
def run(bare):
    """A run that three people labelled; one of them reviewed."""
    samples = bare.samples()["sample"].tolist()
    labels = Labels(bare.labels_path)
    labels.add([painted(bare, s, seed=i) for i, s in enumerate(samples[:5])])
    second = {"author": "Bén, 2nd “look”", "score": 1 / 3, "seconds": None}
    labels.add([painted(bare, s, seed=i + 9, **second) for i, s in enumerate(samples[:2])])
    labels.add([painted(bare, samples[0], "cy", 20, source="review")])
    nothing = np.zeros((4, 4), np.uint8)
    image = bare.metadata()[samples[6]]["image_sha256"]
    labels.add([Annotation(samples[6], image, nothing, nothing, "unsure", author="cy", source="hand")])
    labels.add([replace(painted(bare, samples[7]), done=False, verdict="")])
    labels.add([replace(painted(bare, samples[8]), image_sha256="of an image before")])
    return bare


@pytest.fixture
def other(finished_run, tmp_path):
    """The same run without labels, on another machine."""
    from handscope.run.folder import Run

    shutil.copytree(finished_run.path, tmp_path / "other", ignore=shutil.ignore_patterns("labels.sqlite*"))
    return Run(tmp_path / "other")


def contents(path):
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def said(annotation):
    return (
        annotation.sample, annotation.image_sha256, annotation.labels.tolist(), annotation.instances.tolist(),
        annotation.verdict, annotation.kinds, dict(annotation.faults), annotation.author, annotation.score,
        annotation.seconds, annotation.made, annotation.review,
    )  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("everyone", [False, True])
def test_out_and_in_and_out_again_is_the_same(run, other, tmp_path, name, everyone):
    first, second = tmp_path / "first" / name, tmp_path / "second" / name
    written = export_labels(run, first, everyone)
    assert len(written) == (9 if everyone else 6)
    assert import_labels(other, first).added == len(written)
    again = export_labels(other, second, everyone)
    assert [said(a) for a in again] == [said(a) for a in written]
    if name != "labels.csv.gz":  # gzip says when it was made
        assert contents(second) == contents(first)
    ours, theirs = Labels(run.labels_path).current(), Labels(other.labels_path).current()
    for sample, annotation in theirs.items():
        assert annotation.source == f"{ours[sample].source}, imported from {name}"
        assert said(annotation) == said(ours[sample])


def test_importing_twice_adds_nothing(run, other, tmp_path):
    export_labels(run, tmp_path / "a.npz", everyone=True)
    first, second = (import_labels(other, tmp_path / "a.npz") for _ in range(2))
    assert (first.added, first.known, second.added, second.known) == (9, 0, 0, 9)
    assert len(Labels(other.labels_path).history(run.samples()["sample"][0])) == 3


def as_before(path):
    """Call the instances what handscope 0.3 called them."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = {"hands" if name == "instances" else name: file[name] for name in file.files}
        np.savez(path, **arrays)
    elif path.suffix == ".parquet":
        pd.read_parquet(path).rename(columns={"instance": "hand"}).to_parquet(path, index=False)
    else:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"instance":', '"hand":').replace(",instance,", ",hand,"), encoding="utf-8")


@pytest.mark.parametrize("name", ["labels.npz", "labels.json", "labels.csv", "labels.parquet"])
def test_a_file_of_the_version_before_is_read(run, other, tmp_path, name):
    written = export_labels(run, tmp_path / name)
    now = (tmp_path / name).read_bytes()
    as_before(tmp_path / name)
    assert (tmp_path / name).read_bytes() != now
    assert import_labels(other, tmp_path / name).added == len(written)
    assert [said(a) for a in Labels(other.labels_path).current().values()] == [said(a) for a in written]


@pytest.mark.parametrize("done", [True, False])
def test_an_older_state_does_not_go_over_its_authors_later_one(run, other, tmp_path, done):
    sample = run.samples()["sample"][3]
    export_labels(run, tmp_path / "a.npz")
    later = replace(painted(other, sample, seed=77, made="2999-01-01 00:00:00"), done=done)
    Labels(other.labels_path).add([later])
    assert import_labels(other, tmp_path / "a.npz").older == 1
    newest = Labels(other.labels_path).newest(sample, later.author)
    assert newest is not None and newest.done == done and np.array_equal(newest.labels, later.labels)


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_are_those_of_pycocotools(mask):
    ours, theirs = encode(mask), coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert (ours["size"], ours["counts"]) == (theirs["size"], theirs["counts"].decode())
    assert np.array_equal(decode(ours), mask)


@given(st.lists(st.integers(0, 70000), min_size=1, max_size=12))
def test_long_runs_too(runs):
    mask = np.repeat(np.arange(len(runs)) % 2 == 1, runs)[:, None]
    if len(mask):
        theirs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode(mask)["counts"] == theirs["counts"].decode() and np.array_equal(decode(encode(mask)), mask)
        assert np.array_equal(decode({"size": [len(mask), 1], "counts": runs}), mask)


def test_pycocotools_reads_the_masks_at_the_size_of_the_image(run, tmp_path):
    written = export_labels(run, tmp_path / "coco.json")
    coco = COCO(str(tmp_path / "coco.json"))
    for annotation in written:
        (image,) = [i for i in coco.loadImgs(coco.getImgIds()) if i["sample"] == annotation.sample]
        assert (run.samples_dir / image["file_name"]).exists()
        for category, label in {"not hand": 1, "good hand": 2, "bad hand": 3}.items():
            objects = coco.loadAnns(coco.getAnnIds(image["id"], coco.getCatIds(category)))
            mask = np.zeros((32, 32), bool)
            for one in objects:
                mask |= coco.annToMask(one) > 0
                assert one["area"] == coco.annToMask(one).sum()
                assert one["bbox"] == coco_masks.toBbox(coco.annToRLE(one)).tolist()
            assert np.array_equal(mask, spread(annotation.labels, 32, 32) == label)


def test_the_other_formats_say_it_to_plain_readers(run, tmp_path):
    written = export_labels(run, tmp_path / "a.npz")
    export_labels(run, tmp_path / "a.csv")
    export_labels(run, tmp_path / "a.parquet")
    export_labels(run, tmp_path / "pngs")
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["labels"], [a.labels for a in written])
        assert file["verdict"].tolist() == [a.verdict for a in written]
    for table in (pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet")):
        tokens = table[table["sample"] == written[2].sample]
        assert len(tokens) == 16 and tokens["label"].tolist() == written[2].labels.ravel().tolist()
        assert tokens["instance"].tolist() == written[2].instances.ravel().tolist()
    picture = Image.open(tmp_path / "pngs" / "SegmentationObject" / f"{written[2].sample}.png")
    assert picture.mode == "P" and np.array_equal(np.asarray(picture), spread(written[2].instances, 32, 32))


def test_masks_of_other_tools_are_gathered_by_most_pixels():
    picture = np.zeros((4, 6), np.uint8)
    picture[:2, :2] = [[3, 3], [3, 0]]
    picture[2:, 4:] = [[2, 0], [0, 0]]
    assert gather(picture, 2, 3).tolist() == [[3, 0, 0], [0, 0, 0]]


# What does not belong


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_sha256": "f" * 64}, "another image"),
        ({"height": 64, "width": 64}, "grid of 4 by 4 tokens, and the sample has 8 by 8"),
        (None, "no sample of"),
    ],
)
def test_labels_of_another_image_grid_or_run_are_refused(run, other, tmp_path, name, change, message):
    export_labels(run, tmp_path / name)
    rows = other.metadata()
    last = max(Labels(run.labels_path).current())
    if change is None:
        rows.pop(run.samples()["sample"][2])
    else:
        rows = {sample: {**row, **change} for sample, row in rows.items()}
    other.write_metadata(rows)
    if change and "height" in change:
        shutil.rmtree(other.trajectories_dir)  # of pictures as they were
        side = {"provenance": {"name": str(tmp_path / "pipe")}}
        other.write_settings(side)
        (tmp_path / "pipe" / "vae").mkdir(parents=True)
        (tmp_path / "pipe" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
        (tmp_path / "pipe" / "vae" / "config.json").write_text('{"block_out_channels": [8, 8, 8]}')
    with pytest.raises(HandscopeError, match=message):
        import_labels(other, tmp_path / name)
    assert last and Labels(other.labels_path).current() == {}


def damaged(path, kind):
    if path.is_dir():
        path = path / LIST
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "noise": b"\x00\xff" * 200, "empty": b"", "list": b"[]"}[kind])


@pytest.mark.parametrize("kind", ["cut", "noise", "empty", "list"])
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_refused_and_change_nothing(run, other, tmp_path, name, kind):
    export_labels(run, tmp_path / name)
    damaged(tmp_path / name, kind)
    if name == "labels" and kind == "empty":
        assert import_labels(other, tmp_path / name).added == 0
        return
    with pytest.raises(HandscopeError) as refusal:
        import_labels(other, tmp_path / name)
    assert "\n" not in str(refusal.value) and Labels(other.labels_path).current() == {}


def test_contradictions_in_a_file_are_refused(run, other, tmp_path):
    export_labels(run, tmp_path / "a.json")
    whole = json.loads((tmp_path / "a.json").read_text())
    cases = {
        "polygons are not read": lambda w: w["annotations"][0].update(segmentation=[[0, 0, 1, 1, 0, 1]]),
        "sum to": lambda w: w["annotations"][0]["segmentation"].update(counts=[5, 5]),
        "category 9": lambda w: w["annotations"][0].update(category_id=9),
        "fine": lambda w: w["images"][0]["judgements"][0].update(verdict="fine"),
        "printable": lambda w: w["images"][0]["judgements"][0].update(author="a\nb"),
        "Invalid isoformat": lambda w: w["images"][0]["judgements"][0].update(made="soon"),
    }
    for message, change in cases.items():
        changed = json.loads(json.dumps(whole))
        change(changed)
        (tmp_path / "b.json").write_text(json.dumps(changed))
        with pytest.raises(HandscopeError, match=message):
            import_labels(other, tmp_path / "b.json")
    table = pd.read_csv(tmp_path / "a.csv") if export_labels(run, tmp_path / "a.csv") else None
    table.iloc[1:].to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(HandscopeError, match="one row in .* for each of the 4 by 4 tokens"):
        import_labels(other, tmp_path / "b.csv")
    export_labels(run, tmp_path / "pngs")
    line = json.loads((tmp_path / "pngs" / LIST).read_text().splitlines()[0])
    (tmp_path / "pngs" / LIST).write_text(json.dumps({**line, "class": "../a.csv"}) + "\n")
    with pytest.raises(HandscopeError, match="outside its folder"):
        import_labels(other, tmp_path / "pngs")
    assert Labels(other.labels_path).current() == {}


def test_where_not_to_write(run, bare, tmp_path):
    for name, message in {"a.txt": "ending in .npz", "a.gz": "ending in .npz"}.items():
        with pytest.raises(HandscopeError, match=message):
            export_labels(run, tmp_path / name)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(HandscopeError, match="other files"):
        export_labels(run, tmp_path / "full")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HandscopeError, match="Expected a folder"):
        export_labels(run, tmp_path / "file")
    with pytest.raises(HandscopeError, match="no labels at"):
        import_labels(run, tmp_path / "missing.npz")


def test_nothing_to_export(bare, tmp_path):
    with pytest.raises(HandscopeError, match="no finished labels"):
        export_labels(bare, tmp_path / "a.npz")


def test_the_commands(run, other, tmp_path, capsys):
    path = str(tmp_path / "labels.parquet")
    assert cli.main(["labels", "export", str(run.path), path, "--everyone"]) == 0
    assert "9 annotations by Bén, 2nd “look”, ada, cy in" in capsys.readouterr().out
    assert cli.main(["labels", "import", str(other.path), path]) == 0
    assert cli.main(["labels", "import", str(other.path), path]) == 0
    out = capsys.readouterr().out
    assert "9 annotations of" in out and "0 annotations of" in out and "9 were here already" in out
    assert cli.main(["labels", "agreement", str(other.path)]) == 0
    out = capsys.readouterr().out
    assert "token kappa" in out and "to review in" in out
    written = pd.read_csv(other.analysis_dir / "agreement.csv")
    assert set(written["measure"]) == {"verdict kappa", "token kappa", "hand IoU", "verdict alpha"}
    assert list(pd.read_csv(other.analysis_dir / "to_review.csv")) == ["sample", "disagreement", "why", "reviewed"]
    assert cli.main(["labels", "import", str(other.path), str(tmp_path / "none.npz")]) == 2
    assert cli.main(["labels", "export", str(tmp_path / "no run"), path]) == 2


def test_agreement_of_one_annotator_is_said_in_words(finished_run, capsys):
    assert cli.main(["labels", "agreement", str(finished_run.path)]) == 0
    assert "nothing can be compared" in capsys.readouterr().out


def test_parquet_without_pyarrow_is_said(run, tmp_path, monkeypatch):
    export_labels(run, tmp_path / "a.parquet")
    monkeypatch.setattr(pd.DataFrame, "to_parquet", without_pyarrow)
    monkeypatch.setattr(pd, "read_parquet", without_pyarrow)
    for act in (export_labels, import_labels):
        with pytest.raises(HandscopeError, match=r"pip install 'handscope\[parquet\]'"):
            act(run, tmp_path / "a.parquet")


def without_pyarrow(*_, **__):
    raise ImportError("Unable to find a usable engine; tried using: 'pyarrow', 'fastparquet'.")
