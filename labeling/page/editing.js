// What a key or a control does to the labels of the picture that is shown, and to the pen.

import { instancesOf, judge } from "./grid.js";
import { VERDICTS, problems, stepFault, verdictOf } from "./judgement.js";
import { byId } from "./panel.js";
import { note, say } from "./status.js";
import { capital } from "./words.js";

const LABELS = { 1: 1, 2: 2, 3: 3, 4: 0 };

/** The actions of `app` by name, each a function of one argument. */
export function editing(app) {
  const { painter } = app;
  const choose = (settings) => {
    Object.assign(painter, settings);
    app.panel.showTools();
  };
  const toInstance = (instance) => {
    app.instance = instance;
    painter.ink = { ...painter.ink, instance: app.kind === 1 ? 0 : instance };
    app.panel.showState();
    say(`${capital(app.session.subject.noun)} ${instance}`);
  };
  const act = {
    class: (kind) => {
      app.kind = Number(kind);
      const label = LABELS[app.kind];
      const tool = painter.tool === "eraser" ? "brush" : painter.tool;
      choose({ ink: { label, instance: label === 1 ? 0 : app.instance }, tool });
      app.offers?.judge(label === 1 ? 0 : label);
      say(app.session.subject.classes.find(({ value }) => value === app.kind)?.name ?? "");
    },
    tool: (tool) => {
      choose({ tool });
      say(`${capital(tool === "pick" ? "region" : tool)}.`);
    },
    ...Object.fromEntries(["brush", "eraser", "rectangle", "fill", "pick"].map((tool) => [tool, () => act.tool(tool)])),
    size: (step) => (painter.size += step),
    opacity: (step) => (painter.opacity += step),
    keep: () => choose({ keep: !painter.keep }),
    hide: (yes) => (painter.hidden = yes),
    instance: () => {
      const numbers = [...instancesOf(app.state).keys()];
      toInstance(numbers.find((number) => number > app.instance) ?? numbers[0] ?? 1);
    },
    newInstance: () => toInstance(Math.min(255, Math.max(0, ...instancesOf(app.state).keys()) + 1)),
    instanceNumber: (text) => (text === "new" ? act.newInstance() : toInstance(Number(text))),
    judge: (label) => {
      if (!instancesOf(app.state).has(app.instance)) return say("Nothing is painted of it yet.");
      return painter.push(judge(app.state, app.instance, Number(label)));
    },
    fault: (kind) => {
      const { scope } = app.session.subject.kinds.find(({ name }) => name === kind);
      const faults = stepFault(app.state.faults, app.instance, kind, scope);
      painter.push({ ...app.state, faults });
    },
    faults: () => byId("faults").querySelector("button")?.focus(),
    verdict: (which) => act.verdictName(VERDICTS[which]),
    verdictName: (name) => {
      const verdict = app.state.verdict === name ? null : name;
      painter.push({ ...app.state, verdict });
      say(`Verdict: ${verdict ? app.session.subject.verdicts[verdict] : "none"}.`);
    },
    undo: () => say(painter.undo() ? "Undone." : "There is nothing to undo."),
    redo: () => say(painter.redo() ? "Done again." : "There is nothing to redo."),
    done: () => markDone(app, !app.state.done),
    finish: () => app.isSeen && markDone(app, true) && app.act("unlabelled"),
    zoom: (factor) => painter.zoom(factor),
    fit: () => painter.fit(),
  };
  return act;
}

// Done, or not; false where something has to be settled before.
function markDone(app, done) {
  const state = { ...app.state, verdict: app.state.verdict ?? verdictOf(app.state), done };
  const [problem] = done ? problems(state, app.session.subject) : [];
  note(problem);
  if (problem) return false;
  if (app.state.done !== done) app.painter.push(state);
  return true;
}
