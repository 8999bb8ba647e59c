// What a labelled picture says as a whole: its verdict, its instances, and what does not go together.

import { instancesOf } from "./grid.js";
import { capital } from "./words.js";

export const VERDICTS = ["good", "good?", "bad?", "bad", "unsure"];
const NAMES = { 0: "unsure", 2: "good", 3: "bad" };

/** good, bad, unsure or mixed: what the cells say of an instance whose labels are the Set `labels`. */
export function nameOf(labels) {
  return labels.size === 1 ? NAMES[[...labels][0]] : "mixed";
}

/** The verdict that the cells amount to: bad if any instance is; null where none is said to be good or bad. */
export function verdictOf(state) {
  const labels = new Set([...instancesOf(state).values()].flatMap((each) => [...each]));
  if (labels.has(3)) return "bad";
  return labels.has(2) ? "good" : null;
}

/** What has to be settled before a picture is done, one sentence each, in the words of the subject. */
export function problems(state, { noun, one, verdicts }) {
  const found = [];
  const title = capital(noun);
  for (const [instance, labels] of instancesOf(state)) {
    const names = [...labels].map((label) => verdicts[NAMES[label]]);
    if (names.length < 2) continue;
    found.push(`${title} ${instance} is ${names.join(" and ")} at once: choose one for all of it.`);
  }
  const cells = verdictOf(state);
  const verdict = verdicts[state.verdict];
  if (!state.verdict && !cells && instancesOf(state).size) {
    found.push(`Say whether the ${noun} is ${verdicts.good} or ${verdicts.bad}, or choose a verdict.`);
  } else if (!state.verdict) found.push(`Choose a verdict, or paint the ${noun}.`);
  else if (cells === "bad" && !state.verdict.startsWith("bad")) {
    found.push(`The verdict is ${verdict}, and ${one} is painted ${verdicts.bad}: change one of them.`);
  } else if (cells === "good" && state.verdict.startsWith("bad")) {
    found.push(`The verdict is ${verdict}, and no ${noun} is painted ${verdicts.bad}: change one of them.`);
  }
  for (const instance of Object.keys(state.faults ?? {})) {
    const painted = instancesOf(state).get(Number(instance));
    const said = painted ? nameOf(painted) : state.verdict;
    if (said?.startsWith("good")) {
      found.push(`${title} ${instance} has faults and is ${verdicts[said]}: change one of them.`);
    }
  }
  return found;
}

/** The faults after one step of `kind` for `instance`: from none to its usual scope, to the other scope, to none. */
export function stepFault(faults, instance, kind, usual) {
  const { [instance]: before = [], ...others } = faults;
  const had = before.find((fault) => fault.split(":")[0] === kind);
  const rest = before.filter((fault) => fault !== had);
  const scope = had && (had.split(":")[1] ?? usual);
  if (!had) rest.push(`${kind}:${usual}`);
  else if (scope === usual) rest.push(`${kind}:${usual === "local" ? "global" : "local"}`);
  return rest.length ? { ...others, [instance]: rest } : others;
}
