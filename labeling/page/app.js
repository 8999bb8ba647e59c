// The labelling page: which picture is shown, what was chosen, and what becomes of each stroke.

import { Refused, Unreachable, call, stateOf } from "./api.js";
import { Clock } from "./clock.js";
import { askConflict, askName, closable, showHelp, showHistory } from "./dialogs.js";
import { tint } from "./drawing.js";
import { accept, decode, handsOf, judge } from "./grid.js";
import { Journal } from "./journal.js";
import { VERDICTS, problems, stepFault, verdictOf } from "./judgement.js";
import { Painter } from "./painter.js";
import { Panel, byId } from "./panel.js";
import { Samples } from "./samples.js";
import { Saver } from "./saver.js";
import { actionOf } from "./shortcuts.js";

const LABELS = { 1: 1, 2: 2, 3: 3, 4: 0 };
const AGAIN = 2000;
const STATUS = {
  saved: () => "Saved",
  saving: ({ waiting }) => `Saving ${waiting}`,
  offline: ({ waiting }) => (waiting ? `Offline: ${waiting} kept here` : "Offline"),
  locked: ({ waiting }) => `Locked out: ${waiting} kept here`,
  refused: () => "Not accepted",
  conflict: () => "Conflict: choose",
  full: () => "Not kept: storage full",
};
const ADVICE = {
  offline: "The server does not answer. Strokes are kept in this browser and sent as soon as it does.",
  full: "This browser's storage is full: leave this page open until the server answers.",
  conflict: "A picture was labelled in two places. Press to see both.",
};

class App {
  constructor() {
    Object.assign(this, { items: [], index: -1, ticket: 0, kind: 2, hand: 1, offers: [], chosen: null });
    this.painter = new Painter(byId("canvas"), {
      rows: 1, columns: 1,
      onStroke: (state) => this.#stroke(state),
      onProgress: (stroke) => this.saver.draft(this.doc, stroke && { ...this.painter.history.now, labels: stroke.labels, hands: stroke.hands }, this.clock.seconds),
      onCursor: (row, column) => this.#sayCell(row, column),
      onLook: () => this.panel?.showTools(),
    });
    this.painter.locked = true;
    this.clock = new Clock();
  }

  async begin() {
    closable();
    try {
      this.session = await call("/api/session");
      this.session.annotator ??= await askName(this.session.annotators, null, false);
    } catch (error) {
      return this.#retry(error, () => this.begin());
    }
    const { run, run_id: id, annotator } = this.session;
    byId("run").textContent = run;
    byId("who").textContent = annotator;
    this.place = `handscope ${id} place `;
    this.journal = new Journal(id);
    this.saver = new Saver(this.journal, annotator);
    this.panel = new Panel(this);
    this.#listen();
    this.panel.showTools();
    await this.saver.replay();
    return this.act("mode", localStorage.getItem(`${this.place}mode`) ?? "paint");
  }

  /** Do what a key or a control stands for. */
  act(action, argument) {
    return this.#actions[action](argument);
  }

  get state() {
    return this.painter.history.now;
  }

