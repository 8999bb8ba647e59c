// What a key or a control does to the labels of the picture that is shown, and to the pen.

import { handsOf, judge } from "./grid.js";
import { VERDICTS, problems, stepFault, verdictOf } from "./judgement.js";
import { byId } from "./panel.js";
import { note, say } from "./status.js";

const LABELS = { 1: 1, 2: 2, 3: 3, 4: 0 };

/** The actions of `app` by name, each a function of one argument. */
export function editing(app) {
  const { painter } = app;
  const choose = (settings) => {
    Object.assign(painter, settings);
    app.panel.showTools();
  };
  const toHand = (hand) => {
    app.hand = hand;
    painter.ink = { ...painter.ink, hand: app.kind === 1 ? 0 : hand };
    app.panel.showState();
    say(`Hand ${hand}`);
  };
  const act = {
    class: (kind) => {
      app.kind = Number(kind);
      const label = LABELS[app.kind];
      const tool = painter.tool === "eraser" ? "brush" : painter.tool;
      choose({ ink: { label, hand: label === 1 ? 0 : app.hand }, tool });
    },
    tool: (tool) => choose({ tool }),
    brush: () => choose({ tool: "brush" }),
    eraser: () => choose({ tool: "eraser" }),
    rectangle: () => choose({ tool: "rectangle" }),
    fill: () => choose({ tool: "fill" }),
    size: (step) => (painter.size += step),
    opacity: (step) => (painter.opacity += step),
    keep: () => choose({ keep: !painter.keep }),
    hide: (yes) => (painter.hidden = yes),
    hand: () => {
      const numbers = [...handsOf(app.state).keys()];
      toHand(numbers.find((number) => number > app.hand) ?? numbers[0] ?? 1);
    },
    newHand: () => toHand(Math.min(255, Math.max(0, ...handsOf(app.state).keys()) + 1)),
    handNumber: (text) => (text === "new" ? act.newHand() : toHand(Number(text))),
    judge: (label) => painter.push(judge(app.state, app.hand, Number(label))),
    fault: (kind) => {
      const faults = stepFault(app.state.faults, app.hand, kind, app.session.scopes[kind]);
      painter.push({ ...app.state, faults });
    },
    faults: () => byId("faults").querySelector("button")?.focus(),
    verdict: (which) => act.verdictName(VERDICTS[which]),
    verdictName: (verdict) => painter.push({ ...app.state, verdict: app.state.verdict === verdict ? null : verdict }),
    undo: () => painter.undo(),
    redo: () => painter.redo(),
    done: () => markDone(app, !app.state.done),
    finish: () => markDone(app, true) && app.act("unlabelled"),
    zoom: (factor) => painter.zoom(factor),
    fit: () => painter.fit(),
  };
  return act;
}

// Done, or not; false where something has to be settled before.
function markDone(app, done) {
  const state = { ...app.state, verdict: app.state.verdict ?? verdictOf(app.state), done };
  const [problem] = done ? problems(state) : [];
  note(problem);
  if (problem) return false;
  if (app.state.done !== done) app.painter.push(state);
  return true;
}
