// How labels look: tints, outlines, hatches and badges on a canvas. Nothing here keeps anything.

import { disc } from "./grid.js";

const KINDS = [
  null,
  { tint: [12, 14, 18, 220], edge: "#AEB6BF" }, // of no instance: dimmed, so that the others stand out
  { tint: [0, 114, 178, 255], edge: "#6CC4FF" }, // good, #0072B2 as in the figures
  { tint: [213, 94, 0, 255], edge: "#FFA25C" }, // bad, #D55E00
  { tint: [122, 122, 122, 255], edge: "#E8E8E8" }, // unsure, #7A7A7A
];
const SIGNS = { 2: "✓", 3: "✕", 4: "?" };

/** 0 unlabelled, 1 of no instance, 2 good, 3 bad, 4 an instance that is unsure. */
export function kindOf(label, instance) {
  return label === 0 && instance > 0 ? 4 : label;
}

/** Write the colours of the cells of `box` into `pixels`, an ImageData with one pixel a cell. */
export function tint(pixels, { labels, instances }, [top, left, bottom, right]) {
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const cell = row * pixels.width + column;
      pixels.data.set(KINDS[kindOf(labels[cell], instances[cell])]?.tint ?? [0, 0, 0, 0], 4 * cell);
    }
  }
}

/** A map of scores as ImageData: the larger, the more opaque; NaN is left out. */
export function heat(map, rows, columns) {
  const pixels = new ImageData(columns, rows);
  const known = map.filter((value) => !Number.isNaN(value));
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const range = known.reduce((a, b) => Math.max(a, b), -Infinity) - low || 1;
  map.forEach((value, cell) => {
    const share = Number.isNaN(value) ? 0 : (value - low) / range;
    pixels.data.set([255, 190 - 90 * share, 60 - 60 * share, 220 * share], 4 * cell);
  });
  return pixels;
}

/** Lines between cells that are labelled differently; `dashed` for what is only suggested. */
export function outlines(context, view, { labels, instances }, [top, left, bottom, right], dashed = false) {
  const paths = KINDS.map(() => new Path2D());
  const { columns, rows } = view;
  const differ = (a, b) => labels[a] !== labels[b] || instances[a] !== instances[b];
  const stronger = (a, b) => Math.max(kindOf(labels[a], instances[a]), kindOf(labels[b], instances[b]));
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const cell = row * columns + column;
      const [x, y] = view.pixel(row + 1, column + 1);
      if (column + 1 < columns && differ(cell, cell + 1)) {
        const path = paths[stronger(cell, cell + 1)];
        path.moveTo(x, y - view.scale);
        path.lineTo(x, y);
      }
      if (row + 1 < rows && differ(cell, cell + columns)) {
        const path = paths[stronger(cell, cell + columns)];
        path.moveTo(x - view.scale, y);
        path.lineTo(x, y);
      }
    }
  }
  context.lineCap = "square";
  context.setLineDash(dashed ? [4, 5] : []);
  for (const [width, colour] of [[3.4, () => "rgb(0 0 0 / 55%)"], [1.6, (kind) => KINDS[kind].edge]]) {
    context.lineWidth = width;
    for (let kind = 1; kind < KINDS.length; kind++) {
      context.strokeStyle = colour(kind);
      context.stroke(paths[kind]);
    }
  }
  context.setLineDash([]);
}

/** Slanted lines over the labelled cells, which say that they are suggested and no more. */
export function hatch(context, view, { labels, instances }) {
  const gap = 7;
  KINDS.forEach((kind, which) => {
    if (which < 2) return;
    const cells = new Path2D();
    labels.forEach((label, cell) => {
      if (kindOf(label, instances[cell]) !== which) return;
      const [x, y] = view.pixel(Math.floor(cell / view.columns), cell % view.columns);
      cells.rect(x, y, view.scale, view.scale);
    });
    const lines = new Path2D();
    for (let x = -view.height; x < view.width; x += gap) {
      lines.moveTo(x, view.height);
      lines.lineTo(x + view.height, 0);
    }
    context.save();
    context.clip(cells);
    for (const [width, colour] of [[2.6, "rgb(0 0 0 / 40%)"], [1.3, kind.edge]]) {
      context.lineWidth = width;
      context.strokeStyle = colour;
      context.stroke(lines);
    }
    context.restore();
  });
}