  #actions = {
    mode: (mode) => this.#enter(mode),
    class: (kind) => this.#take(Number(kind)),
    tool: (tool) => this.#use(tool),
    brush: () => this.#use("brush"),
    eraser: () => this.#use("eraser"),
    rectangle: () => this.#use("rectangle"),
    fill: () => this.#use("fill"),
    size: (step) => (this.painter.size += step),
    opacity: (step) => (this.painter.opacity += step),
    keep: () => this.#choose({ keep: !this.painter.keep }),
    hide: (yes) => (this.painter.hidden = yes),
    hand: () => this.#nextHand(),
    newHand: () => this.#toHand(Math.min(255, Math.max(0, ...this.state.hands, this.hand) + 1)),
    handNumber: (text) => (text === "new" ? this.act("newHand") : this.#toHand(Number(text))),
    judge: (label) => this.painter.push(judge(this.state, this.hand, Number(label))),
    fault: (kind) => this.painter.push({ ...this.state, faults: stepFault(this.state.faults, this.hand, kind, this.session.scopes[kind]) }),
    faults: () => byId("faults").querySelector("button:not([hidden])")?.focus(),
    verdict: (which) => this.#judgePicture(VERDICTS[which]),
    verdictName: (verdict) => this.#judgePicture(verdict),
    undo: () => this.painter.undo(),
    redo: () => this.painter.redo(),
    suggest: () => this.#nextSuggestion(),
    source: (source) => this.#offer(source),
    accept: () => this.#accept(),
    take: (author) => this.#takeOver(author),
    rate: (value) => this.#rate(Number(value)),
    travel: (step) => this.open(this.index + step),
    unlabelled: () => this.#nextOpen(),
    done: () => this.#markDone(!this.state.done),
    finish: () => (this.mode === "rate" ? this.open(this.index + 1) : this.#markDone(true) && this.#nextOpen()),
    zoom: (factor) => this.painter.zoom(factor),
    fit: () => this.painter.fit(),
    earlier: () => this.#earlier(),
    help: () => showHelp(this.mode),
    escape: () => this.#offer(null) || this.painter.canvas.focus(),
  };

  /** Show the picture at a place of the queue. */
  async open(index) {
    if (index < 0 || index >= this.items.length) return this.#say(index < 0 ? "This is the first picture." : "This is the last picture.");
    this.#leave();
    const ticket = ++this.ticket;
    const { sample } = this.items[index];
    this.index = index;
    try {
      const [doc, picture] = await this.samples.open(sample);
      if (ticket !== this.ticket) return undefined;
      this.#show(doc, picture);
    } catch (error) {
      if (ticket === this.ticket) this.#retry(error, () => ticket === this.ticket && this.open(index));
      return undefined;
    }
    localStorage.setItem(this.place + this.mode, sample);
    for (const near of [index + 1, index - 1, this.#openAfter(index), index + 2]) {
      if (this.items[near]) this.samples.ahead(this.items[near].sample);
    }
    return this.doc;
  }

  #show(doc, picture) {
    const known = this.shown === doc;
    Object.assign(this, { doc, shown: doc, picture, offers: [], absent: {}, chosen: null });
    const { rows, columns, history } = doc;
    this.painter.locked = this.mode === "rate" || !picture;
    this.painter.show({ rows, columns, history, image: picture });
    this.hand = Math.max(1, handsOf(this.state).keys().next().value ?? 1);
    this.#take(this.kind);
    this.clock.start(doc.seconds);
    byId("number").value = this.index + 1;
    byId("of").textContent = `of ${this.items.length}`;
    byId("prompt").textContent = doc.prompt ?? "";
    this.#note(doc.flaw);
    this.#showOffers();
    this.panel.showState();
    this.#showCounts();
    if (!known && this.mode !== "rate") this.#refresh();
  }

  #leave() {
    this.painter.finish();
    if (this.doc) this.doc.seconds = this.clock.seconds;
  }

  async #enter(mode) {
    this.#leave();
    Object.assign(this, { mode, doc: null, shown: null, items: [], index: -1 });
    const ticket = ++this.ticket;
    localStorage.setItem(`${this.place}mode`, mode);
    this.samples = new Samples(this.saver, mode);
    for (const button of byId("modes").children) button.setAttribute("aria-pressed", button.dataset.mode === mode);
    for (const [name, hidden] of [["paint-only", mode === "rate"], ["rate-only", mode !== "rate"], ["review-only", mode !== "review"]]) {
      for (const element of document.querySelectorAll(`.${name}`)) element.hidden = hidden;
    }
    try {
      const { items } = await call(`/api/queue?mode=${mode}`);
      if (ticket !== this.ticket) return;
      this.items = items;
    } catch (error) {
      this.#retry(error, () => ticket === this.ticket && this.#enter(mode));
      return;
    }
    if (!this.items.length) {
      this.#note(mode === "review" ? "Nothing to review: no picture was labelled by two annotators who disagree." : "This run has no pictures to label.");
      return;
    }
    const last = this.items.findIndex(({ sample }) => sample === localStorage.getItem(this.place + mode));
    await this.open(last >= 0 ? last : Math.max(0, this.#openAfter(-1)));
    this.#progress();
  }

  // A picture that was fetched ahead may have been labelled elsewhere since.
  async #refresh() {
    const { doc, samples } = this;
    if (performance.now() - doc.fetched < AGAIN) return;
    doc.fetched = performance.now();
    try {
      if (!(await samples.refresh(doc)) || this.doc !== doc) return;
      this.painter.refresh();
      this.panel.showState();
      this.#say("Newer labels of this picture were found and are shown; undo brings back what was here.");
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    }
  }

