// Labels that are not the annotator's own: suggestions, and in review what others said. Drawn, and taken on request.

import { Refused, Unreachable, address, call, stateOf } from "./api.js";
import { tint } from "./drawing.js";
import { accept, decode } from "./grid.js";
import { byId } from "./panel.js";
import { note, say } from "./status.js";

const LOOK = { source: "Look for some" };
const PATIENCE = 120000; // networks are loaded for the first

export class Offers {
  constructor(app) {
    Object.assign(this, { app, chosen: null, judged: 0, others: [] });
  }

  /** Begin with another picture: nothing is drawn. */
  show(doc, picture) {
    Object.assign(this, { doc, chosen: null });
    this.others = doc.others.map((other) => ({ ...other, ...stateOf({ ...other, done: true }), source: other.author }));
    this.app.panel.showSuggestions(doc.suggestions ?? [LOOK], doc.absent ?? {}, null);
    this.app.panel.showOthers(this.others, (canvas, other) => this.#thumbnail(canvas, other, picture));
  }

  /** Draw what is on offer, one after the other, then nothing. */
  async next() {
    const { doc } = this;
    await this.#fetch();
    if (doc !== this.doc) return;
    const all = [...doc.suggestions ?? [], ...this.others];
    if (!all.length) say(`There are no suggestions for this picture. ${byId("absent").textContent}`);
    this.#draw(all[all.indexOf(this.chosen) + 1] ?? null);
  }

  /** Draw what comes from a source, or nothing where that is drawn already. */
  choose(source) {
    if (source === LOOK.source) return this.next();
    const found = [...this.doc.suggestions ?? [], ...this.others].find((offer) => offer.source === source);
    return this.#draw(found === this.chosen ? null : found);
  }

  /** Draw nothing; true where something was drawn. */
  dismiss() {
    const had = this.chosen !== null;
    if (had) this.#draw(null);
    return had;
  }

  /** Draw what grows from a cell. */
  async grow(row, column) {
    const { doc, app } = this;
    try {
      const path = `${address(doc.sample, "/region", doc.mode)}&row=${row}&column=${column}`;
      const { tokens } = await call(path, { patience: PATIENCE });
      if (doc !== this.doc) return;
      const instances = decode(tokens).map((one) => one * app.instance);
      this.#draw({ source: "region", labels: new Uint8Array(instances.length), instances, map: null });
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      note(error.message);
    }
  }

  /** The annotator says what the suggestion that is drawn shows: its label, 2 (good), 3 (bad) or 0 (unsure). */
  judge(label) {
    if (this.chosen) this.judged = label;
  }

  /**
   * What is drawn becomes part of the labels, as one stroke. A suggestion says where an instance is and not whether it
   * is good: it is unsure, unless the annotator has said more while looking at it.
   */
  accept() {
    const { app, chosen } = this;
    if (!chosen?.instances.some(Boolean)) return;
    if (chosen.author) {
      this.take(chosen.author);
      return;
    }
    const { judged } = this;
    this.#draw(null);
    app.painter.push(accept(app.state, chosen, judged, app.painter.keep));
  }

  /** All that another annotator said becomes the state of the picture. */
  take(author) {
    const { labels, instances, faults, verdict } = this.others.find((other) => other.author === author);
    this.dismiss();
    this.app.painter.push({ labels, instances, faults, verdict, done: false });
  }

  async #fetch() {
    const { doc } = this;
    if (doc.suggestions) return;
    byId("absent").textContent = "Looking… The first time takes up to half a minute, while networks are loaded.";
    say(byId("absent").textContent);
    try {
      const { items, absent } = await call(address(doc.sample, "/suggestions", doc.mode), { patience: PATIENCE });
      const map = (text) => text && new Float32Array(decode(text).buffer);
      doc.suggestions = items.map((item) => (
        { ...item, labels: decode(item.labels), instances: decode(item.instances), map: map(item.map) }));
      doc.absent = absent;
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
      note(error.message);
    }
    if (doc === this.doc) this.app.panel.showSuggestions(doc.suggestions ?? [LOOK], doc.absent ?? {}, null);
  }

  #draw(offer) {
    Object.assign(this, { chosen: offer, judged: 0 });
    this.app.painter.suggestion = offer;
    this.app.panel.showSuggestions(this.doc.suggestions ?? [LOOK], this.doc.absent ?? {}, offer);
    this.app.panel.markOther(offer);
  }

  #thumbnail(canvas, state, picture) {
    const { rows, columns } = this.doc;
    const cells = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const pixels = new ImageData(columns, rows);
    tint(pixels, state, [0, 0, rows, columns]);
    cells.getContext("2d").putImageData(pixels, 0, 0);
    const context = canvas.getContext("2d");
    if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    Object.assign(context, { imageSmoothingEnabled: false, globalAlpha: 0.55 });
    context.drawImage(cells, 0, 0, canvas.width, canvas.height);
  }
}
