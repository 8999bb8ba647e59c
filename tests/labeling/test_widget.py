"""The painter in a notebook: one module without imports, strokes in the store at once, and a real browser."""

import sys

import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.labeling import widget
from handscope.labeling.database.annotation import Annotation
from handscope.labeling.database.labels import Labels
from handscope.labeling.widget import Easel, label_widget, module
from labeling_browser import chromium

# A stand-in for anywidget's model: traits that change, messages that are kept, and an answer to each stroke.
HARNESS = """async ([source, traits]) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
  const data = { shown: traits.shown, subject: traits.subject };
  for (const name of ["image", "labels", "instances"]) data[name] = bytes(traits[name]);
  const listeners = {};
  window.sent = [];
  window.model = {
    get: (name) => data[name],
    set: (name, value) => { data[name] = value; listeners[`change:${name}`]?.(); },
    on: (event, act) => { listeners[event] = act; },
    off: (event) => { delete listeners[event]; },
    send: (message, _, buffers) => {
      window.sent.push({ ...message, grids: (buffers ?? []).map((one) => [...new Uint8Array(one)]) });
      setTimeout(() => listeners["msg:custom"]?.({ kind: "saved", said: "saved" }), 5);
    },
  };
  const el = document.querySelector("#cell");
  const widget = (await import(url)).default;
  window.end = widget.render({ model: window.model, el });
}"""


@pytest.fixture
def run(finished_run, run_copy):
    made = run_copy(finished_run)
    for path in made.path.glob("labels.sqlite*"):
        path.unlink()
    return made


def stroke(easel, sample, hand, **more):
    labels, hands = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    labels[hand], hands[hand] = 3, 1
    message = {"kind": "stroke", "uid": str(np.random.default_rng().random()), "sample": sample}
    message |= {"verdict": "bad", "done": False, **more}
    return easel.stroke(message, [memoryview(labels.tobytes()), memoryview(hands.tobytes())])


def test_the_modules_are_one_without_imports_or_names_twice():
    source = module()
    assert "import {" not in source and source.count("export ") == source.count("export default") == 1
    names = [line.split()[1].split("(")[0] for line in source.splitlines() if line.startswith(("class ", "function "))]
    assert {"Painter", "Surface", "Stroke", "Notebook"} <= set(names) and len(names) == len(set(names))


def test_a_module_that_would_be_missed_is_named():
    def read(name):
        return 'import { a } from "./app.js";\n' if name == "view" else f"export const {name} = 1;\n"

    with pytest.raises(HandscopeError, match="view.js imports .*app"):
        module(read)


def test_a_stroke_is_in_the_store_before_the_next(run):
    first, second = run.samples()["sample"][:2]
    easel = Easel(run, "ada", [first, second])
    easel.go(first)
    assert easel.shown()["shown"]["state"] == "nothing painted yet"
    labels = Labels(run.labels_path)
    for row in range(3):
        assert stroke(easel, first, row) == {"kind": "saved", "said": "saved"}
        newest = labels.newest(first, "ada")
        assert newest is not None and newest.instances[row].all() and not newest.done and newest.source == "hand"
    easel.go(second)
    easel.shown()
    # A stroke that was on its way when the next sample came goes where it was painted.
    assert stroke(easel, first, 3, done=True)["kind"] == "saved"
    assert stroke(easel, second, 0)["kind"] == "saved"
    assert len(labels.history(first)) == 4 and set(labels.current()) == {first}
    easel.go(first)
    shown = easel.shown()
    assert shown["shown"]["done"] and shown["shown"]["verdict"] == "bad"
    assert np.frombuffer(shown["instances"], np.uint8).reshape(4, 4)[3].all()
    assert easel.beside(1) == second and easel.beside(-1) == first


def test_what_somebody_else_wrote_is_not_overwritten(run):
    sample = run.samples()["sample"][0]
    one, other = Easel(run, "ada", [sample]), Easel(run, "ada", [sample])
    one.shown(), other.shown()
    assert stroke(one, sample, 0)["kind"] == "saved"
    answer = stroke(other, sample, 1)
    assert answer["kind"] == "refused" and "changed elsewhere" in answer["said"]
    newest = Labels(run.labels_path).newest(sample, "ada")
    assert newest is not None and newest.instances[0].all() and not newest.instances[1].any()
    other.shown()
    assert stroke(other, sample, 1)["kind"] == "saved"


def test_faults_given_in_the_page_stay(run):
    sample = run.samples()["sample"][0]
    image = run.metadata()[sample]["image_sha256"]
    hands = np.zeros((4, 4), np.uint8)
    hands[0] = 1
    labels = np.where(hands > 0, 3, 1)
    earlier = Annotation(sample, image, labels, hands, "bad", author="ada", source="hand", faults={1: ("joint",)})
    Labels(run.labels_path).add([earlier])
    easel = Easel(run, "ada", [sample])
    easel.shown()
    stroke(easel, sample, 2)
    newest = Labels(run.labels_path).newest(sample, "ada")
    assert newest is not None and newest.faults == {1: ("joint",)}


