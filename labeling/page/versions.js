// Other versions of the labels of a picture: what was saved elsewhere meanwhile, and what was saved before.

import { address, call, read, stateOf } from "./api.js";
import { askConflict, showHistory } from "./dialogs.js";
import { unique } from "./journal.js";
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
  const choice = await askConflict({ mine, base, current, image, isAnother });
  if (choice === undefined || !saver.conflicts.has(chain)) return;
  const after = choice && { ...choice, done: choice.done && problems(choice).length === 0 };
  saver.resolve(chain, after);
  const isShown = app.doc && chainOf(app.doc) === chain;
  if (isShown) app.follow(after ?? stateOf(current));
  if (isShown && !isAnother) return;
  app.samples.forget(sample);
  if (isShown) app.open(app.index); // what is seen is still the picture before
}

/** List the earlier states of the picture that is shown, and bring one back. */
export async function bringBack(app) {
  const { doc, saver } = app;
  const chain = chainOf(doc);
  const restore = async (revision) => {
    const body = { uid: unique(), annotator: saver.annotator, revision, base: saver.revision(chain) ?? null };
    const answer = await call(address(doc.sample, "/restore", doc.mode), { body });
    saver.opened(chain, answer.revision, stateOf(answer));
    app.follow(stateOf(answer));
  };
  try {
    const { items } = await read(address(doc.sample, "/history", doc.mode), saver.annotator);
    showHistory(items, restore);
  } catch (error) {
    note(error.message);
  }
}
