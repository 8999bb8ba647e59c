// Pictures and their labels as documents, fetched ahead so that the next one is there at once.

import { Refused, address, call, read, stateOf } from "./api.js";
import { History } from "./grid.js";
import { chainOf } from "./saver.js";

const PICTURES = 8;
const DOCUMENTS = 400;

export class Samples {
  constructor(saver, mode) {
    Object.assign(this, { saver, mode, documents: new Map(), pictures: new Map() });
  }

  /** A document and its picture (null where it has a flaw); its history is what it was when it was left. */
  async open(sample) {
    const doc = await this.#document(sample);
    return [doc, await this.#picture(doc)];
  }

  /** Have a document ready. */
  ahead(sample) {
    this.open(sample).catch(() => {});
  }

  /**
   * Ask the server again: "labels" where it has newer ones, which then follow in the history, "picture" where it has
   * another one by now, which is to be opened anew; else null.
   */
  async refresh(doc) {
    const answer = await read(address(doc.sample, "", this.mode), this.saver.annotator);
    const chain = chainOf(doc);
    if (this.saver.pending(chain)) return null;
    if (answer.image_sha256 !== doc.sha) {
      this.forget(doc.sample);
      return "picture";
    }
    // Not newer is also what was read before a stroke that is confirmed by now.
    if ((answer.revision ?? 0) <= (this.saver.revision(chain) ?? 0)) return null;
    this.saver.opened(chain, answer.revision, stateOf(answer));
    doc.others = answer.others ?? [];
    doc.history.push(stateOf(answer));
    return "labels";
  }

  /** Forget a document, so that it is fetched anew. */
  forget(sample) {
    this.documents.delete(sample);
  }

  #document(sample) {
    const known = this.documents.get(sample);
    this.documents.delete(sample);
    const promise = known ?? this.#fetch(sample);
    this.documents.set(sample, promise);
    promise.catch(() => this.documents.delete(sample));
    if (this.documents.size > DOCUMENTS) this.documents.delete(this.documents.keys().next().value);
    return promise;
  }

  async #fetch(sample, isSecond = false) {
    const answer = await read(address(sample, "", this.mode), this.saver.annotator);
    const chain = chainOf({ mode: this.mode, sample });
    const pending = this.saver.pending(chain);
    // A stroke that was confirmed while the answer was under way has made it old.
    const known = this.saver.revision(chain);
    if (!pending && known && answer.revision < known && !isSecond) return this.#fetch(sample, true);
    if (this.mode !== "rate") this.saver.opened(chain, answer.revision, stateOf(answer));
    const history = new History(stateOf(answer));
    if (pending) history.push(pending);
    const { prompt, rows, columns, image, image_sha256: sha, others, rating, seconds } = answer;
    return {
      sample, mode: this.mode, prompt, rows, columns, image, sha, others: others ?? [], rating: rating ?? null, history,
      seconds: seconds ?? 0,
      flaw: null, fetched: performance.now(),
    };
  }

  async #picture(doc) {
    let promise = this.pictures.get(doc.image);
    this.pictures.delete(doc.image);
    promise ??= call(doc.image, { as: "blob" }).then((blob) => createImageBitmap(blob));
    this.pictures.set(doc.image, promise);
    if (this.pictures.size > PICTURES) this.pictures.delete(this.pictures.keys().next().value);
    try {
      return await promise;
    } catch (error) {
      this.pictures.delete(doc.image);
      if (!(error instanceof Refused || error instanceof DOMException)) throw error;
      doc.flaw = `The picture cannot be shown: ${error.message}`;
      return null;
    }
  }
}
