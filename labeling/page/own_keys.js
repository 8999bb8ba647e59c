// Letters that an annotator has put in the place of the usual ones, for all runs of this browser.

const NAME = "handscope keys";

/** Of each letter that was moved, by the letter that is usual: the one that stands for it now. */
let moved = read();

function read() {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME)) ?? {};
    return Object.fromEntries(Object.entries(kept).filter((pair) => pair.every((one) => /^[a-z]$/.test(one))));
  } catch {
    return {};
  }
}

/** The letter that does what `usual` does unless it was moved. */
export const ownKey = (usual) => moved[usual] ?? usual;

/** What is usually on a letter that was pressed; null where that was moved away and nothing came. */
export function usualKey(pressed) {
  const taken = Object.keys(moved).find((usual) => moved[usual] === pressed);
  return taken ?? (pressed in moved ? null : pressed);
}

/** Put what is usually on `usual` onto another letter; what was there takes its place. */
export function moveKey(usual, letter) {
  const [before, there] = [ownKey(usual), usualKey(letter)];
  if (there !== null) moved[there] = before;
  moved[usual] = letter;
  moved = Object.fromEntries(Object.entries(moved).filter(([from, to]) => from !== to));
  keep();
}

export function usualKeys() {
  moved = {};
  keep();
}

/** Write the letters of now into every hint of the page, and for screen readers. */
export function showKeys(within = document) {
  for (const hint of within.querySelectorAll("button kbd, label kbd")) {
    hint.dataset.usual ??= hint.textContent;
    if (!/^[A-Z]$/.test(hint.dataset.usual)) continue;
    hint.textContent = ownKey(hint.dataset.usual.toLowerCase()).toUpperCase();
    const button = hint.closest("[aria-keyshortcuts]");
    button?.setAttribute("aria-keyshortcuts", hint.textContent);
  }
}

function keep() {
  try {
    localStorage.setItem(NAME, JSON.stringify(moved));
  } catch {
    // Until the page is closed they hold all the same.
  }
  showKeys();
}