def test_what_cannot_be_is_refused_in_words(run, monkeypatch):
    sample = run.samples()["sample"][0]
    easel = Easel(run, "ada", [sample])
    easel.shown()
    assert "verdict" in stroke(easel, sample, 0, verdict="fine")["said"]
    answer = stroke(easel, sample, 0, verdict="good", done=True)
    assert answer["kind"] == "refused" and "painted bad" in answer["said"]
    short = easel.stroke({"uid": "a", "sample": sample, "verdict": None, "done": False}, [b"\0", b"\0"])
    assert short["kind"] == "refused" and Labels(run.labels_path).newest(sample, "ada") is None
    with pytest.raises(HandscopeError, match="no sample 'nobody'"):
        easel.go("nobody")
    for name, message in (("", "printable"), ("handscope", "without looking")):
        with pytest.raises(HandscopeError, match=message):
            label_widget(run, name)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(HandscopeError, match=r"pip install 'handscope\[notebook\]'"):
        label_widget(run, "ada")


def test_the_widget_speaks_with_the_store(run):
    samples = run.samples()["sample"][:3].tolist()
    shown = label_widget(run, "ada", samples)
    assert shown.sample == samples[0] and shown.image[:4] == b"\x89PNG" and len(shown.labels) == 16
    answers = []
    shown.send = answers.append
    labels, hands = np.full((4, 4), 2, np.uint8), np.ones((4, 4), np.uint8)
    message = {"kind": "stroke", "uid": "u", "sample": samples[0], "verdict": "good", "done": True}
    shown._handle_custom_msg(message, [labels.tobytes(), hands.tobytes()])
    assert answers == [{"kind": "saved", "said": "saved"}]
    assert Labels(run.labels_path).current()[samples[0]].verdict == "good"
    shown._handle_custom_msg({"kind": "step", "by": 2}, [])
    assert shown.sample == samples[2] and shown.shown["place"] == 3
    shown.go(samples[0])
    assert shown.shown["verdict"] == "good" and shown.labels == labels.tobytes()


@pytest.mark.browser
def test_painting_in_a_browser(run):
    """The one module in Chromium: a stroke by pointer and one by keys, undo, a verdict, and the next sample."""
    from base64 import b64encode

    samples = run.samples()["sample"][:2].tolist()
    easel = Easel(run, "ada", samples)
    easel.go(samples[0])

    def traits():
        shown = easel.shown()
        return {name: b64encode(value).decode() if isinstance(value, bytes) else value for name, value in shown.items()}

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 700, "height": 900})
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.set_content(f'<style>{(widget.PAGE / "notebook.css").read_text()}</style><div id="cell"></div>')
        page.evaluate(HARNESS, [module(), traits()])
        page.wait_for_function("document.querySelector('.caption').textContent.startsWith('1 of 2')")
        canvas = page.locator("canvas")
        box = canvas.bounding_box()
        side = box["width"] / 4
        page.get_by_role("button", name="rectangle").click()
        page.keyboard.press("3")
        page.mouse.move(box["x"] + side / 2, box["y"] + side / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + 1.5 * side, box["y"] + 2.5 * side)
        page.mouse.up()
        page.wait_for_function("document.querySelector('.status').value === 'saved'")
        sent = page.evaluate("window.sent")
        expected = np.zeros((4, 4), int)
        expected[:3, :2] = 3
        assert [(one["sample"], one["verdict"], one["done"]) for one in sent] == [(samples[0], "bad", False)]
        assert np.array_equal(np.reshape(sent[0]["grids"][0], (4, 4)), expected)
        assert np.array_equal(np.reshape(sent[0]["grids"][1], (4, 4)), expected > 0)
        easel.stroke(sent[0], [bytes(grid) for grid in sent[0]["grids"]])
        assert (Labels(run.labels_path).newest(samples[0], "ada").labels == expected).all()

        canvas.focus()
        page.keyboard.press("Control+z")
        assert not any(page.evaluate("window.sent.at(-1).grids[0]"))
        page.keyboard.press("Control+Shift+z")
        assert page.evaluate("window.sent.at(-1).grids[0]") == expected.ravel().tolist()
        page.get_by_role("button", name="good?", exact=True).click()
        page.get_by_role("button", name="done").click()
        assert "painted bad" in page.locator(".status").text_content()
        page.get_by_role("button", name="bad?", exact=True).click()
        page.get_by_role("button", name="done").click()
        assert page.evaluate("[window.sent.at(-1).verdict, window.sent.at(-1).done]") == ["bad?", True]
        page.get_by_role("button", name="next").click()
        assert page.evaluate("window.sent.at(-1)") == {"kind": "step", "by": 1, "grids": []}
        easel.go(samples[1])
        page.evaluate("([shown]) => window.model.set('shown', shown)", [traits()["shown"]])
        page.wait_for_function("document.querySelector('.caption').textContent.startsWith('2 of 2')")
        page.evaluate("window.end()")
        browser.close()
    assert not wrong
