// The labelling page: which picture is shown, and what becomes of each stroke.

import { Refused, Unreachable, call, explain, read } from "./api.js";
import { Clock } from "./clock.js";
import { askName, closable, showHelp } from "./dialogs.js";
import { editing } from "./editing.js";
import { showGallery } from "./gallery.js";
import { instancesOf } from "./grid.js";
import { Journal } from "./journal.js";
import { problems } from "./judgement.js";
import { Offers } from "./offers.js";
import { Painter } from "./painter.js";
import { Panel, byId } from "./panel.js";
import { Place } from "./place.js";
import { Samples } from "./samples.js";
import { Saver } from "./saver.js";
import { showKeys, usualKey } from "./own_keys.js";
import { actionOf } from "./shortcuts.js";
import { note, say, sayCell, showCounts, showStatus } from "./status.js";
import { attend, bringBack, settle } from "./versions.js";

const AGAIN = 2000;
const NEWS = 30000;
const MOMENT = 350; // how long a picture is seen before it can be judged: longer than a double click takes
const JUDGING = ["rate", "verdict", "verdictName", "done", "finish", "judge", "fault", "accept", "take"];

class App {
  constructor() {
    Object.assign(this, { items: [], index: -1, goal: -1, ticket: 0, kind: 2, instance: 1, clock: new Clock() });
    this.rated = []; // the places of what was rated since the mode was entered, the last one last
    this.painter = new Painter(byId("canvas"), {
      rows: 1,
      columns: 1,
      onStroke: (state) => this.#stroke(state),
      onProgress: (stroke) => this.#progressed(stroke),
      onCursor: (row, column) => sayCell(this.painter, this.session.subject, row, column),
      onLook: () => {
        this.panel?.showTools();
        if (this.place) this.place.look = this.painter;
      },
      onPick: (row, column) => this.offers.grow(row, column),
    });
    this.painter.locked = true;
    this.actions = {
      ...editing(this),
      mode: (mode) => this.#enter(mode),
      suggest: () => this.offers.next(),
      source: (source) => this.offers.choose(source),
      accept: () => this.offers.accept(),
      take: (author) => this.offers.take(author),
      rate: (value) => this.#rate(Number(value)),
      unrate: () => this.#unrate(),
      travel: (step) => this.open(this.goal + step),
      unlabelled: () => this.#nextOpen(),
      gallery: () => showGallery(this),
      earlier: () => bringBack(this),
      help: () => showHelp(this.session.subject, this.mode),
      escape: () => this.offers.dismiss() || this.painter.canvas.focus(),
    };
  }

  async begin() {
    closable();
    try {
      this.session = await call("/api/session");
      this.session.annotator ??= await askName(this.session.annotators, null, false);
    } catch (error) {
      return this.#retry(error, () => this.begin());
    }
    const { run_id: id, annotator } = this.session;
    byId("who").textContent = annotator;
    const place = new Place(id);
    const { size = this.painter.size, opacity = this.painter.opacity } = place.look;
    Object.assign(this.painter, { size, opacity });
    this.place = place;
    this.saver = new Saver(new Journal(id), annotator);
    this.panel = new Panel(this);
    this.offers = new Offers(this);
    this.#listen();
    this.panel.showTools();
    showKeys();
    await this.saver.replay();
    await this.#enter(this.place.mode);
    if (!this.place.isGuided) {
      this.place.guided();
      showHelp(this.session.subject, this.mode);
    }
    const { unreadable } = this.saver.journal;
    if (unreadable) return note(`${unreadable} of the strokes kept in this browser cannot be read, and are left aside.`);
    const names = this.saver.absent.join(", ");
    return names && note(`Strokes of ${names} wait in this browser: they are sent when that name is chosen again.`);
  }

  /** Do what a key or a control stands for. */
  act(action, argument) {
    if (this.doc?.flaw && JUDGING.includes(action)) return note(`${this.doc.flaw} It cannot be judged unseen.`);
    return this.actions[action](argument);
  }

  /** Whether the picture has been on show for long enough to be judged. */
  get isSeen() {
    return performance.now() - this.shown >= MOMENT;
  }

  /** The labels of the picture that is shown. */
  get state() {
    return this.painter.history.now;
  }

