// Arithmetic of labelled token grids. No page, no network: a state is {labels, instances}, two Uint8Arrays, row by row.
//
// A cell is unlabelled (0, 0), of no instance (1, 0), in a good instance (2, n), in a bad one (3, n), or in one that is
// unsure (0, n), where n is the number of the instance. A point is (u, v) in cells from the top left corner; cell (row,
// column) covers row <= u < row + 1.

export const NOTHING = Object.freeze({ label: 0, instance: 0 });

/** Offsets [row, column] of the cells of a round brush `size` cells across; an even one has its centre at a corner. */
export function disc(size) {
  const offsets = [];
  const low = -Math.floor(size / 2);
  const half = size % 2 ? 0 : 1;
  for (let row = low; row < low + size; row++) {
    for (let column = low; column < low + size; column++) {
      if ((2 * row + half) ** 2 + (2 * column + half) ** 2 <= size * size) offsets.push([row, column]);
    }
  }
  return offsets;
}

/** Where a brush of `size` stands when the pointer is at (u, v): a cell for odd sizes, a corner for even ones. */
export function anchor(u, v, size) {
  return size % 2 ? [Math.floor(u), Math.floor(v)] : [Math.floor(u + 0.5), Math.floor(v + 0.5)];
}

/** Every point of a straight line between two points of whole numbers, both ends among them, without gaps. */
export function line([row0, column0], [row1, column1]) {
  const steps = Math.max(Math.abs(row1 - row0), Math.abs(column1 - column0));
  const points = [[row0, column0]];
  for (let step = 1; step <= steps; step++) {
    points.push([
      row0 + Math.floor((2 * step * (row1 - row0) + steps) / (2 * steps)),
      column0 + Math.floor((2 * step * (column1 - column0) + steps) / (2 * steps)),
    ]);
  }
  return points;
}

/** Indices of the cells that hang together with `start` by their sides and are labelled alike. */
export function flood({ labels, instances }, rows, columns, start) {
  const seen = new Uint8Array(rows * columns);
  const found = [start];
  seen[start] = 1;
  for (let next = 0; next < found.length; next++) {
    const cell = found[next];
    const column = cell % columns;
    const around = [cell - columns, cell + columns, column > 0 ? cell - 1 : -1, column < columns - 1 ? cell + 1 : -1];
    for (const other of around) {
      if (other < 0 || other >= seen.length || seen[other]) continue;
      if (labels[other] !== labels[start] || instances[other] !== instances[start]) continue;
      seen[other] = 1;
      found.push(other);
    }
  }
  return found;
}

/** Whether two states have the same cells. */
export function same(a, b) {
  return a.labels.every((label, i) => label === b.labels[i]) && a.instances.every((one, i) => one === b.instances[i]);
}

/** How many cells differ. */
export function difference(a, b) {
  return a.labels.reduce((n, label, i) => n + (label !== b.labels[i] || a.instances[i] !== b.instances[i] ? 1 : 0), 0);
}

/**
 * One stroke, from the moment the pointer goes down until it is lifted.
 *
 * `how`: tool (brush, eraser, rectangle or fill), ink {label, instance}, size of the brush, keep. With keep, only
 * unlabelled cells are painted, and only cells of the ink are erased.
 */
export class Stroke {
  constructor(state, rows, columns, how) {
    this.before = state;
    this.labels = state.labels.slice();
    this.instances = state.instances.slice();
    this.rows = rows;
    this.columns = columns;
    this.how = how;
    this.brush = disc(how.size);
    this.last = null;
    this.corner = null;
  }

