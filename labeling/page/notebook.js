// The painter in a notebook: the same canvas, journal and protocol as the page, with the kernel in the server's place.
// labeling/widget.py joins this file with the modules it imports into the one module that anywidget loads.

import { Refused, Unreachable, address, stateOf } from "./api.js";
import { History } from "./grid.js";
import { Journal } from "./journal.js";
import { VERDICTS, problems, verdictOf } from "./judgement.js";
import { Painter } from "./painter.js";
import { Saver, chainOf } from "./saver.js";
import { standing } from "./standing.js";

const TOOLS = ["brush", "eraser", "rectangle", "fill"];
const CLASSES = [1, 2, 3];
const MODE = "paint";
const WAIT = 8000; // a kernel that computes answers late: strokes wait, and are sent again

class Notebook {
  constructor(model, root) {
    Object.assign(this, { model, root, doc: null, asked: new Map(), ticket: 0 });
    this.session = model.get("session");
    this.subject = this.session.subject;
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
    this.choice = this.#choice(this.#add(root, "div", "tools"));
    this.status = this.#add(root, "output", "status");
    this.note = this.#add(root, "p", "note");
    this.note.setAttribute("role", "status");
    this.painter = new Painter(this.canvas, {
      rows: 1, columns: 1, onStroke: (state) => this.#stroke(state),
      onProgress: (stroke) => this.#progressed(stroke),
    });
    this.painter.locked = true;
    const journal = new Journal(this.session.run_id);
    this.saver = new Saver(journal, this.session.annotator, (path, { body }) => this.#ask(path, body));
    this.saver.addEventListener("status", () => this.#showStatus());
    this.saver.addEventListener("conflict", () => this.#refresh());
    this.shows = () => this.show();
    this.hears = (message, buffers) => this.#heard(message, buffers);
    model.on("change:sample", this.shows);
    model.on("msg:custom", this.hears);
    this.#showStatus();
    this.saver.replay().then(() => this.show());
  }

  /** The sample that the kernel has on show, as it is stored by now. */
  async show() {
    const ticket = ++this.ticket;
    const sample = this.model.get("sample");
    try {
      const [doc, image] = await this.#document(sample);
      if (ticket !== this.ticket) return;
      this.painter.finish(); // a stroke under way belongs to the picture before
      this.doc = doc;
      this.painter.locked = false;
      this.painter.show({ ...doc, image });
      const place = this.session.samples.indexOf(sample) + 1;
      this.caption.textContent = `${place} of ${this.session.samples.length}: ${doc.prompt}`;
      this.#say("");
      this.#refresh();
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      if (ticket !== this.ticket) return;
      this.#say(error.message);
      this.painter.locked = true;
      if (error instanceof Unreachable) setTimeout(() => ticket === this.ticket && this.show(), 2000);
    }
  }

  destroy() {
    this.ticket++;
    this.model.off("change:sample", this.shows);
    this.model.off("msg:custom", this.hears);
    this.painter.destroy();
  }

  // A document with its history: what is stored, and behind it what still waits to be.
  async #document(sample) {
    const { picture, ...answer } = await this.#ask(address(sample, "", MODE));
    const chain = chainOf({ mode: MODE, sample });
    const pending = this.saver.pending(chain);
    this.saver.opened(chain, answer.revision, stateOf(answer));
    const history = new History(stateOf(answer));
    if (pending) history.push(pending);
    const { prompt, rows, columns, image_sha256: sha } = answer;
    const image = await createImageBitmap(new Blob([picture], { type: "image/png" }));
    return [{ sample, mode: MODE, prompt, rows, columns, sha, history }, image];
  }

  // Another view or window wrote: what is shown follows, unless strokes of this one are on their way.
  async #follow() {
    const { doc } = this;
    const chain = doc && chainOf(doc);
    if (!doc || this.painter.stroke || this.saver.pending(chain)) return;
    const answer = await this.#ask(address(doc.sample, "", MODE)).catch(() => null);
    const isOld = !answer || this.saver.pending(chain) || (answer.revision ?? 0) <= (this.saver.revision(chain) ?? 0);
    if (isOld || doc !== this.doc) return;
    this.saver.opened(chain, answer.revision, stateOf(answer));
    doc.history.push(stateOf(answer));
    this.painter.refresh();
    this.#refresh();
  }

  // A picture stays done only while nothing in it contradicts itself.
  #stroke(state) {
    const [problem] = state.done ? problems(state, this.subject) : [];
    const settled = problem ? { ...state, done: false } : state;
    this.painter.history.amend(settled);
    this.saver.stroke(this.doc, settled, null);
    this.#say(problem ? `No longer done. ${problem}` : "");
    this.#refresh();
  }

