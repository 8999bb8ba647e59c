"""Labels that other tools wrote: matched with samples, on the right tokens, filled in, or refused by name."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from handscope import cli
from handscope.errors import HandscopeError
from handscope.labeling.database.annotation import Annotation
from handscope.labeling.database.labels import Labels
from handscope.labeling.exchange.elsewhere import match_labels
from handscope.labeling.exchange.importing import import_labels
from handscope.run.folder import Run
from made_runs import make_run
from PIL import Image

SIDE, GRID = 32, (4, 4)  # tokens of 8 pixels


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", n=4, prompts=2, side=SIDE)


def names(run: Run) -> list[str]:
    return list(run.metadata())


def corner() -> np.ndarray:
    """A mask of pixels whose tokens are the first row but its last."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:8, :24] = 1
    return mask


TOKENS = np.zeros(GRID, int)
TOKENS[0, :3] = 3


def csv_of_names(run: Run, folder: Path) -> Path:
    first, second, *_ = names(run)
    (folder / "mine.csv").write_text(f"sample,verdict\n{first},bad\n{second},good\n")
    return folder / "mine.csv"


def csv_of_files(run: Run, folder: Path) -> Path:
    first, second, *_ = names(run)
    (folder / "mine.csv").write_text(f"\ufefffile_name,label\nsamples/{first}.png,bad\nC:\\\\x\\{second}.png,good\n")
    return folder / "mine.csv"


def csv_of_seeds(run: Run, folder: Path) -> Path:
    first, second, *_ = run.metadata().values()
    lines = [f'"{row["prompt"]}",{row["seed"]},{said}' for row, said in ((first, "bad"), (second, "good"))]
    (folder / "mine.csv").write_text("\n".join(["prompt,seed,label", *lines]))
    return folder / "mine.csv"


def lines(run: Run, folder: Path) -> Path:
    first, second, *_ = names(run)
    said = [{"image": f"{first}.png", "class": "bad"}, {"image": f"{second}.png", "class": "good"}]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, said)))
    return folder / "mine.jsonl"


def sorted_pictures(run: Run, folder: Path) -> Path:
    for sample, said in zip(names(run), ("bad", "good"), strict=False):
        (folder / "sorted" / said).mkdir(parents=True)
        shutil.copy(run.image_path(sample), folder / "sorted" / said)
    return folder / "sorted"


