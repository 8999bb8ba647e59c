"""The painter in a notebook: one module without imports, the page's protocol with the kernel, and a real browser."""

import sys
from base64 import b64encode

import numpy as np
import pytest
from handscope.errors import HandscopeError
from handscope.labeling import widget
from handscope.labeling.database.labels import Labels
from handscope.labeling.widget import Desk, label_widget, module
from labeling_browser import cells, chromium
from playwright.sync_api import Page, expect

# A stand-in for anywidget's model, in which `window.kernel` answers; each call makes one more view of it.
HARNESS = """async ([source, session, sample]) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const data = { session, sample };
  const listeners = new Map();
  const tell = (event, ...said) => (listeners.get(event) ?? []).forEach((act) => act(...said));
  window.model = {
    get: (name) => data[name],
    set: (name, value) => { data[name] = value; },
    save_changes: () => tell("change:sample"),
    on: (event, act) => listeners.set(event, [...listeners.get(event) ?? [], act]),
    off: (event, act) => listeners.set(event, listeners.get(event).filter((one) => one !== act)),
    send: async (message) => {
      const answer = await window.kernel(message);
      if (!answer) return;
      const [status, said, picture] = answer;
      const bytes = picture.map((text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));
      tell("msg:custom", { kind: "answer", id: message.id, status, said }, bytes);
      if (status === 201) tell("msg:custom", { kind: "written" }, []);
    },
  };
  window.widget = (await import(url)).default;
  window.view = () => {
    const el = document.body.appendChild(document.createElement("div"));
    return window.widget.render({ model: window.model, el });
  };
  window.end = window.view();
}"""


@pytest.fixture
def run(finished_run, run_copy):
    made = run_copy(finished_run)
    for path in made.path.glob("labels.sqlite*"):
        path.unlink()
    return made