  /** Show the picture at a place of the queue. */
  async open(index) {
    if (!this.items[index]) return this.#beyond(index);
    const ticket = ++this.ticket;
    const { sample } = this.items[index];
    this.goal = index;
    try {
      const [doc, picture] = await this.samples.open(sample);
      if (ticket !== this.ticket) return undefined;
      this.#leave();
      Object.assign(this, { index, goal: index });
      this.#show(doc, picture);
    } catch (error) {
      if (ticket !== this.ticket) return undefined;
      byId("number").value = this.doc ? this.index + 1 : "";
      return this.#retry(error, () => ticket === this.ticket && this.open(index));
    }
    this.place.moved(this.mode, sample);
    for (const near of [index + 1, index - 1, this.#openAfter(index), index + 2]) {
      if (this.items[near]) this.samples.ahead(this.items[near].sample);
    }
    return this.doc;
  }

  #beyond(index) {
    byId("number").value = this.doc ? this.index + 1 : "";
    if (index === -1) say("This is the first picture.");
    else if (index === this.items.length) say("This is the last picture.");
    else note(`There are ${this.items.length} pictures: choose one from 1 to ${this.items.length}.`);
  }

  #show(doc, picture) {
    this.doc = doc;
    this.shown = performance.now();
    this.painter.locked = this.mode === "rate" || !picture;
    this.painter.show({ ...doc, image: picture });
    this.instance = instancesOf(this.state).keys().next().value ?? 1;
    this.clock.start(doc.seconds);
    byId("number").value = this.index + 1;
    byId("of").textContent = `of ${this.items.length}`;
    this.panel.showPrompt(doc.prompt ?? "");
    note(doc.flaw);
    this.act("class", this.kind);
    this.panel.showState();
    this.offers.show(doc, picture);
    this.#count();
    const done = this.items[this.index].done ? "done" : "not done";
    say(`Picture ${this.index + 1} of ${this.items.length}, ${done}.${doc.flaw ? ` ${doc.flaw}` : ""}`);
    this.#refresh();
  }

  // Before another picture is shown: a stroke under way ends, and the time stays with its picture.
  #leave() {
    this.painter.finish();
    if (this.doc) this.doc.seconds = this.clock.seconds;
  }

  async #enter(mode) {
    this.#leave();
    const ticket = ++this.ticket;
    Object.assign(this, { mode, doc: null, items: [], index: -1, goal: -1, rated: [] });
    this.samples = new Samples(this.saver, mode);
    this.painter.locked = true;
    this.#blank();
    this.place.mode = mode;
    byId("run").textContent = mode === "rate" ? "" : this.session.run; // a run's name may tell which arm it is
    for (const button of byId("modes").children) button.setAttribute("aria-pressed", button.dataset.mode === mode);
    const hidden = { "paint-only": mode === "rate", "rate-only": mode !== "rate", "review-only": mode !== "review" };
    for (const [name, is] of Object.entries(hidden)) {
      for (const element of document.getElementsByClassName(name)) element.hidden = is;
    }
    try {
      const { items } = await read(`/api/queue?mode=${mode}`, this.saver.annotator);
      if (ticket !== this.ticket) return;
      this.items = items;
    } catch (error) {
      this.#retry(error, () => ticket === this.ticket && this.#enter(mode));
      return;
    }
    this.#news();
    if (this.items.length) {
      const last = this.items.findIndex(({ sample }) => sample === this.place.sample(mode));
      await this.open(last >= 0 ? last : Math.max(0, this.#openAfter(-1)));
    } else this.#empty();
  }

  // Nothing of a picture is seen, its prompt neither.
  #blank() {
    this.painter.show({ rows: 1, columns: 1 });
    byId("of").textContent = "";
    this.panel.showPrompt("");
    byId("number").value = "";
    note(null);
  }

  #empty() {
    this.#count();
    note(this.mode === "review"
      ? "Nothing to review: there is no picture on which two annotators disagree."
      : "This run has no pictures for you to label.");
  }

  // A picture that was fetched a while ago may have been labelled elsewhere since.
  async #refresh() {
    const { doc, samples } = this;
    if (this.mode === "rate" || performance.now() - doc.fetched < AGAIN) return;
    doc.fetched = performance.now();
    try {
      const newer = await samples.refresh(doc);
      if (this.isShut) note(null);
      this.isShut = false;
      if (!newer || this.doc !== doc) return;
      if (newer === "picture") {
        if (await this.open(this.index)) note("This picture was generated anew, and is shown as it is now.");
        return;
      }
      this.painter.refresh();
      this.panel.showState();
      say("Newer labels of this picture were found and are shown; undo brings back what was here.");
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      if (!error.locked) return;
      this.isShut = true;
      this.#retry(error, () => this.doc === doc && this.#refresh());
    }
  }

  // A picture stays done only while nothing in it contradicts itself.
  #stroke(state) {
    this.#stay();
    const [problem] = state.done ? problems(state, this.session.subject) : [];
    const settled = problem ? { ...state, done: false } : state;
    note(problem && `No longer done. ${problem}`);
    this.painter.history.amend(settled);
    this.saver.stroke(this.doc, settled, this.clock.seconds);
    this.items[this.index].done = settled.done;
    this.panel.showState();
    this.#count();
  }

  // Whoever paints while another picture is on its way wants to stay.
  #stay() {
    if (this.goal === this.index) return;
    this.ticket++;
    this.goal = this.index;
  }

  #progressed(stroke) {
    const state = stroke && { ...this.state, labels: stroke.labels, instances: stroke.instances };
    this.saver.draft(this.doc, state, this.clock.seconds);
  }

  #rate(value) {
    if (!this.isSeen) return say("Look at this picture for a moment, then rate it.");
    this.saver.rate(this.doc, value, this.clock.seconds);
    this.rated.push(this.index);
    this.#rerated(value);
    say(`Rated ${value}.`);
    return this.open(this.index + 1);
  }

  // The last rating is taken back, by a row of its own, and its picture shown; without one, that of this picture.
  async #unrate() {
    const place = this.rated.at(-1) ?? this.index;
    if (place !== this.index && !await this.open(place)) return undefined;
    const { doc } = this;
    this.rated = this.rated.filter((one) => one !== place);
    if (doc.rating === null) return note("There is no rating to take back.");
    this.saver.rate(doc, doc.rating, this.clock.seconds, true);
    this.#rerated(null);
    return note("Its rating was taken back.");
  }

  #rerated(value) {
    this.doc.rating = value;
    this.items[this.index].done = value !== null;
    this.panel.showState();
    this.#count();
  }

  // The first place after `index` that is not done, from the front again where there is none; -1 where all are done.
  #openAfter(index) {
    const after = this.items.findIndex(({ done }, place) => place > index && !done);
    return after >= 0 ? after : this.items.findIndex(({ done }) => !done);
  }

  #nextOpen() {
    const place = this.#openAfter(this.index);
    if (place >= 0 && place !== this.index) return this.open(place);
    return note(place < 0 ? "All pictures are done." : "This is the last picture that is open.");
  }

  /** A state that is on the server, or on its way, follows in the history of the picture. */
  follow(state) {
    this.doc.history.push(state);
    this.items[this.index].done = state.done;
    this.painter.refresh();
    this.panel.showState();
    this.#count();
  }

  #retry(error, act) {
    if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    note(explain(error));
    setTimeout(act, AGAIN);
  }

  // Whether the server answers is shown where strokes are saved.
  async #news() {
    this.progress = await call("/api/progress").catch(() => this.progress);
    this.#count();
  }

  #count() {
    showCounts(this.items, this.progress);
  }

  #listen() {
    const { saver } = this;
    saver.addEventListener("status", () => showStatus(saver.status));
    saver.addEventListener("conflict", ({ detail }) => settle(this, detail));
    saver.addEventListener("settled", ({ detail }) => {
      this.samples.forget(detail);
      byId("conflict").close();
      if (this.doc?.sample === detail) this.open(this.index);
    });
    byId("status").addEventListener("click", () => attend(this));
    byId("who").addEventListener("click", () => this.#rename());
    addEventListener("keydown", (event) => this.#key(event));
    addEventListener("keyup", ({ key }) => usualKey(key.toLowerCase()) === "l" && this.act("hide", false));
    addEventListener("blur", () => this.act("hide", false));
    addEventListener("pagehide", () => this.#leave(), { capture: true });
    document.addEventListener("visibilitychange", () => !document.hidden && this.doc && this.#refresh());
    setInterval(() => document.hidden || this.#news(), NEWS);
  }

  async #rename() {
    const { annotators, annotator } = this.session;
    const name = await askName(annotators, annotator, true);
    if (name && name !== annotator) location.reload();
  }

  #key(event) {
    if (event.defaultPrevented || document.querySelector("dialog[open]") || !this.doc) return;
    // A button that has the focus would be pressed again and again.
    if (event.repeat && ["Enter", " "].includes(event.key) && event.target.matches?.("button")) event.preventDefault();
    const found = actionOf(event, this.mode);
    if (!found) return;
    event.preventDefault();
    this.act(...found);
  }
}

export const app = new App();
app.begin();
