"""Further public reports of this kind of work, each tried: README.md says which, and what came of it."""

import errno
import os
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from handscope.errors import HandscopeError, Unusable
from handscope.extract.address import Plan
from handscope.extract.generate import generate
from handscope.extract.replay import replay
from handscope.extract.store.shard import reading
from handscope.labeling.database.labels import Annotation, Labels
from handscope.run.folder import Run
from handscope.study import Study
from made_stores import make_shard
from made_tiny import PROMPTS
from PIL import ImageFile


def test_a_truncated_picture_is_refused_whatever_pillow_is_told(finished_run, run_copy, monkeypatch):
    """python-pillow/Pillow#7504 advises LOAD_TRUNCATED_IMAGES, which makes what is missing black, for all readers."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    run = run_copy(finished_run)
    sample = next(iter(run.metadata()))
    path = run.image_path(sample)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(HandscopeError, match="is not the one that was generated|is damaged"):
        run.image(sample)


def test_a_revision_of_digits_and_an_e_stays_a_text(tmp_path):
    """yaml/pyyaml#417, #393, #886: a git revision such as 695e0514 is dumped without quotes, and read as infinity."""
    run = Run(tmp_path / "run")
    texts = {"revision": "695e0514", "name": "1e6", "base": "no", "dtype": "0123"}
    run.write_settings({"provenance": texts})
    assert Run(run.path).settings["provenance"] == texts
    path = tmp_path / "study.yaml"
    path.write_text("run: x\nprompts: [a hand]\nseeds: [0]\nrevision: 695e0514\n")
    with pytest.raises(HandscopeError, match="'revision' .* stands in quotes where it looks like a number, found inf"):
        Study.from_yaml(path)
    path.write_text(yaml.safe_dump({"run": "x", "prompts": ["a hand"], "seeds": [0]}) + "revision: '695e0514'\n")
    assert Study.from_yaml(path).revision == "695e0514"


def test_each_sample_of_a_batch_can_be_made_alone(tiny_model, tmp_path):
    """huggingface/diffusers#208, #3158 and #6233: of a batch, only the first picture had a seed of its own."""
    together, alone = Run(tmp_path / "together"), Run(tmp_path / "alone")
    generate(tiny_model, together, PROMPTS[:1], range(3), steps=1, batch_size=3, trajectories=False)
    for seed in reversed(range(3)):
        generate(tiny_model, alone, PROMPTS[:1], [seed], steps=1, batch_size=1, trajectories=False)
    noises = [{sample: row["noise_sha256"] for sample, row in run.metadata().items()} for run in (together, alone)]
    assert noises[0] == noises[1] and len(set(noises[0].values())) == 3
    # huggingface/diffusers#2659 and #6222: their last bits depend on the batch size, which is on record for each.
    assert [{row["batch_size"] for row in run.metadata().values()} for run in (together, alone)] == [{3}, {1}]


def test_steps_that_begin_late_are_bound_to_themselves(tiny_model, finished_run):
    """ndif-team/nnsight#718: a loop that begins above the first step, or goes back, holds the next step's values."""
    sample = next(iter(finished_run.metadata()))
    given = ([finished_run.metadata()[sample]["prompt"]], [finished_run.trajectory(sample)], 3.5, 32, 32)
    whole = replay(tiny_model, Plan(["double.1", "single.2"], [4, 3, 2, 1], of=4), *given).take()
    assert len({float(rows.double().sum()) for rows in whole.values()}) == 8
    for steps in ([3, 2], [1], [2, 4]):
        for cell, rows in replay(tiny_model, Plan(["single.2", "double.1"], steps, of=4), *given).take().items():
            assert torch.equal(rows, whole[cell]), cell


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_a_share_that_went_away_left_no_damage(number, tmp_path, monkeypatch):
    """h5py/h5py#2043: a network share that is gone is a RuntimeError with the system's number in its text."""
    make_shard(tmp_path, "s00", 0)
    path, get = tmp_path / "shards" / "s00.h5", h5py.Group.__getitem__

    def gone(group, name):
        if name == "tokens":
            raise RuntimeError(f"Unable to get group info (file read failed: errno = {number}, error message = '...')")
        return get(group, name)

    monkeypatch.setattr(h5py.Group, "__getitem__", gone)
    with pytest.raises(Unusable, match=r"s00\.h5 could not be read"), reading(path) as file:
        file["tokens"]


def test_labels_in_a_folder_that_may_not_be_written_to_are_read():
    """fr-ser/grafana-sqlite-datasource#168: SQLite wants to write a log beside what it reads."""
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        labels = Labels(folder / "labels.sqlite")
        labels.add([Annotation("s", "0" * 64, np.ones((2, 2)), np.zeros((2, 2)), "unsure", author="ada")])
        folder.chmod(0o555)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            assert labels.current()["s"].author == "ada" and len(labels.table()) == 1 and labels.fingerprint()
            with pytest.raises(Unusable, match="could not be used now"):
                labels.add(list(labels.current().values()))
            assert [path.name for path in folder.iterdir()] == ["labels.sqlite"]
        finally:
            os.seteuid(before)
            folder.chmod(0o755)
        labels.add(list(labels.current().values()))
        assert len(labels.history("s")) == 2