  /** Go on to a point; returns the box of cells [top, left, bottom, right) that may have changed, or null. */
  to(u, v) {
    const { tool, size } = this.how;
    if (tool === "rectangle") return this.#rectangle(u, v);
    if (tool === "fill") return this.#fill(u, v);
    const point = anchor(u, v, size);
    const points = line(this.last ?? point, point);
    this.last = point;
    const rows = points.map(([row]) => row);
    const columns = points.map(([, column]) => column);
    for (const [row, column] of points) for (const [y, x] of this.brush) this.#set(row + y, column + x);
    return this.#clip(
      Math.min(...rows) - size, Math.min(...columns) - size, Math.max(...rows) + size, Math.max(...columns) + size);
  }

  /** The state that the stroke leads to, or null where it changed nothing. */
  end() {
    const after = { ...this.before, labels: this.labels, instances: this.instances };
    return same(this.before, after) ? null : after;
  }

  #rectangle(u, v) {
    const cell = [this.#within(u, this.rows), this.#within(v, this.columns)];
    this.corner ??= cell;
    const previous = this.last ?? cell;
    this.labels.set(this.before.labels);
    this.instances.set(this.before.instances);
    const [top, bottom] = [Math.min(cell[0], this.corner[0]), Math.max(cell[0], this.corner[0])];
    const [left, right] = [Math.min(cell[1], this.corner[1]), Math.max(cell[1], this.corner[1])];
    for (let row = top; row <= bottom; row++) for (let column = left; column <= right; column++) this.#set(row, column);
    this.last = cell;
    return this.#clip(
      Math.min(top, previous[0]), Math.min(left, previous[1]),
      Math.max(bottom, previous[0]) + 1, Math.max(right, previous[1]) + 1);
  }

  #fill(u, v) {
    if (this.last) return null;
    const [row, column] = (this.last = [Math.floor(u), Math.floor(v)]);
    if (row < 0 || column < 0 || row >= this.rows || column >= this.columns) return null;
    const cells = flood(this.before, this.rows, this.columns, row * this.columns + column);
    for (const cell of cells) this.#set(Math.floor(cell / this.columns), cell % this.columns);
    return [0, 0, this.rows, this.columns];
  }

  #set(row, column) {
    if (row < 0 || column < 0 || row >= this.rows || column >= this.columns) return;
    const cell = row * this.columns + column;
    const { tool, ink, keep } = this.how;
    const erases = tool === "eraser";
    const only = erases ? ink : NOTHING;
    if (keep && (this.before.labels[cell] !== only.label || this.before.instances[cell] !== only.instance)) return;
    this.labels[cell] = erases ? 0 : ink.label;
    this.instances[cell] = erases ? 0 : ink.instance;
  }

  #within(at, length) {
    return Math.min(Math.max(Math.floor(at), 0), length - 1);
  }

  #clip(top, left, bottom, right) {
    const box = [Math.max(top, 0), Math.max(left, 0), Math.min(bottom, this.rows), Math.min(right, this.columns)];
    return box[0] < box[2] && box[1] < box[3] ? box : null;
  }
}

/**
 * `suggested` laid over a state, as one stroke: its instances get `label`, and the rest of what it says stays as it
 * is. Cells of which it says nothing are left alone; with keep, so are labelled ones.
 */
export function accept(state, suggested, label, keep) {
  const after = { ...state, labels: state.labels.slice(), instances: state.instances.slice() };
  suggested.instances.forEach((instance, i) => {
    const says = instance > 0 || suggested.labels[i] > 0;
    if (!says || (keep && (state.labels[i] > 0 || state.instances[i] > 0))) return;
    after.labels[i] = instance > 0 ? label : suggested.labels[i];
    after.instances[i] = instance;
  });
  return after;
}

/** Every cell of an instance given the label 2 (good), 3 (bad) or 0 (unsure). */
export function judge(state, instance, label) {
  return { ...state, labels: state.labels.map((old, i) => (state.instances[i] === instance ? label : old)) };
}

/** The instances of a state: Map from number to the Set of its labels, in order of number. */
export function instancesOf({ labels, instances }) {
  const found = new Map();
  instances.forEach((instance, i) => {
    if (instance) found.set(instance, (found.get(instance) ?? new Set()).add(labels[i]));
  });
  return new Map([...found].sort(([a], [b]) => a - b));
}

/** What was changed between `base` and `mine`, put upon `theirs`. */
export function rebase(base, mine, theirs) {
  const merged = { ...theirs, labels: theirs.labels.slice(), instances: theirs.instances.slice() };
  mine.labels.forEach((label, i) => {
    if (label === base.labels[i] && mine.instances[i] === base.instances[i]) return;
    merged.labels[i] = label;
    merged.instances[i] = mine.instances[i];
  });
  return merged;
}

/** States one after the other, with a place in them: one step a stroke, back and forth. */
export class History {
  constructor(state, limit = 300) {
    this.states = [state];
    this.place = 0;
    this.limit = limit;
  }

  get now() {
    return this.states[this.place];
  }

  /** A new state follows the present one; what had been undone is gone. */
  push(state) {
    this.states = [...this.states.slice(0, this.place + 1), state].slice(-this.limit);
    this.place = this.states.length - 1;
  }

  /** Put another state in the place of the present one. */
  amend(state) {
    this.states[this.place] = state;
  }

  /** One step back; false at the beginning. */
  undo() {
    if (this.place === 0) return false;
    this.place--;
    return true;
  }

  /** One step forth; false at the end. */
  redo() {
    if (this.place === this.states.length - 1) return false;
    this.place++;
    return true;
  }
}

/** Bytes as base64, as the server takes and gives them. */
export function encode(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

/** Bytes from base64. */
export function decode(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Bytes as runs, "value" or "valuexlength" with commas between: short enough to keep thousands in the browser. */
export function pack(bytes) {
  const runs = [];
  for (let i = 0; i < bytes.length; ) {
    let end = i + 1;
    while (end < bytes.length && bytes[end] === bytes[i]) end++;
    runs.push(end - i > 1 ? `${bytes[i]}x${end - i}` : `${bytes[i]}`);
    i = end;
  }
  return runs.join(",");
}

/** Bytes from runs. */
export function unpack(text, length) {
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const run of text ? text.split(",") : []) {
    const [value, times = 1] = run.split("x").map(Number);
    bytes.fill(value, at, at + times);
    at += times;
  }
  return bytes;
}
