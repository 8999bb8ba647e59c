// The painter in a notebook: the same canvas, with the kernel in the server's place. labeling/widget.py joins this file
// with the modules it imports into the one module that anywidget loads.

import { VERDICTS, problems, verdictOf } from "./judgement.js";
import { Painter } from "./painter.js";

const TOOLS = ["brush", "eraser", "rectangle", "fill"];
const CLASSES = [1, 2, 3];

class Notebook {
  constructor(model, root) {
    Object.assign(this, { model, root, waiting: 0, judged: { verdict: null, done: false, chosen: false } });
    this.subject = model.get("subject");
    // JupyterLab listens for its own shortcuts before anybody else does: d, d would delete the cell.
    root.dataset.lmSuppressShortcuts = "true";
    root.classList.add("handscope-painter");
    root.addEventListener("keydown", (event) => this.#key(event));
    this.caption = this.#add(root, "div", "caption");
    this.canvas = this.#add(root, "canvas", "");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("aria-label", "Token grid: arrows move the cursor, space paints");
    this.#tools(this.#add(root, "div", "tools"));
    this.#verdicts(this.#add(root, "div", "tools"));
    this.status = this.#add(root, "output", "status");
    this.painter = new Painter(this.canvas, { rows: 1, columns: 1, onStroke: () => this.#stroke() });
    this.shows = () => this.show();
    this.hears = (message) => this.#answer(message);
    model.on("change:shown", this.shows);
    model.on("msg:custom", this.hears);
    this.show();
  }

  /** What the kernel has put on show. */
  async show() {
    const shown = this.model.get("shown");
    const [labels, instances] = ["labels", "instances"].map((name) => bytes(this.model.get(name)).slice());
    const picture = bytes(this.model.get("image"));
    const image = await createImageBitmap(new Blob([picture], { type: "image/png" }));
    if (shown.shows !== this.model.get("shown").shows) return;
    this.painter.finish(); // a stroke under way belongs to the picture before
    this.sample = shown.sample;
    this.judged = { verdict: shown.verdict, done: shown.done, chosen: shown.verdict !== null };
    const { rows, columns } = shown;
    this.painter.show({ rows, columns, labels, instances, image });
    this.caption.textContent = `${shown.place} of ${shown.of}: ${shown.prompt}`;
    this.#refresh(shown.state);
  }

  destroy() {
    this.model.off("change:shown", this.shows);
    this.model.off("msg:custom", this.hears);
    this.painter.destroy();
  }

  #tools(bar) {
    this.tools = TOOLS.map((tool) => this.#button(bar, tool, () => this.#use({ tool })));
    this.classes = CLASSES.map((label) => {
      const { name } = this.subject.classes.find(({ value }) => value === label);
      return this.#button(bar, `${label} ${name}`, () => this.#use({ label }));
    });
    this.instance = this.#number(bar, this.subject.noun, 1, 255, () => this.#use({}));
    this.size = this.#number(bar, "size", 1, 32, (value) => { this.painter.size = value; });
    this.size.value = 3;
    this.#button(bar, "undo", () => this.painter.undo());
    this.#button(bar, "redo", () => this.painter.redo());
    this.#button(bar, "fit", () => this.painter.fit());
  }

  #verdicts(bar) {
    this.verdicts = VERDICTS.map((verdict) => this.#button(bar, this.subject.verdicts[verdict], () => {
      Object.assign(this.judged, { verdict, chosen: true });
      this.#save();
    }));
    this.done = this.#button(bar, "done", () => this.#finish());
    this.#button(bar, "previous", () => this.model.send({ kind: "step", by: -1 }));
    this.#button(bar, "next", () => this.model.send({ kind: "step", by: 1 }));
  }

  #use({ tool = this.painter.tool, label = this.painter.ink.label || 2 }) {
    this.painter.tool = tool;
    this.painter.ink = { label, instance: label === 1 ? 0 : Number(this.instance.value) };
    this.#refresh();
  }

  // A verdict that nobody chose follows from what is painted.
  #stroke() {
    if (!this.judged.chosen) this.judged.verdict = verdictOf(this.painter.state);
    this.judged.done = false;
    this.#save();
  }

  #finish() {
    const said = { ...this.painter.state, verdict: this.judged.verdict };
    const wrong = this.judged.done ? [] : problems(said, this.subject);
    if (wrong.length) return this.#refresh(wrong.join(" "));
    this.judged.done = !this.judged.done;
    return this.#save();
  }

  #save() {
    const { labels, instances } = this.painter.state;
    const { verdict, done } = this.judged;
    this.waiting += 1;
    const uid = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
    // Copies: what is sent may be detached, and a state is never changed.
    const grids = [labels.slice().buffer, instances.slice().buffer];
    this.model.send({ kind: "stroke", uid, sample: this.sample, verdict, done }, undefined, grids);
    this.#refresh("saving …");
  }

  #answer(message) {
    if (message.kind !== "saved" && message.kind !== "refused") return;
    this.waiting -= 1;
    this.#refresh(this.waiting > 0 && message.kind === "saved" ? "saving …" : message.said);
  }

  #refresh(said = this.status.value) {
    const { tool, ink } = this.painter;
    this.tools.forEach((button, i) => press(button, TOOLS[i] === tool));
    this.classes.forEach((button, i) => press(button, CLASSES[i] === ink.label));
    this.verdicts.forEach((button, i) => press(button, VERDICTS[i] === this.judged.verdict));
    press(this.done, this.judged.done);
    this.status.value = said;
  }

  #key(event) {
    event.stopPropagation();
    if (event.target.tagName === "INPUT") return;
    const key = event.key.toLowerCase();
    const command = event.ctrlKey || event.metaKey;
    if (command && key === "z") this.painter[event.shiftKey ? "redo" : "undo"]();
    else if (!command && ["1", "2", "3"].includes(key)) this.#use({ label: Number(key) });
    else return;
    event.preventDefault();
  }

  #add(parent, tag, name) {
    const made = Object.assign(parent.ownerDocument.createElement(tag), { className: name });
    parent.append(made);
    return made;
  }

  #button(bar, name, act) {
    const button = Object.assign(this.#add(bar, "button", ""), { textContent: name, type: "button" });
    button.addEventListener("click", act);
    return button;
  }

  #number(bar, name, min, max, act) {
    const label = Object.assign(this.#add(bar, "label", ""), { textContent: `${name} ` });
    const input = Object.assign(this.#add(label, "input", ""), { type: "number", min, max, value: 1 });
    input.addEventListener("change", () => {
      input.value = Math.min(Math.max(Math.round(Number(input.value)) || min, min), max);
      act(Number(input.value));
    });
    return input;
  }
}

function press(button, yes) {
  button.setAttribute("aria-pressed", String(yes));
}

function bytes(view) {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

export default {
  render({ model, el }) {
    const notebook = new Notebook(model, el);
    return () => notebook.destroy();
  },
};
