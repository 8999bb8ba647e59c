// The controls beside the picture: they show the present state, and tell the application what was chosen.

import { instancesOf } from "./grid.js";
import { VERDICTS, nameOf } from "./judgement.js";
import { capital, faultsText, verdictWord } from "./words.js";

const BUTTONS = [
  ["previous", "travel", -1], ["next", "travel", 1], ["unlabelled", "unlabelled"], ["gallery-open", "gallery"],
  ["undo", "undo"], ["redo", "redo"],
  ["done", "done"], ["finish", "finish"], ["zoom-in", "zoom", 1.4], ["zoom-out", "zoom", 1 / 1.4], ["fit", "fit"],
  ["accept", "accept"], ["dismiss", "suggest"], ["unrate", "unrate"], ["history-open", "earlier"], ["help-open", "help"],
];
const INSTANCE_LABELS = [["good", 2], ["bad", 3], ["unsure", 0]];

/** The element with an id. */
export function byId(id) {
  return document.getElementById(id);
}

/** A new element with properties, `data` among them, and children. */
export function make(tag, { data = {}, aria = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), tag === "button" ? { type: "button" } : {}, properties);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children);
  return element;
}

// Put buttons in place of others and leave the focus where it was.
function replace(parent, buttons) {
  const focused = [...parent.children].indexOf(document.activeElement);
  parent.replaceChildren(...buttons);
  if (focused >= 0) parent.children[Math.min(focused, buttons.length - 1)]?.focus();
}

export class Panel {
  constructor(app) {
    this.app = app;
    this.subject = app.session.subject;
    const { noun, classes, verdicts, question, levels } = this.subject;
    byId("instance-title").textContent = capital(noun);
    byId("instance-label").ariaLabel = `The whole of this ${noun} is`;
    byId("faults").ariaLabel = `Faults of this ${noun}`;
    byId("rate-title").textContent = question;
    byId("ratings").querySelectorAll("span").forEach((span, i) => (span.textContent = levels[i]));
    byId("classes").replaceChildren(...classes.map(
      ({ value, name, key }) => make("button", { data: { class: value } },
        make("span", { className: `swatch class-${value}` }), name, make("kbd", { textContent: key }))));
    byId("verdicts").replaceChildren(...VERDICTS.map((verdict, i) =>
      make("button", { textContent: verdicts[verdict], data: { verdict }, title: `Shift+${i + 1}` })));
    const on = (id, attribute, action) => byId(id).addEventListener("click", ({ target }) => {
      const button = target.closest(`[data-${attribute}]`);
      if (button) app.act(action, button.dataset[attribute]);
    });
    on("classes", "class", "class");
    on("tools", "tool", "tool");
    on("verdicts", "verdict", "verdictName");
    on("instances", "instance", "instanceNumber");
    on("instance-label", "label", "judge");
    on("faults", "kind", "fault");
    on("suggestions", "source", "source");
    on("others", "source", "source");
    on("others", "take", "take");
    on("ratings", "value", "rate");
    for (const [id, action, argument] of BUTTONS) {
      byId(id).addEventListener("click", () => (app.doc || action === "help") && app.act(action, argument));
    }
    on("modes", "mode", "mode");
    byId("goto").addEventListener("submit", (event) => {
      event.preventDefault();
      app.open(byId("number").valueAsNumber - 1);
      app.painter.canvas.focus();
    });
    for (const type of ["pointerdown", "pointerup", "pointercancel", "pointerleave"]) {
      byId("hide").addEventListener(type, () => app.act("hide", type === "pointerdown"));
    }
    byId("prompt-all").addEventListener("click", () => this.#unfold(!byId("prompt").classList.contains("open")));
    byId("size").addEventListener("input", ({ target }) => (app.painter.size = Number(target.value)));
    byId("opacity").addEventListener("input", ({ target }) => (app.painter.opacity = target.value / 100));
    byId("keep").addEventListener("change", () => app.act("keep"));
  }

  /** Show a prompt: two lines of it, and all on request, so that the picture keeps its room. */
  showPrompt(text) {
    const prompt = byId("prompt");
    prompt.textContent = text;
    this.#unfold(false);
    byId("prompt-all").hidden = prompt.scrollHeight <= prompt.clientHeight + 1;
  }

  #unfold(all) {
    byId("prompt").classList.toggle("open", all);
    byId("prompt-all").textContent = all ? "Less" : "All of it";
    byId("prompt-all").setAttribute("aria-expanded", all);
  }

  /** Show what is chosen: class, tool, size. */
  showTools() {
    const { painter, kind } = this.app;
    this.#press("classes", ({ dataset }) => Number(dataset.class) === kind);
    this.#press("tools", ({ dataset }) => dataset.tool === painter.tool);
    byId("size").value = byId("size-value").value = painter.size;
    byId("opacity").value = byId("opacity-value").value = Math.round(painter.opacity * 100);
    byId("keep").checked = painter.keep;
  }

