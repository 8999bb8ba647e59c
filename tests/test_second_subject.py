"""A second subject, a file of a few lines, goes through labelling, exchange and analysis in its own words."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from handscope import cli
from handscope.analysis import analyze
from handscope.errors import HandscopeError
from handscope.labeling.agreement import agreement, review_queue
from handscope.labeling.database.labels import Annotation, Labels
from handscope.labeling.exchange.export import export_labels
from handscope.labeling.exchange.importing import import_labels
from handscope.labeling.subject import load_subject, set_subject, subject_of
from handscope.labeling.suggestions.suggest import suggestions
from handscope.labeling.widget import Desk
from handscope.organism.study.auto import label_auto
from handscope.run.folder import Run
from made_runs import annotating, cells, serving
from subjects import BIRD

OTHERS = re.compile(r"(?i)\b(?:hand|finger|skin)s?\b")


@pytest.fixture(scope="module")
def birds(extracted_run, tmp_path_factory) -> Run:
    """A run with activations, whose labels are of birds: half of the faults in wings, half in beaks."""
    run = Run(shutil.copytree(extracted_run.path, tmp_path_factory.mktemp("birds") / "run"))
    before = Labels(run.labels_path).current()
    for path in run.path.glob("labels.sqlite*"):
        path.unlink()
    set_subject(run, load_subject(BIRD))
    bad = 0
    annotations = []
    for a in before.values():
        kinds: tuple[str, ...] = ()
        if a.verdict.startswith("bad"):
            kinds, bad = (("wing", "beak")[bad % 2],), bad + 1
        annotations.append(Annotation(a.sample, a.image_sha256, a.labels, a.instances, a.verdict, kinds, "ada", "hand"))
    Labels(run.labels_path).add(annotations)
    return run


def test_faults_are_those_of_the_subject(birds):
    a = next(iter(Labels(birds.labels_path).current().values()))
    with pytest.raises(HandscopeError, match="among wing, beak, which the subject bird has, .* found fused"):
        Labels(birds.labels_path).add(
            [Annotation(a.sample, a.image_sha256, a.labels, a.instances, "bad", ("fused",), "ada", "hand")]
        )


def test_a_run_is_begun_with_it(tiny_pipe_folder, tmp_path):
    arguments = ["generate", str(tmp_path / "run"), "--model", str(tiny_pipe_folder)]
    arguments += ["--prompt", "a bird", "--seeds", "0"]
    size = ["--steps", "2", "--height", "32", "--width", "32", "--subject", str(BIRD)]
    assert cli.main([*arguments, *size]) == 0
    run = Run(tmp_path / "run")
    assert subject_of(run) == load_subject(BIRD) and run.settings["generation"]["steps"] == 2
    with pytest.raises(HandscopeError, match="subject bird .* names no judge"):
        label_auto(run)


def test_analyses_know_where_its_faults_are_seen(birds):
    analyze(birds, permutations=9, folds=4)
    found = pd.read_csv(birds.analysis_dir / "contrasts.csv").groupby("contrast")["n_bad"].first()
    sure = Labels(birds.labels_path).table().query("verdict == 'bad'")
    of_scope = sure["kinds"].map(lambda kinds: kinds[0]).value_counts()
    assert found.to_dict() == {"local": of_scope["wing"], "global": of_scope["beak"]}


@pytest.mark.parametrize("name", ["labels.npz", "labels.json", "labels.csv", "labels"])
def test_its_labels_go_out_and_in(birds, tmp_path, name):
    written = export_labels(birds, tmp_path / name)
    other = Run(shutil.copytree(birds.path, tmp_path / "other", ignore=shutil.ignore_patterns("labels.sqlite*")))
    assert import_labels(other, tmp_path / name).added == len(written)
    assert [a.kinds for a in Labels(other.labels_path).current().values()] == [a.kinds for a in written]
    for path in other.path.glob("labels.sqlite*"):
        path.unlink()
    set_subject(other, load_subject("hand"))
    with pytest.raises(HandscopeError, match="subject hand has"):
        import_labels(other, tmp_path / name)
    assert Labels(other.labels_path).current() == {}


def test_masks_for_other_tools_have_its_words(birds, tmp_path):
    export_labels(birds, tmp_path / "coco.json")
    coco = json.loads((tmp_path / "coco.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in coco["categories"]] == ["no bird", "sound bird", "deformed bird", "unclear bird"]
    assert {one["supercategory"] for one in coco["categories"]} == {"bird"}
    assert coco["info"]["description"].startswith("Bird labels")
    assert not OTHERS.search((tmp_path / "coco.json").read_text(encoding="utf-8").replace('"source": "hand"', ""))


def test_annotators_are_compared_in_its_words(birds, tmp_path, capsys):
    run = Run(shutil.copytree(birds.path, tmp_path / "run"))
    turned = {"good": "bad", "bad": "good"}
    annotations = [a for a in Labels(run.labels_path).current().values() if a.verdict in turned][:12]
    second = [
        Annotation(
            a.sample,
            a.image_sha256,
            a.labels if i % 2 else np.zeros_like(a.labels),
            a.instances if i % 2 else np.zeros_like(a.instances),
            a.verdict if i % 2 else turned[a.verdict],
            author="bob",
            source="hand",
        )
        for i, a in enumerate(annotations)
    ]
    Labels(run.labels_path).add(second)
    assert set(agreement(run)["measure"]) == {"verdict kappa", "token kappa", "bird IoU", "verdict alpha"}
    why = " ".join(review_queue(run)["why"])
    assert "ada says sound, bob deformed" in why and "bird tokens of ada and bob overlap by 0.00" in why
    assert cli.main(["labels", "agreement", str(run.path)]) == 0
    assert "bird IoU" in capsys.readouterr().out


def test_only_its_own_suggesters_are_asked(birds):
    found = suggestions(birds, birds.samples()["sample"][0])
    assert [one.source for one in found.found] + list(found.absent) == ["probe"]
    with pytest.raises(HandscopeError, match="silhouette, detector, probe, found oracle"):
        suggestions(birds, birds.samples()["sample"][0], sources=["oracle"])


def test_the_server_and_the_notebook_speak_of_it(birds, tmp_path):
    run = Run(shutil.copytree(birds.path, tmp_path / "run"))
    with serving(run, suggest=None) as address, annotating(address, "Cy") as cy:
        said = cy.get("session").json()["subject"]
        assert said == Desk(run, "Cy", [run.samples()["sample"][0]]).describe()["subject"]
        assert (said["noun"], said["question"], said["levels"][2]) == ("bird", "How sound is the bird?", "It could fly")
        assert said["kinds"][0] == {
            "name": "wing", "scope": "local", "word": "bent wing",
            "meaning": "", "picture": "",
        }
        sample = cy.sample(cy.queue()[0]["sample"])
        done = {"verdict": "good", "done": True}
        refused = cy.stroke(sample, cells(sample, 3), **done)
        assert refused.status_code == 422
        assert "The verdict is sound, and a bird is painted deformed" in refused.json()["error"]
        faults = {"1": ["fused:local"]}
        refused = cy.stroke(sample, cells(sample, 3), faults=faults, **(done | {"verdict": "bad"}))
        assert refused.status_code == 422 and "the subject bird has" in refused.json()["error"]
        faults = {"1": ["wing:global"]}
        assert cy.stroke(sample, cells(sample, 3), faults=faults, **(done | {"verdict": "bad"})).status_code == 201
        assert cy.get(f"samples/{sample['sample']}/suggestions").json() == {"items": [], "absent": {}}


def test_the_file_of_the_second_subject_is_all_that_there_is_of_it():
    root = Path(cli.__file__).parent
    rooms = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    rooms = [room for room in rooms if room.name not in ("tests", "docs", "notebooks", "datasets", "runs", "build")]
    sources = [path for room in rooms for path in room.rglob("*.py")] + list((root / "labeling").rglob("*.js"))
    assert [path for path in sources if re.search(r"\bbirds?\b", path.read_text(encoding="utf-8"))] == []
