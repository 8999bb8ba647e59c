"""Files that stages write: their mode is the one that the umask asks for."""

import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope.extract.store.consolidate import consolidate
from handscope.files import append, atomic, write_csv
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
        make_folder(run.activations_dir, range(3))
        consolidate(run.activations_dir)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode for path in run.path.rglob("*") if path.is_file()} | beside
    assert {"labels.sqlite", "labels.sqlite-wal", "arrays.safetensors", "store.h5", "run.yaml"} <= set(modes)
    assert {name: oct(stat.S_IMODE(mode)) for name, mode in modes.items()} == dict.fromkeys(modes, oct(0o666 & ~umask))
