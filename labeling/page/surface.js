// The picture, its labels and the cursor on one canvas. Only the cells that changed are drawn again.

import { badges, brushOutline, dots, hatch, heat, lattice, outlines, tint } from "./drawing.js";
import { View } from "./view.js";

const GROUND = "#17191C";

export class Surface {
  /** `scene()` says what is to be seen: {state, settled, cursor, locked}. */
  constructor(canvas, scene) {
    Object.assign(this, { canvas, scene });
    this.view = new View();
    this.look = { opacity: 0.4, hidden: false, suggestion: null };
    this.context = canvas.getContext("2d", { alpha: false });
    this.ground = this.#offscreen(1, 1);
    this.bitmap = this.#offscreen(1, 1);
    this.resized = new ResizeObserver(() => this.resize());
    this.resized.observe(canvas);
  }

  /** Show another picture, all of it. */
  show(rows, columns, image) {
    this.view.fitted = true;
    this.image = image;
    this.bitmap = this.#offscreen(columns, rows);
    this.pixels = new ImageData(columns, rows);
    this.look.suggestion = null;
    this.resize({ rows, columns });
    this.retint();
  }

  set suggestion(suggestion) {
    const { rows, columns } = this.view;
    this.look.suggestion = suggestion && { ...suggestion, bitmap: null };
    if (suggestion?.map) {
      this.look.suggestion.bitmap = this.#offscreen(columns, rows);
      this.look.suggestion.bitmap.getContext("2d").putImageData(heat(suggestion.map, rows, columns), 0, 0);
    }
    this.redraw();
  }

  /** The labels of a box of cells (of all, if none is given) have changed. */
  retint(box = [0, 0, this.view.rows, this.view.columns]) {
    const [top, left, bottom, right] = box;
    tint(this.pixels, this.scene().state, box);
    this.bitmap.getContext("2d").putImageData(this.pixels, 0, 0, left, top, right - left, bottom - top);
    this.redraw(box);
  }

  resize(size = {}) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.sharpness = this.canvas.ownerDocument.defaultView.devicePixelRatio || 1;
    for (const one of [this.canvas, this.ground]) {
      one.width = Math.max(1, Math.round(width * this.sharpness));
      one.height = Math.max(1, Math.round(height * this.sharpness));
    }
    this.view.resize({ width: Math.max(width, 1), height: Math.max(height, 1), ...size });
    this.moved();
  }

  /** The view has moved: the picture is laid at its new place, where the frames of a stroke find it scaled already. */
  moved() {
    this.groundIsOld = true;
    this.redraw();
  }

  /** Draw a box of cells (all, if none is given) in the next frame. */
  redraw(box = [-Infinity, -Infinity, Infinity, Infinity]) {
    const old = this.stale ?? [Infinity, Infinity, -Infinity, -Infinity];
    this.stale = [
      Math.min(box[0], old[0]), Math.min(box[1], old[1]), Math.max(box[2], old[2]), Math.max(box[3], old[3])];
    this.request ??= requestAnimationFrame(() => this.#frame());
  }

  destroy() {
    this.resized.disconnect();
    cancelAnimationFrame(this.request);
  }

  #offscreen(width, height) {
    return Object.assign(this.canvas.ownerDocument.createElement("canvas"), { width, height });
  }

  #drawGround() {
    const { x, y, scale, rows, columns } = this.view;
    const context = this.ground.getContext("2d", { alpha: false });
    context.fillStyle = GROUND;
    context.fillRect(0, 0, this.ground.width, this.ground.height);
    context.setTransform(this.sharpness, 0, 0, this.sharpness, 0, 0);
    context.imageSmoothingQuality = "high";
    if (this.image) context.drawImage(this.image, x, y, columns * scale, rows * scale);
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.groundIsOld = false;
  }

  #frame() {
    const { view, context, look } = this;
    if (this.groundIsOld) this.#drawGround();
    const { state, settled, cursor, locked } = this.scene();
    const [top, left, bottom, right] = this.stale;
    const near = [
      Math.max(top - 2, 0), Math.max(left - 2, 0), Math.min(bottom + 2, view.rows), Math.min(right + 2, view.columns)];
    this.stale = this.request = null;
    context.save();
    context.setTransform(this.sharpness, 0, 0, this.sharpness, 0, 0);
    if (Number.isFinite(top)) this.#clip(top - 1, left - 1, bottom + 1, right + 1);
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.ground, 0, 0);
    context.restore();
    if (!look.hidden) {
      this.#bitmap(look.suggestion?.bitmap ?? this.bitmap);
      if (!locked) lattice(context, view, near);
      dots(context, view, state, near);
      if (look.suggestion) {
        hatch(context, view, look.suggestion);
        outlines(context, view, look.suggestion, [0, 0, view.rows, view.columns], true);
      }
      outlines(context, view, state, near);
      badges(context, view, settled);
    }
    if (cursor) brushOutline(context, view, cursor.at, cursor.size);
    context.restore();
  }

  #clip(top, left, bottom, right) {
    const [x0, y0] = this.view.pixel(top, left).map(Math.floor);
    const [x1, y1] = this.view.pixel(bottom, right).map(Math.ceil);
    this.context.beginPath();
    this.context.rect(x0, y0, x1 - x0, y1 - y0);
    this.context.clip();
  }

  #bitmap(bitmap) {
    const { x, y, scale, columns, rows } = this.view;
    this.context.imageSmoothingEnabled = false;
    this.context.globalAlpha = this.look.opacity;
    this.context.drawImage(bitmap, x, y, columns * scale, rows * scale);
    this.context.globalAlpha = 1;
  }
}
