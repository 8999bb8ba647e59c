// Which part of a picture a canvas shows, and how large. Lengths are CSS pixels; `scale` is pixels a cell.

const CLOSEST = 96;

export class View {
  constructor() {
    Object.assign(this, { rows: 1, columns: 1, width: 1, height: 1, scale: 1, x: 0, y: 0, fitted: true });
  }

  /** The grid and the canvas have these sizes from now on; a view that showed all still does. */
  resize({ rows = this.rows, columns = this.columns, width = this.width, height = this.height }) {
    Object.assign(this, { rows, columns, width, height });
    if (this.fitted) this.fit();
    else this.#settle();
  }

  /** Show the whole picture, in the middle. */
  fit() {
    this.scale = this.whole;
    this.fitted = true;
    this.#settle();
  }

  /** The scale at which the whole picture is seen. */
  get whole() {
    return Math.min(this.width / this.columns, this.height / this.rows);
  }

  /** The point (u, v) of the grid, in cells, under the pixel (x, y). */
  at(x, y) {
    return [(y - this.y) / this.scale, (x - this.x) / this.scale];
  }

  /** The pixel (x, y) over the point (u, v) of the grid. */
  pixel(u, v) {
    return [this.x + v * this.scale, this.y + u * this.scale];
  }

  /** Larger or smaller by `factor`, while the point under the pixel (x, y) stays where it is. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const [u, v] = this.at(x, y);
    this.scale = Math.min(Math.max(this.scale * factor, this.whole), Math.max(CLOSEST, this.whole));
    this.fitted = this.scale === this.whole;
    this.x = x - v * this.scale;
    this.y = y - u * this.scale;
    this.#settle();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#settle();
  }

  /** Move so far that a cell is seen. */
  reveal(row, column) {
    const [left, top] = this.pixel(row, column);
    this.pan(
      Math.max(0, -left) - Math.max(0, left + this.scale - this.width),
      Math.max(0, -top) - Math.max(0, top + this.scale - this.height));
  }

  // A picture smaller than the canvas stands in the middle; a larger one leaves no gap at an edge.
  #settle() {
    const inside = (at, gap) => Math.min(0, Math.max(gap, at));
    const place = (at, length, room) => (length <= room ? (room - length) / 2 : inside(at, room - length));
    this.x = place(this.x, this.columns * this.scale, this.width);
    this.y = place(this.y, this.rows * this.scale, this.height);
  }
}