  /** Show what the state of the picture says. */
  showState() {
    const { painter, doc, instance } = this.app;
    const { noun, verdicts } = this.subject;
    const word = (labels) => verdicts[nameOf(labels)] ?? nameOf(labels);
    const state = painter.history.now;
    const instances = instancesOf(state);
    const known = [...instances.keys(), ...Object.keys(state.faults).map(Number), instance];
    const numbers = [...new Set(known)].sort((a, b) => a - b);
    replace(byId("instances"), [
      ...numbers.map((number) => make("button", {
        textContent: `${number} ${instances.has(number) ? word(instances.get(number)) : "empty"}`,
        data: { instance: number }, aria: { pressed: number === instance },
      })),
      make("button", {
        textContent: "New", data: { instance: "new" }, title: "Shift+H", aria: { label: `New ${noun}` },
      }),
    ]);
    const label = instances.has(instance) ? nameOf(instances.get(instance)) : null;
    replace(byId("instance-label"), INSTANCE_LABELS.map(([name, value]) => make("button", {
      textContent: verdicts[name], data: { label: value }, aria: { pressed: name === label }, disabled: label === null,
    })));
    this.#showFaults(state, instance, label);
    this.#press("verdicts", ({ dataset }) => dataset.verdict === state.verdict);
    this.#press("ratings", ({ dataset }) => doc.rating !== null && Number(dataset.value) === doc.rating);
    byId("undo").disabled = painter.history.place === 0;
    byId("redo").disabled = painter.history.place === painter.history.states.length - 1;
    byId("done").setAttribute("aria-pressed", state.done);
  }

  #showFaults(state, instance, label) {
    const applies = label === "bad" || label === "mixed" || state.verdict?.startsWith("bad") || state.faults[instance];
    byId("faults").hidden = !applies;
    const chosen = new Map((state.faults[instance] ?? []).map((fault) => fault.split(":")));
    replace(byId("faults"), this.subject.kinds.map(({ name: kind, scope: usual, word }) => {
      const scope = chosen.has(kind) ? chosen.get(kind) ?? usual : "–";
      const other = usual === "local" ? "global" : "local";
      const title = `${word}: press for ${usual}, again for ${other}, again for none`;
      const about = { data: { kind }, aria: { pressed: chosen.has(kind) }, title };
      return make("button", about, word, make("span", { className: "scope", textContent: scope }));
    }));
  }

  /** Show the suggestions that there are, which is drawn, and why others are not there. */
  showSuggestions(items, absent, chosen) {
    const own = items.filter(({ author }) => !author);
    replace(byId("suggestions"), own.map(({ source }) =>
      make("button", { textContent: source, data: { source }, aria: { pressed: source === chosen?.source } })));
    const reasons = Object.entries(absent).map(([source, reason]) => `No ${source}: ${reason}`);
    byId("absent").textContent = reasons.join(" ");
    byId("offer").hidden = !chosen;
    if (!chosen) return;
    const hasInstances = chosen.instances.some(Boolean);
    const what = chosen.author ? "Labels of" : hasInstances ? "Suggestion:" : "Map:";
    const { good, bad } = this.subject.verdicts;
    const taken = chosen.author || !hasInstances ? ""
      : `; accepted as unsure, unless you press 2 (${good}) or 3 (${bad}) first`;
    byId("offer-text").textContent = `${what} ${chosen.source}. Not part of your labels${taken}.`;
    byId("accept").hidden = !hasInstances;
  }

  /** Show what others said of the picture; `draw(canvas, other)` makes their thumbnails. */
  showOthers(others, draw) {
    byId("others").replaceChildren(...others.map((other) => {
      const { author, verdict, faults } = other;
      const canvas = make("canvas", { width: 96, height: 96 });
      draw(canvas, other);
      const button = (textContent, data) => {
        const aria = { pressed: false, label: `${textContent} the labels of ${author}` };
        return make("button", { textContent, data, aria });
      };
      return make("div", { className: "other" }, canvas, make("div", {},
        make("p", {}, make("b", { textContent: author }), ` ${verdictWord(this.subject, verdict)}`),
        make("p", { className: "small", textContent: faultsText(this.subject, faults) }),
        button("Show", { source: author }), button("Take over", { take: author })));
    }));
  }

  /** Show whose labels are drawn. */
  markOther(chosen) {
    this.#press("others", ({ dataset }) => dataset.source !== undefined && dataset.source === chosen?.author);
  }

  #press(id, is) {
    for (const button of byId(id).querySelectorAll("button")) button.setAttribute("aria-pressed", Boolean(is(button)));
  }
}
