"""What is labelled, read from a file: defaults, what a prompt states, and files that are refused."""

import pytest
import yaml
from handscope.errors import HandscopeError
from handscope.labeling.database.annotation import Annotation
from handscope.labeling.database.labels import Labels
from handscope.labeling.subject import FOLDER, load_subject, set_subject, subject_of
from handscope.organism.captions import CAPTIONS, GESTURES, Caption
from handscope.run.folder import Run

BIRD = {"name": "bird", "noun": "bird", "plural": "birds", "kinds": {"wing": {"scope": "local"}}}


def written(folder, **changes):
    """The path of a file on birds, with changes; a key that is None is left out."""
    said = {name: value for name, value in {**BIRD, **changes}.items() if value is not None}
    (folder / "bird.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    return folder / "bird.yaml"


def test_a_kind_has_a_scope_or_a_label_gives_it_one():
    hand = load_subject("hand")
    assert list(hand.kinds) == ["count", "joint", "proportion", "fused", "missing", "other"]
    assert hand.scopes(["count", "proportion"]) == {"global"}
    assert hand.scopes(["joint", "missing", "other"]) == {"local"}
    assert hand.scopes(["count", "fused"]) == {"local", "global"} and hand.scopes([]) == set()
    assert hand.scopes(["fused:global", "count:local"]) == {"local", "global"}
    with pytest.raises(HandscopeError, match=r"found wing\."):
        hand.scopes(["fused", "wing"])


def test_what_the_captions_of_the_organism_state_is_what_they_were_made_from():
    hand, names = load_subject("hand"), ["background", "skin", "gesture", "side", "view"]
    for caption in (*CAPTIONS, *(Caption("left", "back", gesture, "tan", "teal") for gesture in GESTURES)):
        stated = hand.stated(str(caption))
        assert stated == {name: getattr(caption, name) for name in names} and list(stated) == names
        assert hand.numbers(str(caption)) == {"gesture": sum(GESTURES[caption.gesture])}
    assert hand.numbers("one finger raised") == {"gesture": 1}
    assert hand.stated("an open door") == {} and hand.numbers("a left hand") == {}


def test_words_that_a_file_leaves_out_follow_from_the_noun(tmp_path):
    bird = load_subject(written(tmp_path))
    assert (bird.one, bird.nouns, bird.judge, bird.facts) == ("a bird", ("Bird", "Birds"), None, {})
    assert (bird.classes.outside, bird.classes.unsure) == ("not bird", "unsure bird")
    assert bird.verdicts == {name: name for name in ("good", "good?", "bad?", "bad", "unsure")}
    assert load_subject(written(tmp_path, noun="eye")).one == "an eye"
    changed = load_subject(written(tmp_path, verdicts={"bad": "dead"}, kinds={"wing": {"scope": "local", "word": "a"}}))
    assert (changed.verdicts["bad"], changed.verdicts["good"], changed.word("wing")) == ("dead", "good", "a")
    assert (changed.classes.bad, changed.classes.good) == ("dead bird", "good bird")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noun": None}, "'noun': it is missing"),
        ({"colour": "red"}, "'colour'"),
        ({"kinds": {"wing": {"scope": "middle"}}}, r"'kinds\.wing\.scope': .* 'local' or 'global', found 'middle'"),
        ({"kinds": {"Wing:local": {"scope": "local"}}}, "kinds.Wing:local"),
        ({"facts": {"colour": {"pattern": "("}}}, r"'facts\.colour\.pattern': .*regular expression"),
        ({"facts": {"colour": {"pattern": "red"}}}, "one group, found 0"),
        ({"verdicts": {"fine": "good"}}, "verdicts"),
        ({"rating": {"question": "?", "levels": ["a", "b"]}}, r"rating\.levels"),
        ({"judge": "me"}, "'judge'"),
    ],
)
def test_a_file_that_is_not_as_expected_is_told_where(tmp_path, change, message):
    with pytest.raises(HandscopeError, match=message) as refused:
        load_subject(written(tmp_path, **change))
    assert str(tmp_path / "bird.yaml") in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "list.yaml").write_text("- bird")
    (tmp_path / "torn.yaml").write_text("{")
    for path, message in (("foot", "one of hand"), (tmp_path / "list.yaml", "keys"), (tmp_path / "torn.yaml", "YAML")):
        with pytest.raises(HandscopeError, match=message):
            load_subject(path)


def test_a_run_keeps_the_subject_that_it_was_begun_with(tmp_path):
    run = Run(tmp_path / "run")
    assert subject_of(run) == load_subject("hand")
    set_subject(run, load_subject("hand"))
    assert not run.settings_path.exists()
    bird = load_subject(written(tmp_path))
    set_subject(run, bird)
    written(tmp_path, noun="changed since")
    assert subject_of(run) == subject_of(Run(run.path)) == bird and run.settings["subject"]["plural"] == "birds"
    Labels(run.labels_path).add([Annotation("a", "", [[3]], [[1]], "bad", ("wing",))])
    set_subject(run, load_subject(written(tmp_path, plural="fowl")))
    assert subject_of(run).plural == "fowl"
    with pytest.raises(HandscopeError, match="of the subject bird, and now it is hand"):
        set_subject(run, load_subject("hand"))


def test_a_damaged_section_names_the_file(tmp_path):
    run = Run(tmp_path)
    run.write_settings({"subject": {"name": "bird"}})
    with pytest.raises(HandscopeError, match=r"run\.yaml is not as expected, key 'noun'"):
        subject_of(run)


def test_every_subject_that_is_brought_can_be_loaded_by_its_name():
    for path in FOLDER.glob("*.yaml"):
        assert load_subject(path.stem).name == path.stem


def test_pictures_beside_a_subject_are_read_into_it(tmp_path):
    (tmp_path / "wing.svg").write_text("<svg/>")
    (tmp_path / "large.png").write_bytes(bytes(60_000))
    (tmp_path.parent / "beyond.png").write_bytes(b"x")

    def pictured(name):
        kinds = {"wing": {"scope": "local", "picture": name}}
        return load_subject(written(tmp_path, kinds=kinds, guide=["Count the wings."]))

    subject = pictured("wing.svg")
    assert subject.kinds["wing"].picture == "data:image/svg+xml;base64,PHN2Zy8+"
    assert subject.guide == ["Count the wings."]
    for name, said in (
        ("no.svg", "could not be read"),
        ("large.png", "60,000 bytes"),
        ("../beyond.png", "cannot have"),
        ("bird.yaml", "cannot have"),
        ("data:text/html;base64,AAAA", "kinds.wing.picture"),
    ):
        with pytest.raises(HandscopeError, match=said):
            pictured(name)
    shipped = load_subject("hand")
    assert all(kind.meaning and kind.picture for kind in shipped.kinds.values()) and shipped.guide