def stroke(desk, sample, row, base=None, **more):
    """What the kernel answers to a stroke over a row of the four."""
    labels, hands = np.ones((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    labels[row], hands[row] = 3, 1
    grids = {name: b64encode(grid.tobytes()).decode() for name, grid in (("labels", labels), ("instances", hands))}
    body = {"uid": f"uid-{np.random.default_rng().integers(10**12)}", "annotator": desk.annotator, "base": base}
    body |= {"image_sha256": desk.session.run.metadata()[sample]["image_sha256"], "faults": {}, "seconds": None}
    body |= {"verdict": "bad", "done": False, **grids, **more}
    return desk.answer(f"/api/samples/{sample}/strokes?mode=paint", body)


def test_the_modules_are_one_without_imports_or_names_twice():
    source = module()
    assert "import {" not in source and source.count("export ") == source.count("export default") == 1
    names = [line.split()[1].split("(")[0] for line in source.splitlines() if line.startswith(("class ", "function "))]
    assert {"Painter", "Surface", "Stroke", "Saver", "Notebook"} <= set(names) and len(names) == len(set(names))


def test_a_module_that_would_be_missed_is_named():
    def read(name):
        return 'import { a } from "./app.js";\n' if name == "view" else f"export const {name} = 1;\n"

    with pytest.raises(HandscopeError, match="view.js imports .*app"):
        module(read)


def test_a_stroke_names_what_it_was_made_on_and_nothing_is_overwritten(run):
    sample = run.samples()["sample"][0]
    one, other = Desk(run, "ada", [sample]), Desk(run, "ada", [sample])
    status, said, _ = stroke(one, sample, 0)
    assert status == 201
    status, conflict, _ = stroke(other, sample, 1)
    assert status == 409 and "changed elsewhere" in conflict["error"]
    assert conflict["current"]["revision"] == said["revision"]
    newest = Labels(run.labels_path).newest(sample, "ada")
    assert newest is not None and newest.instances[0].all() and not newest.instances[1].any()
    assert stroke(other, sample, 1, base=said["revision"], faults={"1": ["joint"]})[0] == 201
    newest = Labels(run.labels_path).newest(sample, "ada")
    assert newest.instances[1].all() and newest.faults == {1: ("joint",)}


def test_what_cannot_be_is_refused_in_words(run, monkeypatch):
    sample = run.samples()["sample"][0]
    desk = Desk(run, "ada", [sample])
    for more in ({"verdict": "fine"}, {"labels": "AA=="}, {"verdict": "good", "done": True}, {"surplus": 1}):
        status, said, _ = stroke(desk, sample, 0, **more)
        assert status == 422 and said["error"]
    assert desk.answer("/api/queue?mode=paint", None)[0] == 422
    assert desk.answer("/api/samples/nobody?mode=paint", None)[0] == 422
    assert Labels(run.labels_path).newest(sample, "ada") is None
    for name, message in (("", "printable"), ("handscope", "without looking")):
        with pytest.raises(HandscopeError, match=message):
            label_widget(run, name)
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(HandscopeError, match=r"pip install 'handscope\[notebook\]'"):
        label_widget(run, "ada")


def test_the_widget_speaks_with_the_store(run):
    samples = run.samples()["sample"][:3].tolist()
    shown = label_widget(run, "ada", samples)
    assert shown.sample == samples[0] and shown.session["samples"] == samples and shown.annotation is None
    answers = []
    shown.send = lambda message, buffers=None: answers.append((message, buffers))
    shown._handle_custom_msg({"kind": "ask", "id": "x", "path": f"/api/samples/{samples[0]}?mode=paint"}, [])
    message, buffers = answers.pop()
    assert message["id"] == "x" and message["status"] == 200 and message["said"]["revision"] is None
    assert buffers[0][:4] == b"\x89PNG"
    shown.go(samples[2])
    assert shown.sample == samples[2]
    with pytest.raises(HandscopeError, match="no sample 'nobody'"):
        shown.go("nobody")
    assert shown.sample == samples[2]


@pytest.fixture
def page(run):
    """A notebook's page with one view of the widget; `run.desk` answers it, while there is one."""
    samples = run.samples()["sample"][:2].tolist()
    state = {"desk": Desk(run, "ada", samples)}

    def kernel(message):
        if state["desk"] is None:
            return None
        status, said, picture = state["desk"].answer(message["path"], message.get("body"))
        return [status, said, [b64encode(one).decode() for one in picture]]

    with chromium() as browser:
        page = browser.new_page(viewport={"width": 700, "height": 2600})
        page.state, page.samples, page.wrong = state, samples, []
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.expose_function("kernel", kernel)
        page.route("http://notebook.test/", lambda route: route.fulfill(body="<body>", content_type="text/html"))
        begin(page)
        yield page
        assert not page.wrong


def begin(page: Page) -> None:
    """The page anew, as after a reload."""
    page.goto("http://notebook.test/")
    page.add_style_tag(content=(widget.PAGE / "notebook.css").read_text())
    page.evaluate(HARNESS, [module(), Desk.describe(page.state.get("told") or page.state["desk"]), page.samples[0]])
    page.state["told"] = page.state.get("told") or page.state["desk"]
    page.wait_for_function("document.querySelector('.caption')?.textContent.startsWith('1 of 2')")


def paint(page: Page, view: int, start: tuple[int, int], end: tuple[int, int], key: str = "3") -> None:
    """A rectangle in one of the views."""
    root = page.locator(".handscope-painter").nth(view)
    root.get_by_role("button", name="rectangle").click()
    page.keyboard.press(key)
    box = root.locator("canvas").bounding_box()
    side = box["width"] / 4
    page.mouse.move(box["x"] + (start[1] + 0.5) * side, box["y"] + (start[0] + 0.5) * side)
    page.mouse.down()
    page.mouse.move(box["x"] + (end[1] + 0.5) * side, box["y"] + (end[0] + 0.5) * side)
    page.mouse.up()


def status(page: Page, text: str, view: int = 0) -> None:
    page.wait_for_function(
        "([view, text]) => document.querySelectorAll('.status')[view].value.startsWith(text)", arg=[view, text]
    )


def painted(run, sample: str) -> set[tuple[int, int]]:
    newest = Labels(run.labels_path).newest(sample, "ada")
    return set() if newest is None else cells(newest.labels == 3)


@pytest.mark.browser
def test_painting_undoing_judging_and_going_on(run, page):
    first, second = page.samples
    paint(page, 0, (0, 0), (2, 1))
    status(page, "Saved")
    corner = {(row, column) for row in range(3) for column in range(2)}
    assert painted(run, first) == corner
    page.locator("canvas").focus()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+z")
    status(page, "Saved")
    assert painted(run, first) == corner and len(Labels(run.labels_path).history(first)) == 3
    page.get_by_role("button", name="good?", exact=True).click()
    page.get_by_role("button", name="done").click()
    expect(page.locator(".note")).to_contain_text("painted bad")
    page.get_by_role("button", name="bad?", exact=True).click()
    page.get_by_role("button", name="done").click()
    status(page, "Saved")
    said = Labels(run.labels_path).newest(first, "ada")
    assert (said.verdict, said.done) == ("bad?", True)
    page.get_by_role("button", name="next").click()
    page.wait_for_function("document.querySelector('.caption').textContent.startsWith('2 of 2')")
    paint(page, 0, (3, 3), (3, 3))
    status(page, "Saved")
    assert painted(run, second) == {(3, 3)} and painted(run, first) == corner
    page.evaluate("window.end()")


@pytest.mark.browser
def test_every_view_begins_with_what_is_stored_and_follows_it(run, page):
    first, _ = page.samples
    paint(page, 0, (0, 0), (1, 1))
    status(page, "Saved")
    page.evaluate("void window.view()")
    page.wait_for_function("document.querySelectorAll('.caption')[1]?.textContent.startsWith('1 of 2')")
    paint(page, 1, (3, 3), (3, 3))
    status(page, "Saved", 1)
    both = {(0, 0), (0, 1), (1, 0), (1, 1), (3, 3)}
    assert painted(run, first) == both, "nothing of the first view is lost"
    paint(page, 0, (3, 0), (3, 0))
    status(page, "Saved")
    assert painted(run, first) == both | {(3, 0)}, "nor of the second"
    begin(page)
    paint(page, 0, (0, 3), (0, 3))
    status(page, "Saved")
    assert painted(run, first) == both | {(3, 0), (0, 3)}, "nor after a reload"


@pytest.mark.browser
def test_without_a_kernel_strokes_are_kept_and_sent_later(run, page):
    first, _ = page.samples
    desk, page.state["desk"] = page.state["desk"], None
    paint(page, 0, (0, 0), (1, 1))
    status(page, "Offline: 1 kept here")
    assert painted(run, first) == set()
    page.state["desk"] = desk
    begin(page)
    status(page, "Saved")
    page.wait_for_function("!document.querySelector('.status').value.includes('kept')")
    assert painted(run, first) == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.browser
def test_what_another_window_wrote_meanwhile_is_chosen_from(run, page):
    first, _ = page.samples
    desk = page.state["desk"]
    assert stroke(desk, first, 3)[0] == 201  # of which the view has not heard
    paint(page, 0, (0, 0), (0, 0))
    status(page, "Conflict")
    assert painted(run, first) == {(3, column) for column in range(4)}
    page.get_by_role("button", name="save mine after it").click()
    status(page, "Saved")
    assert painted(run, first) == {(0, 0)} and len(Labels(run.labels_path).history(first)) == 2