  #progressed(stroke) {
    const { now } = this.painter.history;
    const state = stroke && { ...now, labels: stroke.labels, instances: stroke.instances };
    this.saver.draft(this.doc, state, null);
  }

  #judge(verdict) {
    const { now } = this.painter.history;
    this.painter.push({ ...now, verdict: now.verdict === verdict ? null : verdict });
  }

  #finish() {
    const { now } = this.painter.history;
    const said = { ...now, verdict: now.verdict ?? verdictOf(now), done: !now.done };
    const wrong = said.done ? problems(said, this.subject) : [];
    this.#say(wrong.join(" "));
    if (!wrong.length) this.painter.push(said);
  }

  #step(by) {
    const place = this.session.samples.indexOf(this.model.get("sample")) + by;
    if (!this.session.samples[place]) return;
    this.model.set("sample", this.session.samples[place]);
    this.model.save_changes();
  }

  // Somebody else labelled the picture meanwhile: nothing is overwritten, and somebody chooses.
  #settle(keepsMine) {
    const [chain] = this.saver.conflicts.keys();
    const { mine, current, sample } = this.saver.sides(chain);
    this.saver.resolve(chain, keepsMine ? { ...mine, done: mine.done && !problems(mine, this.subject).length } : null);
    if (this.doc?.sample === sample && !keepsMine) {
      this.doc.history.push(stateOf(current));
      this.painter.refresh();
    }
    this.#refresh();
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
    this.verdicts = VERDICTS.map((verdict) =>
      this.#button(bar, this.subject.verdicts[verdict], () => this.doc && this.#judge(verdict)));
    this.done = this.#button(bar, "done", () => this.doc && this.#finish());
    this.#button(bar, "previous", () => this.#step(-1));
    this.#button(bar, "next", () => this.#step(1));
  }

  #choice(bar) {
    bar.append("This picture was labelled elsewhere meanwhile. ");
    this.#button(bar, "save mine after it", () => this.#settle(true));
    this.#button(bar, "keep the saved one", () => this.#settle(false));
    return bar;
  }

  #use({ tool = this.painter.tool, label = this.painter.ink.label || 2 }) {
    this.painter.tool = tool;
    this.painter.ink = { label, instance: label === 1 ? 0 : Number(this.instance.value) };
    this.#refresh();
  }

  // As `call` does for the page: the kernel's answer, Unreachable where none comes, Refused where it says no.
  #ask(path, body) {
    const id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
    return new Promise((resolve, reject) => {
      const late = () => {
        this.asked.delete(id);
        reject(new Unreachable("The kernel does not answer."));
      };
      this.asked.set(id, { resolve, reject, timer: setTimeout(late, WAIT) });
      try {
        this.model.send({ kind: "ask", id, path, body });
      } catch {
        late();
      }
    });
  }

  #heard(message, buffers) {
    if (message.kind === "written") this.#follow();
    const waiting = this.asked.get(message.id);
    if (!waiting) return;
    this.asked.delete(message.id);
    clearTimeout(waiting.timer);
    const { status, said } = message;
    if (status >= 500) waiting.reject(new Unreachable(said.error));
    else if (status >= 400) waiting.reject(new Refused(status, said));
    else waiting.resolve({ ...said, picture: buffers?.[0] });
  }

  #showStatus() {
    const { text, advice } = standing(this.saver.status);
    this.status.value = text;
    this.status.title = advice ?? "";
    if (this.saver.status.name === "refused") this.#say(this.saver.refused.message);
  }

  #say(text) {
    this.note.textContent = text;
  }

  #refresh() {
    const { tool, ink, history } = this.painter;
    this.tools.forEach((button, i) => press(button, TOOLS[i] === tool));
    this.classes.forEach((button, i) => press(button, CLASSES[i] === ink.label));
    this.verdicts.forEach((button, i) => press(button, VERDICTS[i] === history.now.verdict));
    press(this.done, Boolean(history.now.done));
    this.choice.hidden = !this.saver?.conflicts.size;
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

export default {
  render({ model, el }) {
    const notebook = new Notebook(model, el);
    return () => notebook.destroy();
  },
};