def hugging_face(run: Run, folder: Path) -> Path:
    """As ``datasets.Dataset.to_parquet`` writes pictures and a ClassLabel: known by their pixels alone."""
    pictures = [{"bytes": run.image_path(sample).read_bytes(), "path": None} for sample in names(run)[:2]]
    features = {"image": {"_type": "Image"}, "label": {"names": ["good", "bad"], "_type": "ClassLabel"}}
    table = pa.table({"image": pictures, "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, folder / "train.parquet")
    return folder / "train.parquet"


def fiftyone_classes(run: Run, folder: Path) -> Path:
    first, second, *_ = names(run)
    (folder / "labels.json").write_text(json.dumps({"classes": ["good", "bad"], "labels": {first: 1, second: "good"}}))
    return folder


def label_studio_choices(run: Run, folder: Path) -> Path:
    def task(sample: str, said: str) -> dict[str, object]:
        result = {"type": "choices", "value": {"choices": [said]}}
        cancelled = {"was_cancelled": True, "result": [{"type": "choices", "value": {"choices": ["unsure"]}}]}
        return {
            "data": {"image": f"/data/upload/1/3fa0c1d2-{sample}.png"},
            "annotations": [{"result": [result]}, cancelled],
        }

    first, second, *_ = names(run)
    (folder / "tasks.json").write_text(json.dumps([task(first, "bad"), task(second, "good")]))
    return folder / "tasks.json"


@pytest.mark.parametrize("form", [
    csv_of_names, csv_of_files, csv_of_seeds, lines, sorted_pictures, hugging_face, fiftyone_classes,
    label_studio_choices,
])  # fmt: skip
def test_a_verdict_of_each_picture(run: Run, tmp_path: Path, form) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    assert import_labels(run, form(run, folder)).added == 2
    found = Labels(run.labels_path).current()
    first, second, *_ = names(run)
    assert (found[first].verdict, found[second].verdict) == ("bad", "good")
    assert (found[first].labels == 3).all() and (found[second].labels == 2).all(), "of the whole picture"
    shutil.rmtree(folder)
    folder.mkdir()
    again = import_labels(run, form(run, folder))
    assert (again.added, again.known) == (0, 2)


def token_csv(run: Run, folder: Path) -> Path:
    first = names(run)[0]
    rows = [f"{first},{row},{col},3" for row, col in zip(*np.nonzero(TOKENS), strict=True)] + [f"{first},3,3,1"]
    (folder / "tokens.csv").write_text("\n".join(["sample,row,col,label", *rows]))
    return folder / "tokens.csv"


def token_words(run: Run, folder: Path) -> Path:
    first = names(run)[0]
    rows = [f"{first},{row},{col},bad hand" for row, col in zip(*np.nonzero(TOKENS), strict=True)]
    (folder / "tokens.csv").write_text("\n".join(["sample,row,column,label", *rows, f"{first},3,3,not hand"]))
    return folder / "tokens.csv"


def boxes(run: Run, folder: Path) -> Path:
    first = names(run)[0]
    rows = ["sample,label,x,y,width,height", f"{first},bad,0,0,24,8", f"{first},not hand,24,24,8,8"]
    (folder / "boxes.csv").write_text("\n".join(rows))
    return folder / "boxes.csv"


def masks_of_pixels(run: Run, folder: Path) -> Path:
    (folder / "masks").mkdir()
    Image.fromarray(corner() * 255).save(folder / "masks" / f"{names(run)[0]}.png")
    return folder / "masks"


def arrays(run: Run, folder: Path) -> Path:
    np.savez(folder / "masks.npz", **{names(run)[0]: corner() > 0})
    return folder / "masks.npz"


def arrays_of_tokens(run: Run, folder: Path) -> Path:
    np.savez(folder / "masks.npz", **{names(run)[0]: TOKENS > 0})
    return folder / "masks.npz"


def coco(run: Run, folder: Path) -> Path:
    picture = {"id": 1, "file_name": f"{names(run)[0]}.png", "height": SIDE, "width": SIDE}
    box = {"image_id": 1, "category_id": 7, "bbox": [0, 0, 24, 8]}
    whole = {"images": [picture], "annotations": [box], "categories": [{"id": 7, "name": "bad"}]}
    (folder / "coco.json").write_text(json.dumps(whole))
    return folder / "coco.json"


def fiftyone_boxes(run: Run, folder: Path) -> Path:
    box = {"label": 0, "bounding_box": [0, 0, 0.75, 0.25]}
    (folder / "labels.json").write_text(json.dumps({"classes": ["bad"], "labels": {names(run)[0]: [box]}}))
    return folder / "labels.json"


def fiftyone_samples(run: Run, folder: Path) -> Path:
    box = {"label": "bad", "bounding_box": [0, 0, 0.75, 0.25], "_cls": "Detection"}
    field = {"_cls": "Detections", "detections": [box]}
    sample = {"filepath": f"data/{names(run)[0]}.png", "tags": [], "ground_truth": field}
    (folder / "samples.json").write_text(json.dumps({"samples": [sample]}))
    return folder


def label_studio_polygon(run: Run, folder: Path) -> Path:
    points = [[0, 0], [74, 0], [74, 24], [0, 24]]
    value = {"points": points, "polygonlabels": ["bad"]}
    result = {"type": "polygonlabels", "original_width": SIDE, "original_height": SIDE, "value": value}
    task = {"data": {"image": f"{names(run)[0]}.png"}, "annotations": [{"result": [result]}]}
    (folder / "tasks.json").write_text(json.dumps([task]))
    return folder / "tasks.json"


PLACES = [
    token_csv, token_words, boxes, masks_of_pixels, arrays, arrays_of_tokens, coco, fiftyone_boxes, fiftyone_samples,
    label_studio_polygon,
]  # fmt: skip


@pytest.mark.parametrize("form", PLACES)
def test_a_place_is_on_its_tokens(run: Run, tmp_path: Path, form) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    one = match_labels(run, form(run, folder))[0].annotation
    assert one.sample == names(run)[0]
    assert np.array_equal(one.instances > 0, TOKENS > 0)
    unsaid = form in (masks_of_pixels, arrays, arrays_of_tokens)
    assert one.verdict == ("unsure" if unsaid else "bad")
    expected = np.where(TOKENS > 0, 0 if unsaid else 3, 0)
    if form in (token_csv, token_words, boxes):
        expected[3, 3] = 1
    assert np.array_equal(one.labels, expected)


def test_each_half_is_filled_in_from_what_is_there(run: Run, tmp_path: Path) -> None:
    """Verdicts, then masks without one; and masks, then verdicts: the same labels."""
    first = names(run)[0]
    np.savez(tmp_path / "masks.npz", **{first: corner()})
    (tmp_path / "said.csv").write_text(f"sample,label\n{first},bad\n")
    found = []
    for order in (("masks.npz", "said.csv"), ("said.csv", "masks.npz")):
        run.labels_path.unlink(missing_ok=True)
        for name in order:
            import_labels(run, tmp_path / name)
        found.append(Labels(run.labels_path).current()[first])
    for one in found:
        assert one.verdict == "bad" and np.array_equal(one.labels, TOKENS)


def test_a_mask_leaves_doubt_and_faults_as_they_were(run: Run, tmp_path: Path) -> None:
    first = names(run)[0]
    (tmp_path / "said.csv").write_text(f"sample,label,kinds\n{first},bad?,fused\n")
    np.savez(tmp_path / "masks.npz", **{first: corner()})
    for name in ("said.csv", "masks.npz"):
        import_labels(run, tmp_path / name)
    one = Labels(run.labels_path).current()[first]
    assert (one.verdict, one.kinds) == ("bad?", ("fused",)) and np.array_equal(one.labels, TOKENS)


def test_a_contradiction_is_refused_where_other_rows_are_fine(run: Run, tmp_path: Path) -> None:
    first, second, *_ = names(run)
    (tmp_path / "said.csv").write_text(f"sample,label\n{second},good\n{first},bad\n{first},good\n")
    with pytest.raises(HandscopeError, match="must agree"):
        import_labels(run, tmp_path / "said.csv")
    assert not run.labels_path.exists()


def test_labels_of_a_dataset_object(run: Run) -> None:
    pictures = [Image.open(run.image_path(sample)) for sample in names(run)[:2]]
    for picture in pictures:
        picture.load()
        picture.filename = ""

    class Rows(list):
        features = {"image": None, "label": SimpleNamespace(names=["good", "bad"])}

    matched = match_labels(run, Rows({"image": picture, "label": said} for picture, said in zip(pictures, (1, 0))))
    assert [one.annotation.verdict for one in matched] == ["bad", "good"]
    assert [one.annotation.sample for one in matched] == names(run)[:2]


def test_words_of_ones_own(run: Run, tmp_path: Path) -> None:
    first, second, third, _ = names(run)
    path = tmp_path / "mine.csv"
    path.write_text(f"sample,label,annotator\n{first},0,Ada\n{second},1,Ada\n{third},2,Bo\n")
    with pytest.raises(HandscopeError, match=r"'0', '1', '2'.*--good and --bad"):
        match_labels(run, path)
    matched = match_labels(run, path, good=["0"], bad=["1"])
    assert [(one.annotation.verdict, one.annotation.author) for one in matched] == [("good", "Ada"), ("bad", "Ada")]


FIRST = "{first}"


@pytest.mark.parametrize(("text", "words"), [
    ("picture,label\nx,bad\n", r"names the picture.*found picture, label"),
    (f"sample,judgement\n{FIRST},bad\n", r"column in .* with the label.*found sample, judgement"),
    ("sample,label\nnobody,bad\n", r"1 of 1 pictures.*'nobody'"),
    (f"sample,label\n{FIRST},bad\nnobody,bad\n", r"1 of 2 pictures.*--skip-unknown"),
    (f"sample,label\n{FIRST},bad\n{FIRST},good\n", "'bad' and 'good' of .* two rows of one picture must agree"),
    (f"sample,label\n{FIRST},bad\n{FIRST}.png,good\n", "under two names"),
    (f"sample,row,col,label\n{FIRST},4,0,3\n", "row 4, col 0 is not on the grid of 4 by 4"),
    (f"sample,label,x,y,width,height\n{FIRST},bad,0,0,99,8\n", "not within the 32 by 32 pixels"),
    ("", "is damaged"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_written(run: Run, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text.replace(FIRST, names(run)[0]))
    with pytest.raises(HandscopeError, match=words):
        import_labels(run, path)
    assert not run.labels_path.exists()


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.json", b"{", "could not be read as labels|damaged"),
    ("a.json", b'{"images": 3}', "Expected COCO, FiftyOne"),
    ("a.npz", b"PK", "could not be read|damaged"),
    ("a.txt", b"good", "Expected labels in a .csv"),
    ("a.parquet", b"PAR1", "could not be read|damaged"),
])  # fmt: skip
def test_damaged_files_are_named(run: Run, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HandscopeError, match=words):
        import_labels(run, tmp_path / name)


def test_arrays_of_another_form_are_named(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "masks.npz", **{names(run)[0]: np.zeros((2, 4, 4), bool)})
    with pytest.raises(HandscopeError, match=r"shape \(rows, columns\).*\(2, 4, 4\)"):
        import_labels(run, tmp_path / "masks.npz")
    np.savez(tmp_path / "masks.npz", **{names(run)[0]: np.ones((5, 5), bool)})
    with pytest.raises(HandscopeError, match="5 by 5, and the picture of 32 by 32"):
        import_labels(run, tmp_path / "masks.npz")


def test_the_command_shows_what_it_matched_before_it_writes(run: Run, tmp_path: Path, capsys) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["sample,label", *(f"{sample},bad" for sample in names(run))]))
    assert cli.main(["labels", "import", str(run.path), str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{names(run)[0]} → {names(run)[0]}: bad, tokens: 16 bad" in said and "nothing was" in said
    assert not run.labels_path.exists()
    assert cli.main(["labels", "import", str(run.path), str(path), "--author", "Ada"]) == 0
    assert "4 annotations" in capsys.readouterr().out
    assert {one.author for one in Labels(run.labels_path).current().values()} == {"Ada"}


def test_annotations_can_be_made_by_hand(run: Run) -> None:
    rows, instances = run.metadata(), np.ones(GRID, np.uint8)
    labels = Labels(run.labels_path)
    labels.add([
        Annotation(sample, rows[sample]["image_sha256"], instances * 3, instances, "bad", author="me")
        for sample in names(run)
    ])  # fmt: skip
    assert set(pd.DataFrame(labels.table())["verdict"]) == {"bad"}
