// What the page says of itself: whether all is saved, how far the work is, and notes; aloud too, for screen readers.

import { byId, make } from "./panel.js";
import { standing } from "./standing.js";

const URGENT = ["locked", "refused", "full"];
const PAUSE = 400;

/** Show how the saver stands, at once; say it when it has settled. */
export function showStatus(status) {
  const button = byId("status");
  const { text, advice } = standing(status);
  Object.assign(button, { textContent: text, title: advice });
  if (button.dataset.state === status.name) return;
  if (URGENT.includes(status.name)) note(advice);
  else if (URGENT.includes(button.dataset.state)) note(null);
  button.dataset.state = status.name;
  clearTimeout(showStatus.timer);
  if (status.name === "saving") return;
  const spoken = status.name === "saved" ? text : `${text}. ${advice}`;
  showStatus.timer = setTimeout(() => (byId("live").textContent = spoken), PAUSE);
}

/** Show how many pictures are done, and what the server knows of the pace and of others. */
export function showCounts(items, progress) {
  const done = items.filter((item) => item.done).length;
  Object.assign(byId("bar"), { max: items.length || 1, value: done });
  const { seconds_per_image: seconds, annotators = [], agreement = [] } = progress ?? {};
  byId("counts").textContent = `${done} of ${items.length} done${seconds ? ` · ${Math.round(seconds)} s each` : ""}`;
  byId("counts").title = annotators.map(({ name, done: n }) => `${name}: ${n} done`).join(", ");
  byId("agreement").replaceChildren(...(agreement ?? []).filter(({ value }) => value !== null).map(
    ({ measure, of, value, low, high }) => {
      const interval = low === null ? "" : ` (${low.toFixed(2)} to ${high.toFixed(2)})`;
      return make("li", { textContent: `${measure}, ${of}: ${value.toFixed(2)}${interval}` });
    }));
}

/** A sentence over the picture; null takes it away. */
export function note(text) {
  byId("note").hidden = !text;
  byId("note").textContent = text ?? "";
  if (text) say(text);
}

/** A sentence for those who do not see the page. */
export function say(text) {
  byId("spoken").textContent = text;
}

/** What the cell under the keyboard's cursor is. */
export function sayCell({ state, view }, { noun, classes, verdicts }, row, column) {
  const cell = row * view.columns + column;
  const instance = state.instances[cell];
  const name = {
    0: instance ? verdicts.unsure : "unlabelled", 1: classes[0].name, 2: verdicts.good, 3: verdicts.bad,
  }[state.labels[cell]];
  say(`Row ${row + 1}, column ${column + 1}: ${name}${instance ? ` ${noun} ${instance}` : ""}`);
}
