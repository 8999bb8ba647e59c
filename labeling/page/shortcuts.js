// Which key does what; the help is made of the same table.

import { VERDICTS } from "./judgement.js";
import { usualKey } from "./own_keys.js";
import { capital } from "./words.js";

const PAINT = ["paint", "review"];
const EVERYWHERE = ["paint", "review", "rate"];

// [keys as they are shown, what they do, action, modes]; keys without an action are handled by the canvas. Words in
// braces are those of the subject: see `shortcutsOf`.
const SHORTCUTS = [
  ["1 2 3 4", "{classes}", "class", PAINT],
  ["B", "Brush", "brush", PAINT],
  ["E", "Eraser", "eraser", PAINT],
  ["R", "Rectangle", "rectangle", PAINT],
  ["F", "Fill cells that hang together", "fill", PAINT],
  ["C", "Region: press on the {noun}, and what looks alike around is suggested", "pick", PAINT],
  ["[ ]", "Smaller or larger brush; Ctrl + wheel too", "size", PAINT],
  ["K", "Keep other labels: paint on unlabelled cells only", "keep", PAINT],
  ["H", "Next {noun} (number)", "instance", PAINT],
  ["Shift+H", "New {noun}", "newInstance", PAINT],
  ["G X", "All of the {noun} is {good}, {bad}", "judge", PAINT],
  ["Shift+1 … 5", "Verdict: {verdicts}", "verdict", PAINT],
  ["Q", "To the faults of the {noun}; Esc returns to the picture", "faults", PAINT],
  ["Ctrl+Z", "Undo a stroke", "undo", PAINT],
  ["Ctrl+Shift+Z", "Redo (Ctrl+Y too)", "redo", PAINT],
  ["S", "Show the next suggestion, or none", "suggest", PAINT],
  ["A", "Accept the suggestion shown, as one stroke", "accept", PAINT],
  ["1 2 3", "Rate 0, ½ or 1", "rate", ["rate"]],
  ["Ctrl+Z", "Take the last rating back", "unrate", ["rate"]],
  ["N P", "Next, previous picture", "travel", EVERYWHERE],
  ["V", "All pictures, to search and choose from", "gallery", PAINT],
  ["U", "Next picture that is not done", "unlabelled", EVERYWHERE],
  ["D", "Done, or not", "done", PAINT],
  ["Enter", "Done, and on to the next that is not", "finish", PAINT],
  ["+ −", "Larger, smaller; the wheel too", "zoom", EVERYWHERE],
  ["Home", "The whole picture", "fit", EVERYWHERE],
  ["L (hold)", "Hide the labels", "hide", PAINT],
  [", .", "Labels fainter, stronger", "opacity", PAINT],
  ["Y", "Earlier states of this picture", "earlier", PAINT],
  ["Arrows", "Move the cell cursor; in Rate, the picture", null, EVERYWHERE],
  ["Space (hold)", "Paint at the cell cursor, arrows draw on; with the mouse: move the picture", null, PAINT],
  ["Middle button, two fingers", "Move the picture; two fingers zoom too", null, EVERYWHERE],
  ["?", "This help", "help", EVERYWHERE],
];

/** The shortcuts of a mode, in the words of the subject: [keys, what they do]. */
export function shortcutsOf(mode, { noun, classes, verdicts }) {
  const words = {
    noun,
    classes: capital(classes.map(({ name }) => name).join(", ")),
    verdicts: VERDICTS.map((verdict) => verdicts[verdict]).join(", "),
    ...verdicts,
  };
  return SHORTCUTS.filter(([, , , modes]) => modes.includes(mode)).map(
    ([keys, text]) => [keys, text.replace(/\{(\w+)\}/g, (_, name) => words[name])]);
}

const PLAIN = {
  b: ["brush"], e: ["eraser"], r: ["rectangle"], f: ["fill"], c: ["pick"], "[": ["size", -1], "]": ["size", 1], k: ["keep"],
  h: ["instance"], g: ["judge", 2], x: ["judge", 3], q: ["faults"], s: ["suggest"], a: ["accept"],
  n: ["travel", 1], p: ["travel", -1],
  v: ["gallery"], u: ["unlabelled"], d: ["done"], Enter: ["finish"],
  "+": ["zoom", 1.4], "=": ["zoom", 1.4], "-": ["zoom", 1 / 1.4],
  Home: ["fit"], l: ["hide", true], ",": ["opacity", -0.1], ".": ["opacity", 0.1], y: ["earlier"], "?": ["help"],
  Escape: ["escape"],
};

// Where a key is, for layouts on which it writes something else: the letters of a Latin layout are taken as they are
// printed, and those of any other by their place.
const PLACES = {
  BracketLeft: "[", BracketRight: "]", Comma: ",", Period: ".", Equal: "+", Minus: "-", Slash: "?",
};

function keyOf({ key, code }) {
  if (PLAIN[key]) return key;
  if (/^[a-z]$/i.test(key)) return key.toLowerCase();
  return /^Key([A-Z])$/.exec(code)?.[1].toLowerCase() ?? PLACES[code] ?? key;
}

// What goes on while its key is held. All else happens once for each time that a key is pressed.
const HELD = ["size", "opacity", "zoom", "travel", "undo", "redo", "hide"];

/** [action, argument] of a key event in a mode, or null. */
export function actionOf(event, mode) {
  const found = pressed(event, mode);
  return event.repeat && !HELD.includes(found?.[0]) ? null : found;
}

function pressed(event, mode) {
  const typed = event.target.matches?.("input:not([type=range], [type=checkbox]), textarea");
  const enters = event.target.matches?.("button, summary, input") && event.key === "Enter";
  if (typed || enters || event.altKey) return null;
  if (event.ctrlKey || event.metaKey) {
    const key = keyOf(event);
    if (!["z", "y"].includes(key)) return null;
    if (mode === "rate") return key === "z" && !event.shiftKey ? ["unrate"] : null;
    return [key === "y" || event.shiftKey ? "redo" : "undo"];
  }
  const digit = /^(Digit|Numpad)([1-5])$/.exec(event.code);
  if (digit) return digitAction(Number(digit[2]), event.shiftKey, mode);
  const key = usualKey(keyOf(event));
  const found = key === "h" && event.shiftKey ? ["newInstance"] : PLAIN[key];
  const works = ([, , act, modes]) => act === found?.[0] && modes.includes(mode);
  return found?.[0] === "escape" || SHORTCUTS.some(works) ? found : null;
}

function digitAction(digit, shift, mode) {
  if (mode === "rate") return digit <= 3 ? ["rate", (digit - 1) / 2] : null;
  if (shift) return ["verdict", digit - 1];
  return digit <= 4 ? ["class", digit] : null;
}
