// Sends strokes in their order, and keeps each in the journal from before it is sent until the server has confirmed it.
//
// The strokes of one sample in one mode (painting and reviewing are stored apart) form a chain: each is made on the
// revision that the one before it became. A stroke carries a uid, so that one which is sent twice is stored once. Where
// the server holds a revision that the chain does not know, the chain stops until somebody has chosen (`resolve`).

import { Refused, Unreachable, address, call, explain, stateOf } from "./api.js";
import { encode, same } from "./grid.js";
import { packed, unique, unpacked } from "./journal.js";

const PAUSES = [500, 1000, 2000, 4000];
const DRAFT_EVERY = 150;

/** The name of the chain that a document or an entry belongs to. */
export function chainOf({ mode, sample }) {
  return `${mode} ${sample}`;
}

export class Saver extends EventTarget {
  /** `ask` is how the server is spoken to, as `call` does. */
  constructor(journal, annotator, ask = call) {
    super();
    Object.assign(this, { journal, annotator, ask, entries: [], saved: new Map(), conflicts: new Map() });
    this.keeping = new Set(); // uids of entries that the disk does not have yet
    Object.assign(this, { busy: false, failures: 0, trouble: null, full: false, frail: false, latest: 0 });
    addEventListener("online", () => this.hurry());
    addEventListener("pagehide", () => this.#send(this.#next(), true).catch(() => {}));
    addEventListener("storage", ({ key }) => key?.startsWith(journal.strokes) && this.#forgetResolved());
  }

  /** Take up what earlier pages left in the journal. */
  async replay() {
    await this.journal.restore();
    await this.journal.adopt();
    const known = new Set(this.entries.map(({ uid }) => uid));
    const left = this.journal.entries().filter(({ uid, annotator }) => annotator === this.annotator && !known.has(uid));
    this.entries = [...left, ...this.entries];
    this.latest = Math.max(this.latest, ...left.map(({ at }) => at));
    this.#tell();
    this.pump();
  }

  /**
   * How things stand: name (saved, saving, offline, locked, refused, conflict or full), how many strokes are waiting,
   * of how many the disk has no copy yet (keeping), whether it takes none (frail), and a message.
   */
  get status() {
    const waiting = this.entries.length;
    const keeping = this.entries.filter(({ uid }) => this.keeping.has(uid)).length;
    const { refused } = this;
    const name = this.full ? "full"
      : this.conflicts.size ? "conflict"
      : this.trouble ? this.trouble.name
      : refused ? "refused"
      : waiting ? "saving" : "saved";
    return { name, waiting, keeping, frail: this.frail, message: this.trouble?.message ?? refused?.message ?? "" };
  }

  /** What the server will not have of one picture, {sample, mode, message, count}; null where there is none. */
  get refused() {
    const first = this.entries.find(({ refused }) => refused);
    if (!first) return null;
    const { sample, mode, refused: message } = first;
    return { sample, mode, message, count: this.#refusedOf(chainOf(first)).length };
  }

  /** Others whose strokes wait in this browser, to be sent when their name is chosen again. */
  get absent() {
    const names = this.journal.entries().map(({ annotator }) => annotator);
    return [...new Set(names)].filter((name) => name !== this.annotator);
  }

  /** The revision of a chain that the next stroke is made on, as far as this page knows; undefined if it knows none. */
  revision(chain) {
    return this.saved.get(chain)?.revision;
  }

  /** The server says that a chain stands at `revision`, with this state. */
  opened(chain, revision, state) {
    if (!this.pending(chain)) this.saved.set(chain, { revision, state: packed(state) });
  }

  /** The newest state of a chain that is not confirmed, or null. */
  pending(chain) {
    const entry = this.#chain(chain).at(-1);
    return entry ? unpacked(entry) : null;
  }

  /** Both sides of a conflict: {mine, base (null where it is not known), current, sample, sha}. */
  sides(chain) {
    const { current, entry } = this.conflicts.get(chain);
    const { from } = this.#chain(chain)[0];
    return { mine: this.pending(chain), base: from && unpacked(from), current, sample: entry.sample, sha: entry.sha };
  }

  /** Save a state of a document {sample, mode, sha}. */
  stroke(doc, state, seconds) {
    this.#add(this.#entry(doc, state, seconds));
    this.#endDraft();
  }

  /** Keep a stroke that is being painted, a few times a second; null when it was given up. */
  draft(doc, state, seconds) {
    this.unfinished = state && { doc, state, seconds };
    if (!state) this.#endDraft();
    else this.drafting ??= setTimeout(() => this.#keepDraft(), DRAFT_EVERY);
  }

  /** Save a rating of a document, or that it was `withdrawn`. */
  rate({ sample, mode, sha }, value, seconds, withdrawn = false) {
    this.#add({ ...this.#stamp(), kind: "rating", sample, mode, sha, value, seconds, withdrawn });
  }

  /** Settle a conflict: the saved state stays (null), or `state` follows it. */
  resolve(chain, state) {
    const { current, entry } = this.conflicts.get(chain);
    const old = this.#chain(chain);
    this.conflicts.delete(chain);
    this.saved.set(chain, { revision: current.revision, state: packed(stateOf(current)) });
    this.entries = this.entries.filter((each) => !old.includes(each));
    if (state) this.stroke({ ...entry, sha: current.image_sha256 }, state, entry.seconds);
    for (const { uid } of old) this.journal.remove(uid);
    this.#tell();
    this.pump();
  }

  /** Give up what was refused of a chain; the server has `saved` of it, null for nothing. False if more was painted. */
  discard(chain, saved) {
    const isOld = saved && this.revision(chain) > (saved.revision ?? 0);
    if (isOld || this.#chain(chain).some(({ refused }) => !refused)) return false;
    this.#refusedOf(chain).forEach((entry) => this.#drop(entry));
    if (saved) this.opened(chain, saved.revision, stateOf(saved));
    this.#tell();
    return true;
  }

  /** Try again now. */
  hurry() {
    clearTimeout(this.timer);
    this.failures = 0;
    this.waits = false;
    this.pump();
  }

  /** Send what waits, one after the other. */
  async pump() {
    if (this.busy || this.waits) return;
    this.busy = true;
    try {
      for (let entry; (entry = this.#next()); ) await this.#send(entry);
      this.#calm();
    } catch (error) {
      this.#wait(error);
    } finally {
      this.busy = false;
    }
  }

  #keepDraft() {
    const { doc, state, seconds } = this.unfinished;
    this.drafting = null;
    this.journal.draft(this.#entry(doc, state, seconds));
  }

  #endDraft() {
    clearTimeout(this.drafting);
    this.drafting = null;
    this.journal.draft(null);
  }

  // Later than any before it, though somebody may have put the clock back.
  #stamp() {
    this.latest = Math.max(Date.now(), this.latest + 1);
    return { uid: unique(), annotator: this.annotator, at: this.latest };
  }

  #entry({ sample, mode, sha }, state, seconds) {
    const chain = chainOf({ sample, mode });
    const after = this.#chain(chain).at(-1)?.uid ?? null;
    const { revision: base = null, state: from = null } = this.saved.get(chain) ?? {};
    return { ...this.#stamp(), kind: "stroke", sample, mode, sha, base, from, after, seconds, ...packed(state) };
  }

  #add(entry) {
    this.full = !this.journal.put(entry);
    this.entries.push(entry);
    this.#keep(entry);
    this.#tell();
    this.pump();
  }

  #keep(entry) {
    this.keeping.add(entry.uid);
    this.journal.keep(entry).then((kept) => {
      this.keeping.delete(entry.uid);
      this.frail = !kept;
      this.#tell();
    });
  }

  #chain(chain) {
    return this.entries.filter((entry) => entry.kind === "stroke" && chainOf(entry) === chain);
  }

  #refusedOf(chain) {
    return this.entries.filter((entry) => entry.refused && chainOf(entry) === chain);
  }

  // The oldest entry that may be sent: not of a sample in conflict, and not one that the server will not have.
  #next() {
    return this.entries.find((entry) => !entry.refused && !this.conflicts.has(chainOf(entry)));
  }

