// The server, in one function. Two things can go wrong: it does not answer, or it says no.

import { decode } from "./grid.js";

const PATIENCE = 15000;

/** No answer, or one that says to come again later. */
export class Unreachable extends Error {}

/** An answer that says no: `status`, and `body` with the sentence `error`. */
export class Refused extends Error {
  constructor(status, body) {
    super(body?.error ?? `The server refused (${status}).`);
    Object.assign(this, { status, body });
  }

  /** The token or the name is not taken: it would be refused again until that changes. */
  get locked() {
    return this.status === 401 || this.status === 403;
  }
}

/** JSON from the server, or whatever `as` names (blob). */
export async function call(path, { body, as = "json", keepalive = false, patience = PATIENCE } = {}) {
  const post = body && { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  let answer;
  try {
    answer = await fetch(path, { ...post, keepalive, signal: AbortSignal.timeout(patience) });
    if (answer.ok) return await answer[as]();
  } catch {
    throw new Unreachable("The server does not answer.");
  }
  if (answer.status >= 500 || answer.status === 408 || answer.status === 429) {
    const said = await answer.json().catch(() => null);
    throw new Unreachable(said?.error ?? `The server is in trouble (${answer.status}).`);
  }
  throw new Refused(answer.status, await answer.json().catch(() => null));
}

/** What is read of `annotator`'s: not another's, whose name was chosen in another tab since. */
export async function read(path, annotator) {
  const answer = await call(path);
  if (answer.annotator === annotator) return answer;
  const error = `This page is of ${annotator}, and ${answer.annotator} is painting in this browser now: press the name to `
    + "choose who paints.";
  throw new Refused(403, { error });
}

/** The address of what belongs to a sample. */
export function address(sample, what, mode) {
  return `/api/samples/${encodeURIComponent(sample)}${what}?mode=${mode}`;
}

/** The state in an answer about a sample. */
export function stateOf({ labels, instances, faults, verdict, done }) {
  return { labels: decode(labels), instances: decode(instances), faults, verdict, done };
}

/** What an error of the server means for the annotator. */
export function explain({ status, message }) {
  if (status !== 401) return message;
  return "The server was started anew: open the address that it printed. This page goes on by itself then.";
}
