"""Given pictures: every form of folder, fitted, labelled, and refused where they cannot be used."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from handscope import cli
from handscope.errors import HandscopeError
from handscope.labeling.database.labels import Labels
from handscope.labeling.exchange.elsewhere import match_labels
from handscope.labeling.exchange.export import export_labels
from handscope.labeling.exchange.fit import WAYS, fitted
from handscope.labeling.exchange.pictures import LEFT_OUT, import_pictures
from handscope.labeling.exchange.rle import encode
from handscope.labeling.table import sample_table
from handscope.run.folder import Run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

BOX = (8, 0, 16, 16)  # left, top, width, height: two by two tokens of 8 pixels
TOKENS = [(0, 1), (0, 2), (1, 1), (1, 2)]


def picture(path: Path, seed: int, size: tuple[int, int] = (32, 32), **how: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **how)


def box_mask() -> np.ndarray:
    mask = np.zeros((32, 32), bool)
    mask[:16, 8:24] = True
    return mask


def lines(folder: Path, rows: list[dict]) -> Path:
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def table(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path.parent


def coco(folder: Path, **annotation: object) -> Path:
    said = {
        "images": [{"id": 5 + i, "file_name": f"{name}.png", "height": 32, "width": 32} for i, name in enumerate("ab")],
        "categories": [{"id": 1, "name": "mangled"}, {"id": 2, "name": "fine"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 1, **annotation},
            {"id": 2, "image_id": 6, "category_id": 2, **annotation},
            {"id": 3, "image_id": 6, "category_id": 3, "bbox": [0, 0, 32, 32]},
        ],
    }
    (folder / "instances.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def with_masks(folder: Path) -> Path:
    (folder / "masks").mkdir()
    for name in "ab":
        Image.fromarray(box_mask()).save(folder / "masks" / f"{name}.png")
    rows = [{"file": f"{n}.png", "label": v, "mask": f"masks/{n}.png"} for n, v in zip("ab", ("bad", "good"))]
    return table(folder / "labels.csv", rows)


x, y, width, height = BOX
FORMS = {
    "imagefolder": lambda folder: lines(
        folder,
        [
            {"file_name": "a.png", "verdict": "bad", "objects": {"bbox": [BOX]}},
            {"file_name": "b.png", "objects": {"bbox": [BOX], "categories": ["good hand"]}},
        ],
    ),
    "metadata.csv": lambda folder: table(
        folder / "metadata.csv",
        [
            {"file_name": f"{name}.png", "text": "a hand", "label": label, "bbox": json.dumps(BOX)}
            for name, label in zip("ab", ("mangled", "fine"))
        ],
    ),
    "plain csv": lambda folder: table(
        folder / "mine.csv",
        [
            {"path": f"{name}.png", "label": label, "x": x, "y": y, "width": width, "height": height}
            for name, label in zip("ab", ("bad", "good"))
        ],
    ),
    "masks": with_masks,
    "boxes of COCO": lambda folder: coco(folder, bbox=BOX),
    "polygons": lambda folder: coco(folder, segmentation=[[8, 0, 23, 0, 23, 15, 8, 15]], bbox=[0, 0, 1, 1]),
    "run lengths": lambda folder: coco(folder, segmentation=encode(box_mask())),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_the_same(form: str, tiny_model, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for seed, name in enumerate("ab"):
        picture(folder / f"{name}.png", seed)
    run = Run(tmp_path / "run")
    done = import_pictures(tiny_model, run, FORMS[form](folder), good=["fine"], bad=["mangled"])
    assert done.added == done.labels == 2
    labels = Labels(run.labels_path).current()
    for sample, seed, verdict, label in zip(done.samples, (0, 1), ("bad", "good"), (3, 2)):
        made = labels[sample]
        assert (made.verdict, made.author) == (verdict, "given") and made.source.startswith("given, ")
        assert list(zip(*made.instances.nonzero())) == TOKENS
        assert np.array_equal(made.labels, label * (made.instances > 0))  # what is not said stays unlabelled
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
        assert np.array_equal(run.image(sample), pixels)
        assert run.metadata()[sample]["prompt"] == ("a hand" if form == "metadata.csv" else "")
    assert run.samples()["prompt"].nunique() == (1 if form == "metadata.csv" else 2)
    again = import_pictures(tiny_model, run, folder, good=["fine"], bad=["mangled"])
    assert (again.added, again.labels) == (0, 0) and len(run.samples()) == 2


def test_pictures_alone_and_folders_that_are_verdicts(tiny_model, tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "good" / "a.png", 0)
    picture(tmp_path / "pictures" / "bad" / "b.jpg", 1)
    picture(tmp_path / "pictures" / "c.webp", 2)
    run = Run(tmp_path / "run")
    done = import_pictures(tiny_model, run, tmp_path / "pictures", prompt="a hand")
    found = Labels(run.labels_path).current()
    verdicts = {run.metadata()[sample]["given"]["name"]: made.verdict for sample, made in found.items()}
    assert verdicts == {"bad/b.jpg": "bad", "good/a.png": "good"} and done.added == 3
    assert all((made.instances == 1).all() for made in found.values())  # a verdict without a place is of the whole
    assert {row["prompt"] for row in run.metadata().values()} == {"a hand"}
    assert run.samples()["prompt"].nunique() == 3


def test_labels_that_handscope_exports_come_back_with_their_pictures(tiny_model, finished_run, tmp_path: Path) -> None:
    """As COCO, whose categories are the words of the subject, that for tokens of no instance among them."""
    path = tmp_path / "pictures" / "labels.json"
    path.parent.mkdir()
    export_labels(finished_run, path)
    for sample in finished_run.metadata():
        (path.parent / f"{sample}.png").write_bytes(finished_run.image_path(sample).read_bytes())
    run = Run(tmp_path / "run")
    import_pictures(tiny_model, run, path)
    before, after = (Labels(r.labels_path).current() for r in (finished_run, run))
    names = {row["given"]["name"].removesuffix(".png"): sample for sample, row in run.metadata().items()}
    assert len(names) == len(before) == len(after)
    for name, sample in names.items():
        assert after[sample].verdict.rstrip("?") == before[name].verdict.rstrip("?")
        assert np.array_equal(after[sample].instances, before[name].instances)
        assert np.array_equal(after[sample].labels, before[name].labels)


def test_several_instances_of_a_picture(tiny_model, tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a.png", 0)
    rows = [
        {"file_name": "a.png", "label": "good", "x": 0, "y": 0, "width": 8, "height": 16, "kinds": ""},
        {"file_name": "a.png", "label": "bad", "x": 16, "y": 16, "width": 16, "height": 16, "kinds": "count, fused"},
        {"file_name": "a.png", "label": "good", "x": 9, "y": 1, "width": 2, "height": 2, "kinds": ""},
    ]
    run = Run(tmp_path / "run")
    import_pictures(tiny_model, run, table(tmp_path / "pictures" / "a.csv", rows))
    (made,) = Labels(run.labels_path).current().values()
    assert made.verdict == "bad" and made.kinds == ("count", "fused")
    assert made.instances.tolist() == [[1, 3, 0, 0], [1, 0, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]]  # a small one keeps one
    assert made.labels.tolist() == [[2, 2, 0, 0], [2, 0, 0, 0], [0, 0, 3, 3], [0, 0, 3, 3]]


@given(
    way=st.sampled_from(WAYS),
    source=st.tuples(st.integers(64, 200), st.integers(64, 200)),
    place=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_a_mask_goes_where_its_pixels_go(way: str, source: tuple[int, int], place: tuple[float, float]) -> None:
    """A white square on black: its mask is where it is seen afterwards, whatever the way."""
    fit = fitted(source, (32, 32), way)
    mask = np.zeros(source, bool)
    top, left = (int(p * s) for p, s in zip(place, source))
    mask[top - 6 : top + 6, left - 6 : left + 6] = True
    pixels = np.repeat(mask[..., None] * np.uint8(255), 3, 2)
    seen = np.asarray(fit.picture(Image.fromarray(pixels)), float)[..., 0] / 255
    inside = fit.inside()
    assert np.abs(seen - fit.mask(mask))[inside].mean() < 0.02
    assert (seen[~inside] == 128 / 255).all() and (fit.mask(mask)[~inside] == 0).all()
    assert inside.all() == (way != "pad" or round(32 * min(source) / max(source)) == 32)


def test_a_picture_is_fitted_as_asked_and_that_is_on_record(tiny_model, tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a.png", 0, (64, 96))
    box = {"file_name": "a.png", "label": "bad", "x": 0, "y": 0, "width": 24, "height": 64}
    folder = table(tmp_path / "pictures" / "a.csv", [box])
    with pytest.raises(HandscopeError, match="a.png: it has 64 by 96 pixels, another aspect .* --fit crop, pad"):
        import_pictures(tiny_model, Run(tmp_path / "none"), folder)
    for way, columns in (("stretch", [0]), ("pad", [0]), ("crop", [0])):
        run = Run(tmp_path / way)
        import_pictures(tiny_model, run, folder, fit=way)
        (sample,) = run.metadata()
        said = run.metadata()[sample]["given"]
        assert said["fit"] == way and said["source_size"] == [64, 96] and run.image(sample).shape == (32, 32, 3)
        made = Labels(run.labels_path).current()[sample]
        assert sorted(set(made.instances.nonzero()[1].tolist())) == columns
    assert said["inner"] == [32, 48] and said["offset"] == [0, -8]
    padded = Labels((tmp_path / "pad") / "labels.sqlite").current()
    (made,) = padded.values()
    assert not made.instances[0].any() or not made.instances[3].any()  # grey bars hold no instance


BAD = {
    "small.png": ((16, 16), {}, "too few for the 32 by 32"),
    "other.png": ((64, 96), {}, "another aspect"),
    "copy.png": ((32, 32), {}, "it is the same picture as a.png"),
    "box.png": ((32, 32), {"x": 24, "y": 0, "width": 16, "height": 8}, "it was labelled on another grid"),
    "mask.png": ((32, 32), {"mask": "small.png"}, "its mask has 16 by 16 pixels"),
    "nomask.png": ((32, 32), {"mask": "nowhere.png"}, "could not be read"),
    "gone.png": (None, {}, "it is not there"),
    "torn.png": ((32, 32), {}, "it could not be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_named_with_what_to_do(name: str, tiny_model, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    picture(folder / "a.png", 0)
    picture(folder / "small.png", 1, (16, 16))
    size, said, expected = BAD[name]
    if size is not None:
        picture(folder / name, 0 if name == "copy.png" else 2, size)
    if name == "torn.png":
        (folder / name).write_bytes((folder / name).read_bytes()[:-400])
    columns = dict.fromkeys(("x", "y", "width", "height", "mask"), "")
    rows = [{"file_name": each, "label": "bad"} | columns | (said if each == name else {}) for each in ("a.png", name)]
    table(folder / "mine.csv", rows)
    run = Run(tmp_path / "run")
    with pytest.raises(HandscopeError, match=f"1 of 2 pictures .* {name}: .*{expected}.*Nothing was imported.*--skip"):
        import_pictures(tiny_model, run, folder)
    assert not run.settings and not run.samples_dir.exists()
    done = import_pictures(tiny_model, run, folder, skip_bad=True)
    assert list(done.left_out) == [name] and len(done.samples) == 1
    assert name in (run.samples_dir / LEFT_OUT).read_text(encoding="utf-8")


def test_labels_that_are_no_verdict_are_named(tiny_model, tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a.png", 0)
    table(tmp_path / "pictures" / "a.csv", [{"file_name": "a.png", "label": "1"}])
    with pytest.raises(HandscopeError, match="'1', which is no verdict .* --good and --bad"):
        import_pictures(tiny_model, Run(tmp_path / "run"), tmp_path / "pictures")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: None, "Expected a folder of pictures"),
        (lambda folder: folder.mkdir(), "There are no pictures in"),
        (lambda folder: table(folder / "a.csv", [{"picture": "a.png"}]), "Expected a column file_name"),
        (lambda folder: [table(folder / f"{n}.csv", [{"file": "a.png"}]) for n in "ab"], "several tables"),
        (lambda folder: (folder.mkdir(), (folder / "a.json").write_text("[1]")), "could not be read as a table"),
    ],
)
def test_folders_that_are_none(make, expected: str, tiny_model, tmp_path: Path) -> None:
    make(tmp_path / "pictures")
    with pytest.raises(HandscopeError, match=expected):
        import_pictures(tiny_model, Run(tmp_path / "run"), tmp_path / "pictures")


def test_one_run_holds_one_way(tiny_model, tmp_path: Path) -> None:
    picture(tmp_path / "pictures" / "a.png", 0)
    run = Run(tmp_path / "run")
    import_pictures(tiny_model, run, tmp_path / "pictures")
    with pytest.raises(HandscopeError, match="generation.noises = 1, and now it is 2"):
        import_pictures(tiny_model, run, tmp_path / "pictures", noises=2)


def test_the_command(tiny_pipe_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "pictures" / "bad" / "a.png", 0)
    picture(tmp_path / "pictures" / "bad" / "b.png", 1, (9, 9))
    command = ["import", str(tmp_path / "pictures"), str(tmp_path / "run"), "--model", str(tiny_pipe_folder)]
    assert cli.main(command) == 2 and "bad/b.png: it has 9 by 9 pixels" in capsys.readouterr().err
    assert cli.main([*command, "--skip-bad"]) == 0
    said = capsys.readouterr().out
    assert "1 given pictures in" in said and "1 of them new; 1 labels; 1 left out" in said
    assert "Not enough yet: An analysis needs at least 5 good and 5 bad" in said


def test_groups_and_names_of_given_pictures_are_known_afterwards(tiny_model, tmp_path: Path, capsys) -> None:
    """Statistics find each picture's group, whatever its prompt; labels may come later, by the names of then."""
    names = ["in/a.png", "in/b.png", "c.png", "d.png"]
    for seed, name in enumerate(names):
        picture(tmp_path / "pictures" / name, seed)
    rows = [{"file_name": n, "caption": "a ring", "label": w} for n, w in zip(names, ("whole", "gap", "whole", "?"))]
    table(tmp_path / "pictures" / "metadata.csv", rows)
    run = Run(tmp_path / "run")
    done = import_pictures(
        tiny_model, run, tmp_path / "pictures", group="file_name", good=["whole"], bad=["gap"]
    )
    assert done.labels == 3 and done.passed_over == ("?",)
    found = sample_table(run)
    assert sorted(found["prompt"]) == ["c.png", "in/a.png", "in/b.png"]
    for lines in ("file,label\na.png,gap\nd,whole\n", "file,label\n/elsewhere/in/a.png,gap\nd.png,whole\n"):
        (tmp_path / "later.csv").write_text(lines, encoding="utf-8")
        matched = match_labels(run, tmp_path / "later.csv", ["whole"], ["gap"])
        given = [run.metadata()[one.annotation.sample]["given"]["name"] for one in matched]
        assert given == ["in/a.png", "d.png"]


def test_a_name_that_two_given_pictures_have_is_that_of_none(tiny_model, tmp_path: Path) -> None:
    for seed, name in enumerate(("one/a.png", "two/a.png")):
        picture(tmp_path / "pictures" / name, seed)
    run = Run(tmp_path / "run")
    import_pictures(tiny_model, run, tmp_path / "pictures")
    (tmp_path / "later.csv").write_text("file,label\na.png,bad\n", encoding="utf-8")
    with pytest.raises(HandscopeError, match="1 of 1 pictures"):
        match_labels(run, tmp_path / "later.csv")
    (tmp_path / "later.csv").write_text("file,label\ntwo/a.png,bad\n", encoding="utf-8")
    assert len(match_labels(run, tmp_path / "later.csv")) == 1
