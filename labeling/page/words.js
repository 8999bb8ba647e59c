// What is labelled, in words. A subject is what the server's session says of it: its noun, its classes, its verdicts
// and its kinds of fault.

/** With a capital. */
export function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}

/** The word for a verdict; `none` where there is none. */
export function verdictWord(subject, verdict, none = "no verdict") {
  return verdict ? subject.verdicts[verdict] : none;
}

/** A fault in words: its kind, and its scope where it has one. */
export function faultWord(subject, fault) {
  const [kind, ...scope] = fault.split(":");
  return [subject.kinds.find(({ name }) => name === kind)?.word ?? kind, ...scope].join(":");
}

/** The faults of each instance in words. */
export function faultsText(subject, faults) {
  return Object.entries(faults).map(
    ([instance, kinds]) => `${subject.noun} ${instance}: ${kinds.map((kind) => faultWord(subject, kind)).join(", ")}`,
  ).join("; ");
}
