// What the page says of itself: whether all is saved, how far the work is, and notes; aloud too, for screen readers.

import { byId } from "./panel.js";

const TEXT = {
  saved: () => "Saved",
  saving: ({ waiting }) => `Saving ${waiting}`,
  offline: ({ waiting }) => (waiting ? `Offline: ${waiting} kept here` : "Offline"),
  locked: ({ waiting }) => `Locked out: ${waiting} kept here`,
  refused: () => "Not accepted",
  conflict: () => "Conflict: choose",
  full: () => "Not kept: storage full",
};
const ADVICE = {
  saved: "Everything painted is on the server.",
  offline: "The server does not answer. Strokes are kept in this browser and sent as soon as it does.",
  full: "This browser's storage is full: leave this page open until the server answers.",
  conflict: "A picture was labelled in two places. Press to see both.",
};
const PAUSE = 400;

/** Show how the saver stands, at once; say it when it has settled. */
export function showStatus(status) {
  const button = byId("status");
  const text = TEXT[status.name](status);
  const advice = ADVICE[status.name] ?? status.message;
  Object.assign(button, { textContent: text, title: advice });
  if (button.dataset.state === status.name) return;
  button.dataset.state = status.name;
  clearTimeout(showStatus.timer);
  if (status.name === "saving") return;
  showStatus.timer = setTimeout(() => (byId("live").textContent = status.name === "saved" ? text : `${text}. ${advice}`), PAUSE);
}

/** Show how many pictures are done, and what the server knows of the pace and of others. */
export function showCounts(items, progress) {
  const done = items.filter((item) => item.done).length;
  Object.assign(byId("bar"), { max: items.length || 1, value: done });
  const { seconds_per_image: seconds, annotators = [] } = progress ?? {};
  byId("counts").textContent = `${done} of ${items.length} done${seconds ? ` · ${Math.round(seconds)} s each` : ""}`;
  byId("counts").title = annotators.map(({ name, done: n }) => `${name}: ${n} done`).join(", ");
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
