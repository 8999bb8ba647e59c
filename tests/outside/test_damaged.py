"""What damaged files did to readers when atheris made them, and what a reader must do with each: see README.md."""

import json
import shutil
import zipfile

import h5py
import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.extract.store.check import check
from handscope.extract.store.consolidate import consolidate
from handscope.extract.store.shard import DamagedError
from handscope.extract.store.store import ActivationStore
from handscope.labeling.database.labels import Annotation, Labels
from handscope.labeling.exchange.export import export_labels
from handscope.labeling.exchange.importing import import_labels
from handscope.run.record import RECORD, entry_of, fresh, made_from
from handscope.stages import LABEL, REPORT
from made_runs import make_run
from made_stores import make_folder, make_shard


@pytest.fixture
def shard(tmp_path):
    make_shard(tmp_path, "s00", 1)
    return tmp_path / "shards" / "s00.h5"


@pytest.fixture
def store(tmp_path):
    make_folder(tmp_path, range(3))
    return consolidate(tmp_path)


def a_time(file):
    kind = h5py.h5t.UNIX_D32LE
    h5py.h5a.create(file.id, b"when", kind, h5py.h5s.create(h5py.h5s.SCALAR))


def other_columns(file):
    del file["tokens"]
    file["tokens"] = np.zeros(4, [("row", "i4"), ("column", "i4")])


def other_activations(file):
    del file["activations"]
    file["activations"] = np.zeros((4, 16), np.float32)


def other_width(file):
    file.attrs["width"] = 9007199254741008


SHARDS = {
    "a type that numpy lacks": a_time,
    "tokens of other columns": other_columns,
    "activations of another form": other_activations,
    "another width": other_width,
    "a plan that is none": lambda file: file.attrs.update({"plan": "[1]"}),
    "a plan that is no JSON": lambda file: file.attrs.update({"plan": "{"}),
    "no width": lambda file: file.attrs.__delitem__("width"),
    "a table of one value": lambda file: (file.__delitem__("tokens"), file.create_dataset("tokens", data=3)),
    "a type in place of a table": lambda file: (file.__delitem__("steps"), file.__setitem__("steps", np.dtype("i4"))),
    "no steps": lambda file: file.__delitem__("steps"),
}


def read(path):
    store = ActivationStore(path, labels={})
    for cell in store.cells:
        store.read(cell.block, cell.step)
    for sample in store.samples:
        store.sample(sample)


@pytest.mark.parametrize("what", SHARDS)
def test_a_damaged_shard(what, shard):
    with h5py.File(shard, "r+") as file:
        SHARDS[what](file)
    with pytest.raises(DamagedError, match=r"s00\.h5"):
        read(shard)
    assert check(shard)


@pytest.mark.parametrize("form", [np.dtype("i4"), 3])
def test_a_damaged_survey(form, tmp_path):
    from handscope.extract.survey.surveyed import SCHEMA, reading, write_moments

    path = tmp_path / "s.h5"
    write_moments(path, np.zeros((1, 2, 3, 4)), [3], np.zeros(1, "i4"), {"schema": SCHEMA})
    with h5py.File(path, "r+") as file:
        del file["moments"]
        file["moments"] = form
    with pytest.raises(DamagedError, match=r"s\.h5 is truncated or damaged"), reading(path) as file:
        file["moments"][:]


def test_a_damaged_store(store):
    with h5py.File(store, "r+") as file:
        kept = file["sample_attrs"][:]
        del file["sample_attrs"]
        file.create_dataset("sample_attrs", data=["{", *kept[1:]], dtype=h5py.string_dtype())
    with pytest.raises(DamagedError, match=r"store\.h5 is .*damaged"):
        read(store)


def test_a_damaged_store_whose_sample_has_a_name_of_other_bytes(store):
    with h5py.File(store, "r+") as file:
        samples = file["samples"][:]
        samples["sample"][0] = b"\xff\xfe"
        file["samples"][:] = samples
    with pytest.raises(DamagedError, match=r"store\.h5 is damaged .*utf-8"):
        read(store)


def labelled(folder):
    run, grid = make_run(folder, n=1, prompts=1, side=16), np.ones((2, 2))
    [(sample, row)] = run.metadata().items()
    Labels(run.labels_path).add([Annotation(sample, row["image_sha256"], grid, 0 * grid, "good", author="a")])
    return run


def test_a_zip_that_python_cannot_open(tmp_path):
    run, path = labelled(tmp_path / "run"), tmp_path / "l.npz"
    export_labels(run, path)
    data = bytearray(path.read_bytes())
    for place in range(len(data) - 4):
        if data[place : place + 4] == b"PK\x01\x02":
            data[place + 10 : place + 12] = (99).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(NotImplementedError), zipfile.ZipFile(path) as file:
        file.read(file.namelist()[0])
    with pytest.raises(HandscopeError, match=r"l\.npz is damaged"):
        import_labels(run, path)


def test_a_mask_of_no_rows(tmp_path):
    run, path = labelled(tmp_path / "run"), tmp_path / "l.json"
    export_labels(run, path)
    whole = json.loads(path.read_text())
    whole["images"][0]["rows"] = 0
    path.write_text(json.dumps(whole))
    with pytest.raises(HandscopeError, match="0 by 2 whole tokens"):
        import_labels(run, path)


def test_a_table_of_a_number_without_end(tmp_path):
    run, path = labelled(tmp_path / "run"), tmp_path / "l.csv"
    export_labels(run, path)
    head, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, first.replace(",0,", f",{'9' * 30},", 1), *rest]))
    with pytest.raises(HandscopeError, match=r"l\.csv is damaged"):
        import_labels(run, path)


def test_a_record_whose_labels_say_nothing(tmp_path):
    from handscope.run.record import _label_files

    run = labelled(tmp_path / "run")
    record = {"labels": {"files": _label_files(run.labels_path)}, "stages": {"label": 3}}
    (run.path / RECORD).write_text(json.dumps(record))
    assert fresh(run.path, LABEL, made_from(run.path, REPORT, {})) is None and entry_of(run.path, LABEL) == {}
    shutil.rmtree(run.path)
