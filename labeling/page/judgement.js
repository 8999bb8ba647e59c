// What a labelled picture says as a whole: its verdict, its instances, and what does not go together.

import { handsOf } from "./grid.js";

export const VERDICTS = ["good", "good?", "bad?", "bad", "unsure"];
const NAMES = { 0: "unsure", 2: "good", 3: "bad" };

/** good, bad, unsure or mixed: what the cells say of a hand whose labels are the Set `labels`. */
export function nameOf(labels) {
  return labels.size === 1 ? NAMES[[...labels][0]] : "mixed";
}

/** The verdict that the cells amount to: bad if any hand is; null where there is none. */
export function verdictOf(state) {
  const labels = new Set([...handsOf(state).values()].flatMap((each) => [...each]));
  if (labels.has(3)) return "bad";
  if (labels.has(2)) return "good";
  return labels.has(0) ? "unsure" : null;
}

/** What has to be settled before a picture is done, one sentence each. */
export function problems(state) {
  const found = [];
  for (const [hand, labels] of handsOf(state)) {
    const names = [...labels].map((label) => NAMES[label]);
    if (names.length > 1) found.push(`Hand ${hand} is ${names.join(" and ")} at once: choose one for all of it.`);
  }
  const cells = verdictOf(state);
  if (!state.verdict) found.push("Choose a verdict, or paint the hand.");
  else if (cells === "bad" && !state.verdict.startsWith("bad")) {
    found.push(`The verdict is ${state.verdict}, and a hand is painted bad: change one of them.`);
  } else if (cells === "good" && state.verdict.startsWith("bad")) {
    found.push(`The verdict is ${state.verdict}, and no hand is painted bad: change one of them.`);
  }
  for (const hand of Object.keys(state.faults ?? {})) {
    const painted = handsOf(state).get(Number(hand));
    const said = painted ? nameOf(painted) : state.verdict;
    if (said?.startsWith("good")) found.push(`Hand ${hand} has faults and is ${said}: change one of them.`);
  }
  return found;
}

/** The faults after one step of `kind` for `hand`: from none to its usual scope, to the other scope, to none. */
export function stepFault(faults, hand, kind, usual) {
  const { [hand]: before = [], ...others } = faults;
  const had = before.find((fault) => fault.split(":")[0] === kind);
  const rest = before.filter((fault) => fault !== had);
  const scope = had && (had.split(":")[1] ?? usual);
  if (!had) rest.push(`${kind}:${usual}`);
  else if (scope === usual) rest.push(`${kind}:${usual === "local" ? "global" : "local"}`);
  return rest.length ? { ...others, [hand]: rest } : others;
}