  // A picture stays done only while nothing in it contradicts itself.
  #stroke(state) {
    const settled = state.done && problems(state).length ? { ...state, done: false } : state;
    this.painter.history.amend(settled);
    this.saver.stroke(this.doc, settled, this.clock.seconds);
    this.#note(state.done && !settled.done ? `No longer done. ${problems(state)[0]}` : null);
    this.items[this.index].done = settled.done;
    this.panel.showState();
    this.#showCounts();
  }

  #markDone(done) {
    const verdict = this.state.verdict ?? verdictOf(this.state);
    const state = { ...this.state, verdict, done };
    const [problem] = done ? problems(state) : [];
    if (problem) return this.#note(problem);
    if (this.state.done !== done) this.painter.push(state);
    this.#progress();
    return true;
  }

  #judgePicture(verdict) {
    this.painter.push({ ...this.state, verdict: this.state.verdict === verdict ? null : verdict });
  }

  #choose(settings) {
    Object.assign(this.painter, settings);
    this.panel.showTools();
  }

  #use(tool) {
    this.#choose({ tool });
  }

  #take(kind) {
    this.kind = kind;
    const label = LABELS[kind];
    this.#choose({ ink: { label, hand: label === 1 ? 0 : this.hand }, tool: this.painter.tool === "eraser" ? "brush" : this.painter.tool });
  }

  #toHand(hand) {
    this.hand = hand;
    this.painter.ink = { ...this.painter.ink, hand: this.kind === 1 ? 0 : hand };
    this.panel.showState();
    this.#say(`Hand ${hand}`);
  }

  #nextHand() {
    const numbers = [...handsOf(this.state).keys()];
    this.#toHand(numbers.find((number) => number > this.hand) ?? numbers[0] ?? 1);
  }

  async #nextSuggestion() {
    await this.#fetchOffers();
    const place = this.offers.indexOf(this.chosen);
    this.#offer(this.offers[place + 1] ?? null);
    if (!this.offers.length) this.#say("There are no suggestions for this picture.");
  }

  async #fetchOffers() {
    const { doc } = this;
    if (doc.offers) return;
    try {
      const { items, absent } = await call(`/api/samples/${encodeURIComponent(doc.sample)}/suggestions`);
      doc.offers = items.map((item) => ({
        ...item, labels: decode(item.labels), hands: decode(item.hands),
        map: item.map && new Float32Array(decode(item.map).buffer),
      }));
      doc.absent = absent;
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      this.#note(error.message);
    }
    if (doc === this.doc) this.#showOffers();
  }

  #showOffers() {
    const others = this.doc.others.map((other) => ({ ...other, ...stateOf({ done: true, ...other }), source: other.author }));
    this.offers = [...(this.doc.offers ?? []), ...others];
    this.panel.showSuggestions(this.doc.offers ?? [{ source: "Look for some" }], this.doc.absent ?? {}, null);
    this.panel.showOthers(others, null, (canvas, other) => this.#thumbnail(canvas, other));
  }

  // Draw the suggestion of a source, or none; true where one was drawn before.
  #offer(source) {
    if (source === "Look for some") return this.#nextSuggestion();
    const wanted = source?.source ? source : this.offers.find((offer) => offer.source === source);
    const had = this.chosen;
    this.chosen = wanted === had ? null : wanted ?? null;
    this.painter.suggestion = this.chosen;
    if (!this.doc) return false;
    this.panel.showSuggestions(this.doc.offers ?? [{ source: "Look for some" }], this.doc.absent ?? {}, this.chosen);
    this.panel.markOther(this.chosen);
    return had !== null;
  }

  #accept() {
    if (!this.chosen?.hands.some(Boolean)) return;
    const { chosen } = this;
    this.#offer(null);
    const label = this.kind === 1 ? 0 : LABELS[this.kind];
    this.painter.push(accept(this.state, chosen, label, this.painter.keep));
  }

  #takeOver(author) {
    const { labels, hands, faults, verdict } = this.offers.find((offer) => offer.author === author);
    this.painter.push({ labels, hands, faults, verdict, done: false });
  }

  #thumbnail(canvas, state) {
    const { rows, columns } = this.doc;
    const cells = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const pixels = new ImageData(columns, rows);
    tint(pixels, state, [0, 0, rows, columns]);
    cells.getContext("2d").putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    if (this.picture) context.drawImage(this.picture, 0, 0, canvas.width, canvas.height);
    Object.assign(context, { imageSmoothingEnabled: false, globalAlpha: 0.55 });
    context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  }

  #rate(value) {
    this.saver.rate(this.doc, value, this.clock.seconds);
    this.doc.rating = value;
    this.items[this.index].done = true;
    this.panel.showState();
    this.#say(`Rated ${value}.`);
    this.#showCounts();
    this.open(this.index + 1);
  }

  // The first place after `index` that is not done, from the front again where there is none; -1 where all are done.
  #openAfter(index) {
    const after = this.items.findIndex(({ done }, place) => place > index && !done);
    return after >= 0 ? after : this.items.findIndex(({ done }) => !done);
  }

  #nextOpen() {
    const place = this.#openAfter(this.index);
    if (place < 0 || place === this.index) return this.#say(place < 0 ? "All pictures are done." : "This is the last one that is open.");
    return this.open(place);
  }

  async #earlier() {
    try {
      await showHistory(this.doc, this.saver, (answer) => {
        this.saver.opened(this.doc.sample, answer.revision, stateOf(answer));
        this.doc.history.push(stateOf(answer));
        this.items[this.index].done = answer.done;
        this.painter.refresh();
        this.panel.showState();
      });
    } catch (error) {
      this.#note(error.message);
    }
  }

  async #resolve(sample) {
    if (document.querySelector("dialog[open]") || this.painter.stroke || !this.saver.conflicts.has(sample)) return;
    const { current, sha, ...sides } = this.saver.sides(sample);
    const image = await call(current.image, { as: "blob" }).then(createImageBitmap).catch(() => null);
    if (document.querySelector("dialog[open]")) return;
    const { rows, columns } = current;
    const choice = await askConflict({ ...sides, current, rows, columns, image, isAnother: sha !== current.image_sha256 });
    if (choice === undefined || !this.saver.conflicts.has(sample)) return;
    const after = choice ?? stateOf(current);
    this.saver.resolve(sample, choice && { ...choice, done: choice.done && problems(choice).length === 0 });
    if (this.doc?.sample !== sample) return this.samples.forget(sample);
    Object.assign(this.doc, { sha: current.image_sha256, image: current.image });
    this.doc.history.push(after);
    this.items[this.index].done = after.done;
    this.painter.refresh();
    this.panel.showState();
  }

  #retry(error, act) {
    if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    this.#note(error.status === 401 ? "The server was started anew: open the address that it printed. This page goes on by itself then." : error.message);
    setTimeout(act, AGAIN);
  }

  async #progress() {
    try {
      this.progress = await call("/api/progress");
      this.#showCounts();
      this.saver.hurry();
    } catch {
      // The state of the server is shown where strokes are saved.
    }
  }

  #showCounts() {
    const done = this.items.filter((item) => item.done).length;
    Object.assign(byId("bar"), { max: this.items.length || 1, value: done });
    const { seconds_per_image: seconds, annotators = [] } = this.progress ?? {};
    const pace = seconds ? ` · ${Math.round(seconds)} s each` : "";
    byId("counts").textContent = `${done} of ${this.items.length} done${pace}`;
    byId("counts").title = annotators.map(({ name, done: n }) => `${name}: ${n} done`).join(", ");
  }

  #showStatus() {
    const { status } = this.saver;
    const button = byId("status");
    const advice = ADVICE[status.name] ?? (status.message || "Everything painted is on the server.");
    if (button.dataset.state !== status.name && status.name !== "saving" && this.spoken !== status.name) {
      this.spoken = status.name;
      byId("live").textContent = `${STATUS[status.name](status)}. ${status.name === "saved" ? "" : advice}`;
    }
    Object.assign(button, { textContent: STATUS[status.name](status), title: advice });
    button.dataset.state = status.name;
    byId("note").dataset.saver = status.name;
  }

  #note(text) {
    byId("note").hidden = !text;
    byId("note").textContent = text ?? "";
    if (text) this.#say(text);
  }

  #say(text) {
    byId("spoken").textContent = text;
  }

  #sayCell(row, column) {
    const cell = row * this.doc.columns + column;
    const { labels, hands } = this.painter.state;
    const name = { 0: hands[cell] ? "unsure" : "unlabelled", 1: "not hand", 2: "good", 3: "bad" }[labels[cell]];
    this.#say(`Row ${row + 1}, column ${column + 1}: ${name}${hands[cell] ? ` hand ${hands[cell]}` : ""}`);
  }

  #listen() {
    this.saver.addEventListener("status", () => this.#showStatus());
    this.saver.addEventListener("conflict", ({ detail }) => this.#resolve(detail.sample));
    this.saver.addEventListener("settled", ({ detail }) => {
      this.samples.forget(detail.sample);
      byId("conflict").close();
      if (this.doc?.sample === detail.sample) this.open(this.index);
    });
    for (const [id, action, argument] of [
      ["previous", "travel", -1], ["next", "travel", 1], ["unlabelled", "unlabelled"], ["undo", "undo"], ["redo", "redo"],
      ["done", "done"], ["finish", "finish"], ["zoom-in", "zoom", 1.4], ["zoom-out", "zoom", 1 / 1.4], ["fit", "fit"],
      ["accept", "accept"], ["dismiss", "suggest"], ["history-open", "earlier"], ["help-open", "help"],
    ]) byId(id).addEventListener("click", () => this.doc && this.act(action, argument));
    byId("modes").addEventListener("click", ({ target }) => target.dataset.mode && this.act("mode", target.dataset.mode));
    byId("goto").addEventListener("submit", (event) => {
      event.preventDefault();
      this.open(byId("number").valueAsNumber - 1);
      this.painter.canvas.focus();
    });
    byId("status").addEventListener("click", () => {
      const [sample] = this.saver.conflicts.keys();
      if (sample) this.#resolve(sample);
      else this.saver.hurry();
    });
    byId("who").addEventListener("click", async () => {
      const name = await askName(this.session.annotators, this.session.annotator, true);
      if (name && name !== this.session.annotator) location.reload();
    });
    for (const [type, yes] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false], ["pointerleave", false]]) {
      byId("hide").addEventListener(type, () => this.act("hide", yes));
    }
    addEventListener("keydown", (event) => this.#key(event));
    addEventListener("keyup", ({ key }) => key.toLowerCase() === "l" && this.act("hide", false));
    addEventListener("blur", () => this.act("hide", false));
    addEventListener("pagehide", () => this.#leave(), { capture: true });
    document.addEventListener("visibilitychange", () => !document.hidden && this.doc && this.mode !== "rate" && this.#refresh());
    setInterval(() => document.hidden || this.#progress(), 30000);
  }

  #key(event) {
    if (event.defaultPrevented || document.querySelector("dialog[open]") || !this.doc) return;
    const found = actionOf(event, this.mode);
    if (!found) return;
    event.preventDefault();
    this.act(...found);
  }
}

export const app = new App();
app.begin();
