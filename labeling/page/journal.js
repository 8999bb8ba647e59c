// Strokes that the server has not confirmed yet, in the browser's own storage: written before they are sent. They are
// written twice: at once where a closed tab finds them again (localStorage), and where a killed browser does (`Vault`).
//
// An entry is a plain object with a `uid`. A tab keeps, beside its entries, one draft: the stroke that is being
// painted. A draft whose tab is gone becomes an entry like any other.

import { pack, unpack } from "./grid.js";
import { Vault } from "./vault.js";

/** A name that nobody else will choose. */
export function unique() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Journal {
  constructor(run, storage = localStorage) {
    this.storage = storage;
    this.strokes = `handscope ${run} stroke `;
    this.drafts = `handscope ${run} draft `;
    this.aside = `handscope ${run} unreadable `;
    this.vault = new Vault(run);
    this.tab = unique();
    // Held for as long as this page lives, by which another page knows that the draft is still being painted.
    navigator.locks?.request(this.drafts + this.tab, () => new Promise(() => {}));
  }

  /** Write an entry; false where the browser's storage is full. */
  put(entry) {
    try {
      this.storage.setItem(this.strokes + entry.uid, JSON.stringify(entry));
      return true;
    } catch {
      return false;
    }
  }

  /** Have the disk keep an entry too; true once it does, false where this browser keeps nothing. */
  keep(entry) {
    return this.vault.put(entry);
  }

  remove(uid) {
    this.storage.removeItem(this.strokes + uid);
    this.vault.remove(uid);
  }

  /** Bring back what a browser that was killed had kept. */
  async restore() {
    for (const entry of await this.vault.entries()) if (!this.has(entry.uid)) this.put(entry);
  }

  has(uid) {
    return this.storage.getItem(this.strokes + uid) !== null;
  }

  /** Every entry, oldest first. */
  entries() {
    return this.#read(this.strokes).sort((a, b) => a.at - b.at);
  }

  /** Keep the stroke under way, in place of what was kept of it before; null when it has ended. */
  draft(entry) {
    const key = this.drafts + this.tab;
    try {
      if (entry) this.storage.setItem(key, JSON.stringify(entry));
      else this.storage.removeItem(key);
    } catch {
      // A full storage is reported when the stroke itself is put.
    }
  }

  /** Make entries of the drafts of tabs that are gone. */
  async adopt() {
    const held = (await navigator.locks?.query())?.held.map(({ name }) => name) ?? [];
    for (const key of this.#keys(this.drafts)) {
      if (held.includes(key) || key === this.drafts + this.tab) continue;
      const [entry] = this.#read(key);
      if (entry) this.put(entry);
      this.storage.removeItem(key);
    }
  }

  #keys(prefix) {
    return Object.keys(this.storage).filter((key) => key.startsWith(prefix));
  }

  /** How many entries could not be read; they stay in this browser, out of the way of the others. */
  get unreadable() {
    return this.#keys(this.aside).length;
  }

  #read(prefix) {
    return this.#keys(prefix).flatMap((key) => {
      const text = this.storage.getItem(key);
      const entry = parsed(text);
      if (entry) return [entry];
      this.storage.setItem(this.aside + key, text);
      this.storage.removeItem(key);
      return [];
    });
  }
}

// An entry of the journal, or null for what is none: part of one, or something else that was put under its name.
function parsed(text) {
  try {
    const entry = JSON.parse(text);
    const { kind, cells, labels, instances = entry.hands, value } = entry;
    const named = ["uid", "annotator", "sample", "mode"].every((name) => typeof entry[name] === "string");
    const grids = () => [labels, instances].every((text) => typeof text === "string" && unpack(text, cells));
    const painted = kind === "stroke" && Number.isInteger(cells) && grids();
    const rated = kind === "rating" && Number.isFinite(value);
    return named && Number.isFinite(entry.at) && (painted || rated) ? entry : null;
  } catch {
    return null;
  }
}

/** A state as it is kept in the journal. */
export function packed({ labels, instances, faults = {}, verdict = null, done = false }) {
  return { cells: labels.length, labels: pack(labels), instances: pack(instances), faults, verdict, done };
}

/** The state of an entry of the journal; one of a page of handscope 0.3 calls the instances hands. */
export function unpacked({ cells, labels, hands, instances = hands, faults, verdict, done }) {
  return { labels: unpack(labels, cells), instances: unpack(instances, cells), faults, verdict, done };
}
