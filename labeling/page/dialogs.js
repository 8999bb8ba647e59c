// What lies over the page at times: the annotator's name, a conflict, earlier states, help.

import { Refused, call, stateOf } from "./api.js";
import { difference, rebase } from "./grid.js";
import { Painter } from "./painter.js";
import { byId, make } from "./panel.js";
import { moveKey, ownKey, usualKeys } from "./own_keys.js";
import { shortcutsOf } from "./shortcuts.js";
import { capital, faultWord, faultsText, verdictWord } from "./words.js";

/** Close buttons of dialogs work from now on. */
export function closable() {
  for (const button of document.querySelectorAll("dialog [data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
}

/** Ask for a name until the server takes it; `mayCancel` where there is one already. */
export function askName(annotators, name, mayCancel) {
  const [dialog, field] = [byId("name"), byId("annotator")];
  byId("annotators").replaceChildren(...annotators.map((value) => make("option", { value })));
  field.value = name ?? "";
  byId("name-error").textContent = "";
  dialog.oncancel = (event) => mayCancel || event.preventDefault();
  dialog.showModal();
  return new Promise((resolve, reject) => {
    dialog.onclose = () => resolve(null);
    byId("name-form").onsubmit = async (event) => {
      event.preventDefault();
      try {
        await call("/api/annotator", { body: { name: field.value.trim() } });
        resolve(field.value.trim());
        dialog.close();
      } catch (error) {
        byId("name-error").textContent = error.message;
        if (!(error instanceof Refused)) reject(error);
      }
    };
  });
}

function describe(subject, { verdict, done, faults }) {
  const said = [verdictWord(subject, verdict), done ? "done" : "not done", faultsText(subject, faults)];
  return said.filter(Boolean).join(" · ");
}

/** Both versions side by side; resolves to the state to save next, null for the saved one, undefined for neither. */
export function askConflict(subject, { mine, base, current, image, isAnother }) {
  const { rows, columns } = current;
  const theirs = stateOf(current);
  const differing = `The two differ in ${difference(mine, theirs)} of ${rows * columns} cells.`;
  byId("conflict-text").textContent = isAnother
    ? "The picture itself was generated anew since you painted: look whether your labels still fit."
    : `Another window saved labels of it under your name. ${differing}`;
  byId("mine-text").textContent = describe(subject, mine);
  byId("theirs-text").textContent = describe(subject, theirs);
  byId("take-both").hidden = !base;
  const dialog = byId("conflict");
  dialog.showModal();
  const painters = [["conflict-mine", mine], ["conflict-theirs", theirs]].map(([id, { labels, instances }]) => {
    const painter = new Painter(byId(id), { rows, columns, labels, instances, image });
    painter.locked = true;
    return painter;
  });
  return new Promise((resolve) => {
    const choose = (state) => () => {
      resolve(state);
      dialog.close();
    };
    byId("take-mine").onclick = choose(mine);
    byId("take-theirs").onclick = choose(null);
    byId("take-both").onclick = () => choose({ ...rebase(base, mine, theirs), done: false })();
    dialog.onclose = () => {
      for (const painter of painters) painter.destroy();
      resolve(undefined);
    };
  });
}

/** Whether strokes that the server will not have are to be given up. */
export function askRefused(where, message, count) {
  const what = count > 1 ? `${count} strokes on ${where} were` : `A stroke on ${where} was`;
  byId("refused-text").textContent = `${what} not accepted: ${message}`;
  const dialog = byId("refused");
  dialog.showModal();
  return new Promise((resolve) => {
    byId("discard").onclick = () => {
      resolve(true);
      dialog.close();
    };
    dialog.onclose = () => resolve(false);
  });
}

// What the file says in UTC, in the time of who looks at it.
function localTime(utc) {
  return new Date(`${utc.replace(" ", "T")}Z`).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
}

/** The saved states of a picture, the newest first; `restore(revision)` is called with the one that is chosen. */
export function showHistory(subject, items, restore) {
  const list = byId("history-list");
  const choose = (revision) => async () => {
    try {
      await restore(revision);
      byId("history").close();
    } catch (error) {
      list.prepend(make("p", { className: "error", role: "alert", textContent: error.message }));
    }
  };
  list.replaceChildren(...items.map(({ revision, made: when, author, done, verdict, kinds }) => {
    const faults = kinds.map((kind) => faultWord(subject, kind));
    const said = [localTime(when), author, verdictWord(subject, verdict), done && "done", ...faults]
      .filter(Boolean).join(" · ");
    const button = make("button", { textContent: "Bring back", onclick: choose(revision) });
    return make("div", { className: "state" }, make("span", { textContent: said }), button);
  }));
  if (!items.length) list.textContent = "None yet.";
  byId("history").showModal();
}

/** What to do, what each fault means, and the keys that work in a mode. */
export function showHelp(subject, mode) {
  byId("guide").replaceChildren(...(mode === "rate" ? rating(subject) : painting(subject)),
    ...subject.guide.map((text) => make("p", { textContent: text })));
  byId("meanings").hidden = mode === "rate";
  byId("meanings").replaceChildren(...subject.kinds.map(({ word, scope, meaning, picture }) => make("li", {},
    picture ? make("img", { src: picture, alt: "", width: 72, height: 72 }) : "",
    make("p", {}, make("b", { textContent: `${word} (${scope})` }), meaning && ` ${meaning}.`))));
  listKeys(subject, mode);
  byId("keys-usual").onclick = () => {
    usualKeys();
    listKeys(subject, mode);
  };
  byId("help").showModal();
}

const LETTERS = /^[A-Z]( [A-Z])*$/;

/** The keys and what they do; letters are buttons, which take the next letter that is pressed in their place. */
function listKeys(subject, mode) {
  byId("keys").replaceChildren(make("dl", {}, ...shortcutsOf(mode, subject).flatMap(([keys, text]) => [
    make("dt", {}, ...(LETTERS.test(keys) ? keys.split(" ") : [keys]).flatMap(
      (key) => [keyHint(key, text, subject, mode), " "])),
    make("dd", { textContent: text })])));
}

function keyHint(key, text, subject, mode) {
  if (!LETTERS.test(key)) return make("kbd", { textContent: key });
  const usual = key.toLowerCase();
  const now = ownKey(usual).toUpperCase();
  const button = make("button", { type: "button", className: "key", textContent: now });
  button.setAttribute("aria-label", `${now}: ${text}. Press to choose another letter`);
  button.onclick = () => {
    button.textContent = "…";
    byId("keys-said").textContent = `Press a letter for: ${text}. Escape leaves ${now}.`;
    button.onkeydown = (event) => {
      event.stopPropagation();
      const placed = /^Key([A-Z])$/.exec(event.code)?.[1];
      const letter = (/^[a-z]$/i.test(event.key) ? event.key : placed)?.toLowerCase();
      if (!letter && event.key !== "Escape") return;
      event.preventDefault();
      if (letter) moveKey(usual, letter);
      byId("keys-said").textContent = letter ? `${letter.toUpperCase()}: ${text}.` : "";
      listKeys(subject, mode);
      byId("keys").querySelector(`[data-usual=${usual}]`)?.focus();
    };
  };
  button.dataset.usual = usual;
  return button;
}

function painting({ noun, one, classes, verdicts }) {
  const [outside, good, bad, unsure] = classes.map(({ name }) => name);
  return [
    `Paint every cell that shows some of ${one}; a cell of which about a quarter is ${noun} counts. Choose the class `
      + `before: ${good}, ${bad}, or ${unsure} where you cannot tell.`,
    `“${capital(outside)}” says that you looked and there is none; a cell that stays unlabelled says nothing, and no `
      + "analysis reads it.",
    `Then say what is wrong, and give a verdict on the picture: ${verdicts.good} to ${verdicts.bad}, or `
      + `${verdicts.unsure}.`,
    "Every stroke is saved at once, in labels.sqlite of the run. Analyses read the pictures that are done.",
  ].map((text) => make("p", { textContent: text }));
}

function rating({ question, levels }) {
  const text = `${question} Rate each picture as a whole. Every rating is saved at once, and the newest counts.`;
  const items = levels.map((level) => make("li", { textContent: level }));
  return [make("p", { textContent: text }), make("ul", {}, ...items)];
}
