"""The labelling server: what a page is told, and what it may write."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.labeling.database.label_file import Unusable
from handscope.labeling.database.labels import Labels
from handscope.labeling.grid import grid, token_side
from handscope.labeling.server import api, comparing
from handscope.run.folder import Run
from made_runs import TOKEN, Annotator, annotating, cells, encoded, make_run, serving
from PIL import Image


def test_a_stroke_is_stored_and_comes_back(ann: Annotator, run: Run) -> None:
    name = ann.queue()[0]["sample"]
    blank = ann.sample(name)
    row = run.metadata()[name]
    assert (blank["rows"], blank["columns"], blank["prompt"]) == (12, 12, row["prompt"])
    assert blank["revision"] is blank["verdict"] is blank["seconds"] is blank["rating"] is blank["others"] is None
    assert blank["labels"] == blank["instances"] == encoded(np.zeros(144)) and not blank["done"]
    painted = cells(blank, 1)
    painted[3:6, 4:7] = 3
    first = ann.stroke(blank, painted)
    assert first.status_code == 201 and first.json() == {"revision": 1}
    draft = ann.sample(name)
    assert draft["labels"] == encoded(painted) and draft["instances"] == encoded(painted == 3)
    assert draft["verdict"] is None
    assert Labels(run.labels_path).current() == {}, "no other stage sees a draft"
    faults = {"1": ["fused:global", "count"]}
    assert ann.stroke(draft, painted, verdict="bad", done=True, faults=faults, seconds=9).status_code == 201
    finished = ann.sample(name)
    assert [finished[key] for key in ("faults", "verdict", "seconds", "done")] == [faults, "bad", 9.0, True]
    stored = Labels(run.labels_path).current()[name]
    assert (stored.author, stored.source, stored.kinds) == ("Ann É.", "hand", ("fused:global", "count"))
    assert (stored.labels == painted).all() and stored.image_sha256 == row["image_sha256"]
    assert [item["sample"] for item in ann.queue() if item["done"]] == [name]


def test_a_conflict_shows_what_is_there_and_a_repeated_write_is_one(ann: Annotator, run: Run) -> None:
    blank = ann.sample(ann.queue()[0]["sample"])
    assert ann.stroke(blank, cells(blank, 1), uid="first-of-two").status_code == 201
    again = ann.stroke(blank, cells(blank, 1), uid="first-of-two")
    assert again.status_code == 200 and again.json() == {"revision": 1}
    refused = ann.stroke(blank, cells(blank, 2))
    assert refused.status_code == 409 and "the newest is 1" in refused.json()["error"]
    assert refused.json()["current"] == ann.sample(blank["sample"]) and Labels(run.labels_path).last_revision() == 1
    other = ann.queue()[1]["sample"]
    stolen = ann.stroke(ann.sample(other), cells(blank, 1), uid="first-of-two")
    assert stolen.status_code == 422 and "uid of its own" in stolen.json()["error"]


def test_every_earlier_state_can_be_brought_back(ann: Annotator, address: str) -> None:
    name = ann.queue()[0]["sample"]
    for label in (1, 2, 1):
        sample = ann.sample(name)
        assert ann.stroke(sample, cells(sample, label), verdict="good" if label == 2 else None).status_code == 201
    past = ann.get(f"samples/{name}/history").json()["items"]
    assert [(state["revision"], state["verdict"], state["author"]) for state in past] == [
        (3, None, "Ann É."),
        (2, "good", "Ann É."),
        (1, None, "Ann É."),
    ]
    second = ann.get(f"samples/{name}/history/2").json()
    assert second["labels"] == encoded(cells(sample, 2)) and second["annotator"] == "Ann É."
    again = {key: second[key] for key in ("labels", "instances", "faults", "verdict", "done", "seconds")}
    assert ann.stroke(ann.sample(name), cells(sample, 1), **again).json() == {"revision": 4}
    assert ann.sample(name) == sample | again | {"revision": 4}
    assert ann.get(f"samples/{name}/history/77").status_code == 404
    assert ann.get(f"samples/{ann.queue()[1]['sample']}/history/2").status_code == 404
    with annotating(address, "Bob") as bob:
        assert bob.get(f"samples/{name}/history").json() == {"annotator": "Bob", "items": []}
        assert bob.get(f"samples/{name}/history/2").status_code == 404
        assert bob.get(f"samples/{name}/history/2", mode="review").json() == second | {"annotator": "Bob"}
        assert len(bob.get(f"samples/{name}/history", mode="review").json()["items"]) == 4


def test_a_review_sees_the_others_and_outranks_them(ann: Annotator, address: str, run: Run) -> None:
    name = ann.queue()[0]["sample"]
    sample = ann.sample(name)
    with annotating(address, "Bob") as bob, annotating(address, "Eve") as eve:
        ann.stroke(sample, cells(sample, 2), verdict="good", done=True)
        assert bob.sample(name)["revision"] is None and bob.sample(name)["others"] is None, "painted without a look"
        bob.stroke(sample, cells(sample, 3), verdict="bad", done=True, faults={"1": ["joint"]})
        seen = eve.sample(name, "review")
        assert [(o["author"], o["verdict"], o["faults"]) for o in seen["others"]] == [
            ("Ann É.", "good", {}),
            ("Bob", "bad", {"1": ["joint"]}),
        ]
        assert eve.queue("review") == [{"sample": name, "done": False}]
        assert eve.stroke(seen, cells(sample, 2), "review", verdict="good?", done=True).status_code == 201
        assert eve.queue("review") == [{"sample": name, "done": True}]
        assert eve.sample(name)["revision"] is None, "a review is no painting of one's own"
    assert Labels(run.labels_path).current()[name].verdict == "good?"
    progress = ann.get("progress").json()
    assert (progress["samples"], progress["done"], progress["mine"]) == (6, 1, 1)
    assert progress["annotators"] == [{"name": "Ann É.", "done": 1}, {"name": "Bob", "done": 1}]
    assert progress["seconds_per_image"] == 2.5


def test_agreement_is_said_and_nobody_waits_for_it(
    ann: Annotator, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare, may_end = comparing._compare, threading.Event()
    monkeypatch.setattr(comparing, "_compare", lambda *given: may_end.wait(60) and compare(*given))
    with annotating(address, "Bob") as bob:
        for item in ann.queue():
            for who in (ann, bob):
                sample = who.sample(item["sample"])
                assert who.stroke(sample, cells(sample, 2), verdict="good", done=True).status_code == 201
    assert ann.get("progress").json()["agreement"] == ann.get("progress").json()["agreement"] == []
    may_end.set()
    assert ann.queue("review") == [], "they agree; and this one was waited for"
    rows = ann.get("progress").json()["agreement"]
    overlaps = [(row["value"], row["samples"]) for row in rows if row["measure"] == "hand IoU"]
    assert overlaps and set(overlaps) == {(1.0, 6)}


def test_a_rating_is_blind(ann: Annotator, address: str, run: Run) -> None:
    painted = ann.queue()
    sample = ann.sample(painted[0]["sample"])
    ann.stroke(sample, cells(sample, 3), verdict="bad", done=True)
    queue = ann.queue("rate")
    names = [item["sample"] for item in queue]
    real = {item["sample"] for item in painted}
    assert len(set(names)) == 6 and not set(names) & real
    for name in names:
        seen = ann.sample(name, "rate")
        assert seen["prompt"] is seen["verdict"] is seen["revision"] is seen["rating"] is None
        assert not any(part in json.dumps(seen) for part in [*real, *(part[:8] for part in real), run.path.name])
        assert seen["labels"] == encoded(np.zeros(144))
        assert ann.client.get(seen["image"]).status_code == 200
    body = {"image_sha256": seen["image_sha256"], "value": 0.5, "seconds": 1.25, "uid": "my-one-rating"}
    assert [ann.post(f"samples/{names[-1]}/rating", body).status_code for _ in range(2)] == [201, 201]
    assert ann.sample(names[-1], "rate")["rating"] == 0.5
    assert [item["done"] for item in ann.queue("rate")] == [False] * 5 + [True]
    assert ann.get("progress").json()["rated"] == 1
    ratings, orders = Labels(run.labels_path).ratings(), Labels(run.labels_path).orders()
    assert len(ratings) == 1 and ratings["sample"][0] in real
    mine = orders[orders["method"] == "rate"]
    assert len(mine) == 1 and mine["parameters"].item() == {"rater": "Ann É."}
    assert mine["samples"].item()[-1] == ratings["sample"][0] and set(mine["samples"].item()) == real
    with annotating(address, "Bob") as bob:
        assert [item["sample"] for item in bob.queue("rate")] != names, "each rater has an order of their own"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "bad", "done": True}, "no hand is painted bad"),
        ({"verdict": "good", "done": True, "faults": {"1": ["count"]}}, "Hand 1 has faults and is good"),
        ({"done": True}, "needs a verdict"),
        ({"labels": encoded(np.zeros(143))}, "12 by 12 tokens, 144 bytes, found 143"),
        ({"labels": encoded(np.full(144, 4))}, "0, 1, 2 or 3"),
        ({"instances": encoded(np.zeros(144))}, "contradict"),
        ({"labels": "*not base64*"}, "base64"),
        ({"faults": {"0": ["count"]}}, "faults"),
        ({"faults": {"1": ["toes"]}}, "count"),
        ({"verdict": "fine"}, "verdict"),
        ({"done": "yes"}, "boolean"),
        ({"seconds": -1}, "seconds"),
        ({"base": 0}, "base"),
        ({"base": 2**70}, "base"),
        ({"base": True}, "base"),
        ({"uid": "short"}, "uid"),
        ({"image_sha256": "0"}, "image_sha256"),
        ({"more": 1}, "more"),
        ({"annotator": "\ud800"}, "annotator"),
    ],
)
def test_a_stroke_that_is_none_is_refused_in_a_sentence(ann: Annotator, run: Run, change: dict, message: str) -> None:
    sample = ann.sample(ann.queue()[0]["sample"])
    refused = ann.stroke(sample, cells(sample, 2), **change)
    assert refused.status_code == 422 and message in refused.json()["error"] and set(refused.json()) == {"error"}
    assert Labels(run.labels_path).last_revision() == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"uid": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(ann: Annotator, body: bytes) -> None:
    path, headers = f"/api/samples/{ann.queue()[0]['sample']}/strokes", {"content-type": "application/json"}
    refused = ann.client.post(path, content=body, headers=headers)
    assert refused.status_code in (400, 422) and set(refused.json()) == {"error"}


def test_a_store_that_cannot_be_written_is_the_servers_fault(ann: Annotator, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = ann.sample(ann.queue()[0]["sample"])
    for error in (Unusable("The disk is full."), OSError("Input/output error")):
        with monkeypatch.context() as patch:
            patch.setattr(Labels, "append", Mock(side_effect=error))
            refused = ann.stroke(sample, cells(sample, 1), uid="asked-again")
        assert refused.status_code == 503 and refused.json() == {"error": str(error)}
    assert ann.stroke(sample, cells(sample, 1), uid="asked-again").status_code == 201


def test_a_stroke_on_a_picture_that_was_made_anew_is_shown_the_new_one(ann: Annotator, run: Run) -> None:
    name = ann.queue()[0]["sample"]
    before = ann.sample(name)
    ann.stroke(before, cells(before, 1), verdict="good", done=True)
    change_picture(run, name)
    after = ann.sample(name)
    assert after["image_sha256"] != before["image_sha256"] and after["revision"] == 1 and not after["done"]
    assert after["labels"] == encoded(np.zeros(144)), "what was painted on the old one is not shown on the new one"
    assert not any(item["done"] for item in ann.queue())
    late = ann.stroke(before | {"revision": 1}, cells(before, 2))
    assert late.status_code == 409 and late.json()["current"]["image_sha256"] == after["image_sha256"]
    assert ann.client.get(before["image"]).status_code == 404 and ann.client.get(after["image"]).status_code == 200
    body = {"image_sha256": before["image_sha256"], "value": 1, "seconds": None}
    blind = ann.queue("rate")[0]["sample"]
    refused = ann.post(f"samples/{blind}/rating", body)
    assert refused.status_code == 422 and f"{blind} was generated anew" in refused.json()["error"]
    assert "another picture" in ann.get(f"samples/{name}/history/1").json()["error"]
    assert ann.stroke(after, cells(after, 2)).status_code == 201


def change_picture(run: Run, name: str) -> None:
    pixels = run.image(name)[::-1]
    Image.fromarray(pixels).save(run.image_path(name))
    rows = run.metadata()
    rows[name] = rows[name] | {"image_sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}
    run.write_metadata(rows)


def test_only_the_picture_that_was_generated_is_sent(ann: Annotator, run: Run) -> None:
    names = [item["sample"] for item in ann.queue()]
    whole = ann.client.get(ann.sample(names[0])["image"])
    assert whole.content == run.image_path(names[0]).read_bytes() and whole.headers["content-type"] == "image/png"
    assert whole.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert ann.get(f"samples/{names[0]}/image").headers["cache-control"] == "private, no-cache"
    data = run.image_path(names[1]).read_bytes()
    spoilt = {
        "is damaged": [data[: len(data) // 2], data[:20], b"", b"GIF89a", data[:50] + b"\0" * 40 + data[90:]],
        "not the one that was generated": [run.image_path(names[2]).read_bytes()],
        "is missing": [None],
    }
    for message, contents in spoilt.items():
        for content in contents:
            run.image_path(names[1]).unlink() if content is None else run.image_path(names[1]).write_bytes(content)
            refused = ann.get(f"samples/{names[1]}/image")
            assert refused.status_code == 422 and message in refused.json()["error"], (message, content and content[:9])
            assert ann.sample(names[1])["revision"] is None


def test_names_are_kept_and_strokes_stay_their_makers(address: str, ann: Annotator) -> None:
    sample = ann.sample(ann.queue()[0]["sample"])
    assert ann.get("session").json()["annotator"] == sample["annotator"] == "Ann É."
    for name in ("", " ", "x" * 41, "a\nb", "handscope", " Ann", "\x00"):
        assert ann.client.post("/api/annotator", json={"name": name}).status_code == 422, name
    assert ann.client.post("/api/annotator", json={"name": "Bob"}).status_code == 200  # in another tab
    assert ann.sample(sample["sample"])["annotator"] == ann.get("queue").json()["annotator"] == "Bob"
    late = ann.stroke(sample, cells(sample, 1))
    assert late.status_code == 403 and "made by Ann É." in late.json()["error"]
    with httpx.Client(base_url=address, params={"token": TOKEN}) as nobody:
        nobody.get("/")
        assert nobody.get("/api/session").json()["annotator"] is None
        assert nobody.get("/api/queue").status_code == 403 and nobody.get("/api/progress").status_code == 200


def test_the_work_is_divided_and_others_see_all(run: Run) -> None:
    with serving(run, ("Ann", "Bob")) as address, annotating(address, "Ann") as ann:
        assert ann.get("session").json()["annotators"] == ["Ann", "Bob"]
        with annotating(address, "Bob") as bob, annotating(address, "Eve") as eve:
            queues = [{item["sample"] for item in who.queue()} for who in (ann, bob, eve)]
    assert queues[0] | queues[1] == queues[2] == set(run.metadata()) and len(queues[0]) < 6
    order = Labels(run.labels_path).orders().iloc[0]
    assert order["method"] == "random" and set(order["samples"]) == queues[2]


def test_the_grid_is_found_without_a_model(run: Run, finished_run, run_copy: Callable, tmp_path: Path) -> None:
    name = next(iter(run.metadata()))
    assert grid(run, name) == (12, 12)
    tiny = run_copy(finished_run)
    sample = next(iter(tiny.metadata()))
    assert grid(tiny, sample) == (4, 4)
    broken = next(tiny.trajectories_dir.glob("*.safetensors"))
    broken.write_bytes(b"x")
    assert grid(tiny, sample) == (4, 4), "another trajectory says it"
    for path in tiny.trajectories_dir.iterdir():
        path.unlink()
    assert grid(tiny, sample) == (4, 4), "the model's folder says it"
    (run.path / "run.yaml").write_text("provenance: {name: black-forest-labs/FLUX.1-dev}")
    assert token_side(run) == 16 and grid(run, name) == (6, 6)
    with pytest.raises(HandscopeError, match="no sample 'x'"):
        grid(run, "x")
    odd = make_run(tmp_path / "odd", 1, side=90)
    with pytest.raises(HandscopeError, match="whole tokens of 8 pixels, found 90 by 90"):
        grid(odd, next(iter(odd.metadata())))


def test_the_page_is_there(ann: Annotator) -> None:
    index = ann.client.get("/")
    assert index.status_code == 200 and index.headers["content-type"].startswith("text/html")
    assert "<html" in index.text and index.headers["cache-control"] == "no-cache"
    for name in sorted(path.name for path in api.PAGE.iterdir()):
        assert ann.client.get(f"/page/{name}").status_code == 200, name


def test_what_is_generated_meanwhile_joins_the_queue(ann: Annotator, run: Run, tmp_path: Path) -> None:
    assert len(ann.queue()) == 6
    before = [item["sample"] for item in ann.queue("rate")]
    more = make_run(tmp_path / "more", 8)
    for name in set(more.metadata()) - set(run.metadata()):
        run.image_path(name).write_bytes(more.image_path(name).read_bytes())
    run.write_metadata(more.metadata())
    assert len(ann.queue()) == 8
    after = [item["sample"] for item in ann.queue("rate")]
    assert len(after) == 8 and [name for name in after if name in before] == before, "what was there keeps its order"
    assert all(ann.sample(item["sample"], "rate")["rows"] == 12 for item in ann.queue("rate"))


def test_suggestions_are_grids_and_say_what_is_absent(ann: Annotator, run: Run) -> None:
    name = ann.queue()[0]["sample"]
    answer = ann.client.get(f"/api/samples/{name}/suggestions", timeout=120)  # it loads a hand detector
    assert answer.status_code == 200
    items, absent = answer.json()["items"], answer.json()["absent"]
    assert {item["source"] for item in items} ^ set(absent) == {"silhouette", "detector", "probe"}
    for item in items:
        assert len(item["labels"]) == len(item["instances"]) == len(encoded(np.zeros(144)))
    assert Labels(run.labels_path).last_revision() == 0, "nothing is accepted by itself"


def test_ten_thousand_samples_are_not_opened_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "many")
    row = next(iter(run.metadata().values()))
    run.write_metadata({f"00000000-{i:05d}": row | {"sample": f"00000000-{i:05d}"} for i in range(10_000)})
    opened: list[object] = []
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a))
    with serving(run) as address, annotating(address, "Ann") as ann:
        assert len(ann.queue()) == len(ann.queue("rate")) == ann.get("session").json()["order"]["n"] == 10_000
        assert ann.get("progress").json()["samples"] == 10_000
    assert not opened