  async #send(entry, keepalive = false) {
    if (!entry) return;
    const { uid, annotator, sample, mode, sha, seconds } = entry;
    const common = { uid, annotator, image_sha256: sha, seconds };
    try {
      if (entry.kind === "rating") {
        const { value, withdrawn = false } = entry;
        await this.ask(address(sample, "/rating", mode), { body: { ...common, value, withdrawn }, keepalive });
        this.#confirm(entry);
      } else {
        const { labels, instances, ...said } = unpacked(entry);
        const body = { ...common, base: entry.base, labels: encode(labels), instances: encode(instances), ...said };
        const { revision } = await this.ask(address(sample, "/strokes", mode), { body, keepalive });
        this.#confirm(entry, revision);
      }
    } catch (error) {
      if (!(error instanceof Refused) || error.locked) throw error;
      const { current } = error.body ?? {};
      if (error.status === 409 && entry.kind === "stroke" && current) this.#clash(entry, current);
      else this.#refuse(entry, error.message);
    }
  }

  #confirm(entry, revision = null) {
    const index = this.entries.indexOf(entry);
    if (index < 0) return;
    this.full = false;
    // Those that follow learn their revision before the one they wait for leaves the journal.
    if (entry.kind === "stroke") {
      this.saved.set(chainOf(entry), { revision, state: packed(unpacked(entry)) });
      this.#rebase(entry, revision);
    }
    this.entries.splice(index, 1);
    this.journal.remove(entry.uid);
    // What was refused before has a later state of the sample saved over it.
    this.#refusedOf(chainOf(entry)).forEach((old) => this.#drop(old));
    this.#tell();
  }

  // The one that waits for `entry` is made on `revision`.
  #rebase(entry, revision) {
    const chain = chainOf(entry);
    for (const next of this.#chain(chain).filter(({ after }) => after === entry.uid)) {
      Object.assign(next, { base: revision, after: null, from: this.saved.get(chain)?.state ?? null });
      this.journal.put(next);
      this.#keep(next);
    }
  }

  #drop(entry) {
    this.entries.splice(this.entries.indexOf(entry), 1);
    this.journal.remove(entry.uid);
  }

  // Somebody wrote in between. Where they wrote the same, there is nothing to choose.
  #clash(entry, current) {
    const chain = chainOf(entry);
    const mine = this.pending(chain);
    const theirs = stateOf(current);
    const alike = mine.verdict === theirs.verdict && mine.done === theirs.done && same(mine, theirs)
      && JSON.stringify(mine.faults) === JSON.stringify(theirs.faults) && entry.sha === current.image_sha256;
    this.conflicts.set(chain, { current, entry });
    if (alike) this.resolve(chain, null);
    else this.dispatchEvent(new CustomEvent("conflict", { detail: chain }));
    this.#tell();
  }

  #refuse(entry, message) {
    entry.refused = message;
    if (entry.kind === "stroke") this.#rebase(entry, entry.base);
    this.#tell();
  }

  #calm() {
    clearTimeout(this.timer);
    Object.assign(this, { failures: 0, trouble: null, waits: false });
    this.#tell();
  }

  #wait(error) {
    if (!(error instanceof Unreachable || error instanceof Refused)) throw error;
    this.trouble = { name: error instanceof Unreachable ? "offline" : "locked", message: explain(error) };
    this.waits = true;
    const pause = PAUSES[Math.min(this.failures++, PAUSES.length - 1)];
    this.timer = setTimeout(() => {
      this.waits = false;
      this.pump();
    }, pause);
    this.#tell();
  }

  // Another tab has settled a conflict, or sent what both had.
  #forgetResolved() {
    for (const [chain, { entry }] of this.conflicts) {
      const old = this.#chain(chain);
      if (old.some(({ uid }) => this.journal.has(uid))) continue;
      this.entries = this.entries.filter((each) => !old.includes(each));
      this.conflicts.delete(chain);
      this.saved.delete(chain);
      this.dispatchEvent(new CustomEvent("settled", { detail: entry.sample }));
    }
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("status"));
  }
}
