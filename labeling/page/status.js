// What the page says of itself: whether all is saved, how far the work is, and notes; aloud too, for screen readers.

import { byId, make } from "./panel.js";

const TEXT = {
  saved: () => "Saved",
  saving: ({ waiting }) => `Saving ${waiting}`,
  offline: ({ waiting }) => (waiting ? `Offline: ${waiting} kept here` : "Offline"),
  locked: ({ waiting }) => `Locked out: ${waiting} kept here`,
  refused: () => "Not accepted: choose",
  conflict: () => "Conflict: choose",
  full: () => "Not kept: storage full",
};
const ADVICE = {
  saved: () => "Everything painted is on the server.",
  offline: ({ message }) => `${message} Strokes are kept in this browser and sent as soon as they can be stored.`,
  full: () => "This browser's storage is full: leave this page open until the server answers.",
  conflict: () => "A picture was labelled in two places. Press to see both.",
  refused: ({ message }) => `${message} Press “Not accepted” to keep or discard it.`,
};
const URGENT = ["locked", "refused", "full"];
const PAUSE = 400;

/** What an error of the server means for the annotator. */
export function explain({ status, message }) {
  if (status !== 401) return message;
  return "The server was started anew: open the address that it printed. This page goes on by itself then.";
}

/** Show how the saver stands, at once; say it when it has settled. */
export function showStatus(status) {
  const button = byId("status");
  const text = TEXT[status.name](status);
  const advice = ADVICE[status.name]?.(status) ?? status.message;
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
