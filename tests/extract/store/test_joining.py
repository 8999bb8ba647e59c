"""Labels beside stored tokens: which ones, of when, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.extract.store.check import check, info
from handscope.extract.store.consolidate import consolidate, is_consolidated, merge
from handscope.extract.store.store import ActivationStore
from handscope.labeling.database.labels import Annotation, Labels
from made_stores import GRID, attrs_of, make_folder, make_old, make_shard


def image_of(sample: str) -> str:
    return str(attrs_of(sample)["image_sha256"])


def annotation(sample: str, seed: int = 0, side: int = GRID, **more: object) -> Annotation:
    """A sample with two instances, one good and one bad, and tokens of none, at random places."""
    labels = np.random.default_rng(seed).integers(0, 4, (side, side))
    instances = np.where(labels >= 2, labels - 1, 0)
    values = {"image_sha256": image_of(sample), "verdict": "bad", **more}
    return Annotation(sample, values.pop("image_sha256"), labels, instances, **values)


def labelled(run: Path, samples: list[str], seed: int = 0) -> dict[str, Annotation]:
    said = {sample: annotation(sample, seed + number) for number, sample in enumerate(samples)}
    Labels(run / "labels.sqlite").add(list(said.values()))
    return said


def assert_joined(store: ActivationStore, said: dict[str, Annotation]) -> None:
    """The slow way: token by token."""
    assert len(store.tokens)
    for token in store.tokens.itertuples():
        one = said.get(token.sample)
        expected = (0, 0) if one is None else (one.labels[token.row, token.col], one.instances[token.row, token.col])
        assert (token.label, token.instance) == expected
    x, tokens = store.read("single.0", 2)
    assert tokens.equals(store.tokens) and len(x) == len(tokens)
    assert np.array_equal(store.records["label"], tokens["label"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_folder(tmp_path / "run" / "activations", range(6))
    return tmp_path / "run"


@pytest.mark.parametrize("form", ["", "shards", "store.h5"])
def test_every_form_has_the_labels_beside_it_as_they_are_now(run: Path, form: str) -> None:
    activations = run / "activations"
    consolidate(activations)
    store = ActivationStore(activations / form)
    assert not store.tokens[["label", "instance"]].to_numpy().any() and store.unstored == {}
    said = labelled(run, ["s00", "s03", "s04", "of another run"])
    assert not store.tokens["label"].any(), "a store that is open stays as it is"
    store = ActivationStore(activations / form)
    assert_joined(store, said)
    for sample, one in said.items():
        mine = store.tokens[store.tokens["sample"] == sample]
        places = set(zip(mine["row"], mine["col"]))
        lacking = [place for place in map(tuple, np.argwhere(one.instances > 0)) if place not in places]
        assert store.unstored[sample] == len(lacking) > 0
    said |= labelled(run, ["s00"], 9)
    assert_joined(ActivationStore(activations / form), said)
    now = ActivationStore(activations).records["label"]
    assert list(info(activations / form).labels.values()) == np.bincount(now, minlength=4).tolist()


def test_labels_may_be_given(run: Path, tmp_path: Path) -> None:
    labelled(run, ["s00", "s01"])
    said = labelled(tmp_path, ["s01", "s05"], 5)
    path = tmp_path / "labels.sqlite"
    for given in (path, str(path), Labels(path), said):
        assert_joined(ActivationStore(run / "activations", given), said)
    assert not ActivationStore(run / "activations", {}).tokens["instance"].any()
    with pytest.raises(HandscopeError, match=r"There are no labels in .*nowhere\.sqlite"):
        ActivationStore(run / "activations", tmp_path / "nowhere.sqlite")
    assert not (tmp_path / "nowhere.sqlite").exists()


def test_each_folder_of_a_list_has_its_own_labels(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in "ab"]
    make_folder(runs[0] / "activations", range(3))
    make_folder(runs[1] / "activations", range(3, 6))
    # The second machine has labels of all samples, and says otherwise of the first one's.
    said = labelled(runs[0], ["s00", "s01"])
    other = labelled(runs[1], ["s00", "s03", "s04", "s09"], 5)
    store = ActivationStore([run / "activations" for run in runs])
    assert_joined(store, other | said)
    assert set(store.unstored) == {"s00", "s01", "s03", "s04", "s09"}
    assert store.unstored["s09"] == (other["s09"].instances > 0).sum()


def test_labels_of_another_image_or_grid_are_refused(run: Path) -> None:
    labels = Labels(run / "labels.sqlite")
    labels.add([annotation("s01", image_sha256="7" * 64)])
    with pytest.raises(HandscopeError, match=r"^The labels of s01 in .*\.sqlite were made on another image"):
        ActivationStore(run / "activations")
    labels.add([annotation("s01", side=5)])
    with pytest.raises(HandscopeError, match="of s01 .* are on a grid of 5 by 5 tokens, and its .* on one of 6 by 6"):
        ActivationStore(run / "activations")
    consolidate(run / "activations")  # looks at no labels
    labels.add([annotation("s01")])
    assert len(ActivationStore(run / "activations").samples) == 6


def test_a_sample_that_was_set_aside_lacks_nothing(run: Path) -> None:
    labelled(run, ["s00", "s77", "s78"])
    (run / "activations" / "set_aside-1-of-2.csv").write_text("sample,reason,psnr\ns77,another image,30.0\n")
    assert set(ActivationStore(run / "activations").unstored) == {"s00", "s78"}


def test_what_the_choice_of_tokens_leaves_out_is_not_lacking(tmp_path: Path) -> None:
    make_shard(tmp_path / "activations", "s00", 0, selection="labelled")
    labels, instances = np.zeros((2, GRID, GRID), int)
    instances[0, :4], labels[0, :3] = 1, 2
    Labels(tmp_path / "labels.sqlite").add([Annotation("s01", image_of("s01"), labels, instances, "good")])
    assert ActivationStore(tmp_path / "activations").unstored == {"s01": 3}


# Activations of 0.3


def test_labels_of_0_3_count_where_there_are_no_others(run: Path) -> None:
    activations = run / "activations"
    consolidate(activations)
    written = {form: make_old(activations / form) for form in ("store.h5", "shards/s01.h5")}
    assert check(activations / "store.h5") == []
    for form, expected in written.items():
        store = ActivationStore(activations / form)
        assert np.array_equal(store.tokens[["label", "instance"]], expected) and store.unstored == {}
        assert store.attrs["selection"] == "subject" and "labels_sha256" not in store.attrs
    assert is_consolidated(activations), "what was written with the tokens is no part of what a store is of"
    said = labelled(run, ["s01", "s03"])
    for form in ("store.h5", "shards/s01.h5", "shards"):
        assert_joined(ActivationStore(activations / form), said)


def test_labels_of_0_3_are_not_lost_by_writing_anew(run: Path, tmp_path: Path) -> None:
    for path in (run / "activations" / "shards").iterdir():
        make_old(path)
    for write in (
        lambda: consolidate(run / "activations"),
        lambda: merge([run / "activations"], tmp_path / "all" / "activations"),
    ):
        with pytest.raises(HandscopeError, match=r"has labels with its tokens, .* there is no .*labels\.sqlite"):
            write()
    assert not (run / "activations" / "store.h5").exists() and not (tmp_path / "all" / "activations").exists()
    said = labelled(tmp_path / "all", ["s01"])
    merge([run / "activations"], tmp_path / "all" / "activations")
    assert_joined(ActivationStore(tmp_path / "all" / "activations"), said)
