// How strokes stand, in words, from a saver's status: for the page's header and the notebook's line alike.

const TEXT = {
  saved: () => "Saved",
  saving: ({ waiting }) => `Saving ${waiting}`,
  offline: (status) => (status.waiting ? `Offline: ${kept(status)}` : "Offline"),
  locked: (status) => `Locked out: ${kept(status)}`,
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

// Kept is what the browser's disk has: it is there again after the whole browser was killed.
function kept({ waiting, keeping, frail }) {
  if (frail) return `${waiting} in this window only`;
  return keeping ? `${waiting - keeping} kept here, keeping ${keeping}` : `${waiting} kept here`;
}

/** {text, advice} for a status: name (saved, saving, offline, …), waiting, keeping and message. */
export function standing(status) {
  return { text: TEXT[status.name](status), advice: ADVICE[status.name]?.(status) ?? status.message };
}
