// Other versions of the labels of a picture: what was saved elsewhere meanwhile, and what was saved before.

import { address, call, read, stateOf } from "./api.js";
import { askConflict, askRefused, showHistory } from "./dialogs.js";
import { problems } from "./judgement.js";
import { chainOf } from "./saver.js";
import { note } from "./status.js";

/** Have a conflict settled, unless somebody is at something else just now. */
export async function settle(app, chain) {
  const { painter, saver } = app;
  const cannot = () => document.querySelector("dialog[open]") || painter.stroke || !saver.conflicts.has(chain);
  if (cannot()) return;
  const { current, sample, sha, mine, base } = saver.sides(chain);
  const image = await call(current.image, { as: "blob" }).then(createImageBitmap).catch(() => null);
  if (cannot()) return;
  const isAnother = sha !== current.image_sha256;
  const choice = await askConflict(app.session.subject, { mine, base, current, image, isAnother });
  if (choice === undefined || !saver.conflicts.has(chain)) return;
  const after = choice && { ...choice, done: choice.done && problems(choice, app.session.subject).length === 0 };
  saver.resolve(chain, after);
  const isShown = app.doc && chainOf(app.doc) === chain;
  if (isShown) app.follow(after ?? stateOf(current));
  if (isShown && !isAnother) return;
  app.samples.forget(sample);
  if (isShown) app.open(app.index); // what is seen is still the picture before
}

/** List the earlier states of the picture that is shown; one that is brought back follows as a stroke does. */
export async function bringBack(app) {
  const { doc, saver } = app;
  const restore = async (revision) => {
    const state = stateOf(await read(address(doc.sample, `/history/${revision}`, doc.mode), saver.annotator));
    if (chainOf(app.doc) !== chainOf(doc)) throw new Error("Another picture is shown by now: look at its states.");
    app.painter.push(state);
  };
  try {
    const { items } = await read(address(doc.sample, "/history", doc.mode), saver.annotator);
    showHistory(app.session.subject, items, restore);
  } catch (error) {
    note(error.message);
  }
}

/** See to what waits: a conflict or a refusal is shown, anything else is sent now. */
export function attend(app) {
  const { saver } = app;
  const [chain] = saver.conflicts.keys();
  if (chain) settle(app, chain);
  else if (saver.refused) decide(app, saver.refused);
  else saver.hurry();
}

// Is what the server refused of a picture to be kept? If not, what is saved of it is shown again.
async function decide(app, { sample, mode, message, count }) {
  const { saver } = app;
  const chain = chainOf({ sample, mode });
  const { items } = app;
  const index = app.mode === mode ? items.findIndex((item) => item.sample === sample) : -1;
  if (!await askRefused(index >= 0 ? `picture ${index + 1}` : `a picture to ${mode}`, message, count)) return;
  try {
    const saved = await read(address(sample, "", mode), saver.annotator).catch((error) => {
      if (error.status !== 404) throw error;
      return null; // the run has no such picture any more
    });
    if (!saver.discard(chain, saved)) return; // somebody has painted on meanwhile
    app.samples.forget(sample);
    if (!saved) return;
    if (index >= 0) items[index].done = saved.done || saved.rating !== null;
    if (!app.doc || chainOf(app.doc) !== chain) return;
    if (mode === "rate") app.open(app.index);
    else app.follow(stateOf(saved)); // from where undo brings back what was given up
  } catch (error) {
    note(error.message);
  }
}
