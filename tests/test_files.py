"""Files that stages write: their mode is the one that the umask asks for."""

import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.extract.store.consolidate import consolidate
from handscope.files import append, atomic, whole_folder, write_csv
from handscope.labeling.database.labels import Annotation, Labels
from handscope.run.folder import Run
from made_runs import make_run
from made_stores import make_folder


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_every_file_has_the_mode_that_the_umask_asks_for(tmp_path: Path, umask: int) -> None:
    from safetensors.numpy import save_file

    before = os.umask(umask)
    try:
        run: Run = make_run(tmp_path / "run")
        grid = np.ones((12, 12), np.uint8)
        labels = Labels(run.labels_path)
        with labels.kept_open():
            for sample, row in run.metadata().items():
                labels.add([Annotation(sample, row["image_sha256"], grid, 0 * grid, "unsure")])
            beside = {path.name: path.stat().st_mode for path in run.path.glob("labels.sqlite-*")}
        with run.writing_samples():
            run.append_metadata([])
        append(run.path / "lines.jsonl", b"{}\n")
        write_csv(run.analysis_dir / "table.csv", pd.DataFrame({"a": [1.0]}))
        with atomic(run.analysis_dir / "arrays.safetensors") as temporary:
            save_file({"a": np.ones(3)}, temporary)
        with whole_folder(run.path / "made") as folder:
            (folder / "inner").mkdir()
            save_file({"a": np.ones(3)}, folder / "inner" / "weights.safetensors")
        make_folder(run.activations_dir, range(3))
        consolidate(run.activations_dir)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode for path in run.path.rglob("*") if path.is_file()} | beside
    assert {"labels.sqlite", "labels.sqlite-wal", "store.h5", "run.yaml"} <= set(modes)
    assert {"arrays.safetensors", "weights.safetensors"} <= set(modes)
    assert {name: oct(stat.S_IMODE(mode)) for name, mode in modes.items()} == dict.fromkeys(modes, oct(0o666 & ~umask))


def _refuse() -> None:
    raise OSError("no room")


def test_a_folder_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(text: str, fail: bool = False) -> None:
        with whole_folder(tmp_path / "made") as folder:
            (folder / text).write_text(text)
            assert fail is False, "stopped"

    write("first")
    with pytest.raises(AssertionError, match="stopped"):
        write("second", fail=True)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["first"]
    with monkeypatch.context() as patch:
        rename = Path.rename
        patch.setattr(Path, "rename", lambda one, to: _refuse() if one.name == "new" else rename(one, to))
        with pytest.raises(OSError, match="no room"):
            write("second")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["first"]
    write("third")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["third"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