/** The lines of the grid inside a box of cells, where cells are large enough to tell apart. */
export function lattice(context, view, [top, left, bottom, right]) {
  if (view.scale < 6) return;
  const [x0, y0] = view.pixel(top, left);
  const [x1, y1] = view.pixel(bottom, right);
  context.beginPath();
  for (let column = left; column <= right; column++) {
    const x = x0 + (column - left) * view.scale;
    context.moveTo(x, y0);
    context.lineTo(x, y1);
  }
  for (let row = top; row <= bottom; row++) {
    const y = y0 + (row - top) * view.scale;
    context.moveTo(x0, y);
    context.lineTo(x1, y);
  }
  context.lineWidth = 1;
  context.strokeStyle = "rgb(128 128 128 / 30%)";
  context.stroke();
}

/** Dots on cells of no instance, which on a dark picture are hard to tell otherwise: on each, if it is large. */
export function dots(context, view, { labels }, [top, left, bottom, right]) {
  const every = Math.ceil(40 / view.scale);
  context.fillStyle = KINDS[1].edge;
  for (let row = Math.ceil(top / every) * every; row < bottom; row += every) {
    for (let column = Math.ceil(left / every) * every; column < right; column += every) {
      if (labels[row * view.columns + column] !== 1) continue;
      const [x, y] = view.pixel(row + 0.5, column + 0.5);
      context.fillRect(x - 1.25, y - 1.25, 2.5, 2.5);
    }
  }
}

/** The number of each instance and a sign for its label: at its middle, or above a small one, which it would cover. */
export function badges(context, view, { labels, instances }) {
  const sums = new Map();
  instances.forEach((instance, cell) => {
    if (!instance) return;
    const sum = sums.get(instance) ?? { n: 0, u: 0, v: 0, top: Math.floor(cell / view.columns), kinds: new Set() };
    sum.n++;
    sum.u += Math.floor(cell / view.columns) + 0.5;
    sum.v += (cell % view.columns) + 0.5;
    sum.kinds.add(kindOf(labels[cell], instance));
    sums.set(instance, sum);
  });
  context.font = "600 13px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const [instance, { n, u, v, top, kinds }] of sums) {
    const isSmall = n < 12 || n * view.scale ** 2 < 6000;
    const text = `${instance} ${[...kinds].map((kind) => SIGNS[kind]).join("")}`;
    const [x, middle] = view.pixel(u / n, v / n);
    const y = isSmall ? view.pixel(top, 0)[1] - 15 : middle;
    const width = context.measureText(text).width + 14;
    context.fillStyle = "rgb(16 18 22 / 82%)";
    context.beginPath();
    context.roundRect(x - width / 2, y - 11, width, 22, 11);
    context.fill();
    context.fillStyle = KINDS[Math.max(...kinds)].edge;
    context.fillText(text, x, y + 1);
  }
}

/** The outline of a brush that stands at `at` (see `anchor`). */
export function brushOutline(context, view, at, size) {
  const cells = disc(size);
  const has = new Set(cells.map(([row, column]) => `${row},${column}`));
  const path = new Path2D();
  for (const [row, column] of cells) {
    const [x, y] = view.pixel(at[0] + row, at[1] + column);
    const edge = (side, fromX, fromY, toX, toY) => {
      if (has.has(`${row + side[0]},${column + side[1]}`)) return;
      path.moveTo(x + fromX * view.scale, y + fromY * view.scale);
      path.lineTo(x + toX * view.scale, y + toY * view.scale);
    };
    edge([-1, 0], 0, 0, 1, 0);
    edge([1, 0], 0, 1, 1, 1);
    edge([0, -1], 0, 0, 0, 1);
    edge([0, 1], 1, 0, 1, 1);
  }
  context.lineCap = "square";
  for (const [width, colour] of [[4, "rgb(0 0 0 / 70%)"], [1.8, "#FFFFFF"]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke(path);
  }
}
