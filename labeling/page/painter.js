// A canvas on which the cells of a token grid are painted, with pointer, fingers or keys. It needs no server.
//
//     const painter = new Painter(canvas, { rows: 12, columns: 12, image, onStroke: (state) => save(state) });
//     painter.tool = "rectangle"; painter.ink = { label: 2, instance: 1 }; painter.undo();
//
// A stroke ends when the pointer is lifted; then `onStroke` gets the new state {labels, instances}, as it does after an
// undo or redo. States are never changed afterwards. `onProgress` gets a stroke that is not finished yet (null when it
// is given up), `onCursor` the row and column of the keyboard's cursor, `onLook` is told of a new size or opacity, and
// `onPick` of the row and column of a cell that the tool "pick" was pressed on, which paints nothing.

import { Gestures } from "./gestures.js";
import { History, Stroke, anchor } from "./grid.js";
import { Surface } from "./surface.js";

const LARGEST = 32;
const IGNORE = () => {};

export class Painter {
  constructor(canvas, { onStroke = IGNORE, onProgress = IGNORE, onCursor = IGNORE, onLook = IGNORE, onPick = IGNORE, ...shown }) {
    Object.assign(this, { canvas, onStroke, onProgress, onCursor, onLook, onPick });
    Object.assign(this, { tool: "brush", ink: { label: 2, instance: 1 }, keep: false, locked: false });
    Object.assign(this, { stroke: null, hover: null, cell: null, brushSize: 3 });
    this.surface = new Surface(canvas, () => ({
      state: this.state, settled: this.history.now, cursor: this.#cursor(), locked: this.locked,
    }));
    this.show(shown);
    this.gestures = new Gestures(this);
  }

  /** Show a picture (anything a canvas draws, or null) and its labels; a `history` brings its earlier strokes along. */
  show({ rows, columns, labels, instances, image = null, history = null }) {
    this.finish();
    const empty = () => new Uint8Array(rows * columns);
    this.history = history ?? new History({ labels: labels ?? empty(), instances: instances ?? empty() });
    this.cell &&= [Math.min(this.cell[0], rows - 1), Math.min(this.cell[1], columns - 1)];
    this.surface.show(rows, columns, image);
  }

  get view() {
    return this.surface.view;
  }

  /** The labels as they are seen: those of an unfinished stroke while it lasts. */
  get state() {
    return this.stroke ?? this.history.now;
  }

  /** How many cells the brush is across, 1 to 32. */
  get size() {
    return this.brushSize;
  }

  set size(cells) {
    this.brushSize = Math.min(Math.max(Math.round(cells), 1), LARGEST);
    this.surface.redraw();
    this.onLook();
  }

  /** How much the labels cover the picture, 0 to 1. */
  get opacity() {
    return this.surface.look.opacity;
  }

  set opacity(share) {
    this.surface.look.opacity = Math.min(Math.max(share, 0), 1);
    this.surface.redraw();
    this.onLook();
  }

  /** Whether only the picture is seen. */
  get hidden() {
    return this.surface.look.hidden;
  }

  set hidden(yes) {
    this.surface.look.hidden = yes;
    this.surface.redraw();
  }

  /** {labels, instances, map}, drawn hatched over the picture and never part of the labels; null for none. */
  set suggestion(suggestion) {
    this.surface.suggestion = suggestion;
  }

  undo() {
    return this.#step("undo");
  }

  redo() {
    return this.#step("redo");
  }

  /** Put a new state after the present one, as a stroke does. */
  push(state) {
    this.finish();
    this.history.push(state);
    this.surface.retint();
    this.surface.redraw();
    this.onStroke(state);
  }

  /** Draw the present state anew, after the history was changed from elsewhere. */
  refresh() {
    this.surface.retint();
    this.surface.redraw();
  }

  fit() {
    this.view.fit();
    this.surface.moved();
  }

  zoom(factor, x, y) {
    this.view.zoom(factor, x, y);
    this.surface.moved();
  }

  pan(dx, dy) {
    this.view.pan(dx, dy);
    this.surface.moved();
  }

  /** Begin a stroke at a point (u, v). */
  begin(point) {
    const { rows, columns } = this.view;
    const { tool, ink, size, keep } = this;
    if (tool === "pick") {
      const [row, column] = point.map(Math.floor);
      if (row >= 0 && column >= 0 && row < rows && column < columns) this.onPick(row, column);
      return;
    }
    this.stroke = new Stroke(this.history.now, rows, columns, { tool, ink: { ...ink }, size, keep });
    this.strokeTo(point);
  }

  strokeTo(point) {
    const box = this.stroke?.to(...point);
    if (!box) return;
    this.surface.retint(box);
    this.onProgress(this.stroke);
  }

  /** End a stroke that is under way, as if the pointer had been lifted. */
  finish() {
    if (!this.stroke) return;
    const after = this.stroke.end();
    this.stroke = null;
    if (!after) {
      this.onProgress(null); // nothing came of it, and nothing of it is to be kept
      return;
    }
    this.history.push(after);
    this.surface.redraw();
    this.onStroke(after);
  }

  /** Give up a stroke that is under way. */
  drop() {
    if (!this.stroke) return;
    this.stroke = null;
    this.refresh();
    this.onProgress(null);
  }

  hoverAt(point) {
    this.#redrawCursor();
    this.hover = point;
    if (point) this.cell = null;
    this.#redrawCursor();
  }

  hideCell() {
    this.#redrawCursor();
    this.cell = null;
  }

  /** Move the keyboard's cursor, which comes to the middle of what is seen at first; a locked picture moves instead. */
  moveCell(down, right) {
    const { view } = this;
    if (this.locked) return this.pan(-40 * right, -40 * down);
    const [u, v] = view.at(view.width / 2, view.height / 2);
    const to = this.cell ? [this.cell[0] + down, this.cell[1] + right] : [Math.floor(u), Math.floor(v)];
    this.hover = null;
    this.cell = [
      Math.min(Math.max(to[0], 0), view.rows - 1), Math.min(Math.max(to[1], 0), view.columns - 1)];
    this.strokeTo(this.#middle());
    view.reveal(...this.cell);
    this.surface.moved();
    return this.onCursor(...this.cell);
  }

  /** Begin a stroke at the keyboard's cursor; false where there is none. */
  beginAtCell() {
    if (!this.cell || this.locked) return false;
    this.begin(this.#middle());
    return true;
  }

  /** Stop listening and drawing. */
  destroy() {
    this.gestures.destroy();
    this.surface.destroy();
  }

  #step(which) {
    this.finish();
    if (!this.history[which]()) return false;
    this.refresh();
    this.onStroke(this.history.now);
    return true;
  }

  #middle() {
    return [this.cell[0] + 0.5, this.cell[1] + 0.5];
  }

  // Where the cursor stands and how many cells it is across; null when there is none.
  #cursor() {
    if (this.locked) return null;
    const size = this.tool === "brush" || this.tool === "eraser" ? this.size : 1;
    const point = this.cell ? this.#middle() : this.hover;
    return point && { size, at: anchor(...point, size) };
  }

  #redrawCursor() {
    const cursor = this.#cursor();
    if (!cursor) return;
    const [[row, column], size] = [cursor.at, cursor.size];
    this.surface.redraw([row - size, column - size, row + size, column + size]);
  }
}
