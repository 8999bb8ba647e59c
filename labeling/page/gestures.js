// Pointer, fingers, wheel and keys on a painter's canvas, turned into strokes and movements of the view.

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

export class Gestures {
  constructor(painter) {
    this.painter = painter;
    this.pointers = new Map();
    this.pans = false;
    this.holdsSpace = false;
    this.ending = new AbortController();
    const acts = {
      pointerdown: this.#down, pointermove: this.#move, pointerup: this.#up, pointercancel: this.#up,
      lostpointercapture: this.#up, pointerleave: () => painter.hoverAt(null), pointerenter: this.#enter,
      wheel: this.#wheel, contextmenu: (event) => event.preventDefault(),
      mousedown: (event) => event.preventDefault(), // the middle button would scroll the page
      keydown: this.#keyDown, keyup: this.#keyUp,
      focus: () => painter.surface.redraw(), blur: this.#blur,
    };
    for (const [type, act] of Object.entries(acts)) {
      painter.canvas.addEventListener(type, act.bind(this), { signal: this.ending.signal, passive: false });
    }
  }

  destroy() {
    this.ending.abort();
  }

  #down(event) {
    const { painter } = this;
    event.preventDefault();
    painter.canvas.focus({ preventScroll: true });
    painter.canvas.setPointerCapture(event.pointerId);
    const at = [event.offsetX, event.offsetY];
    this.pointers.set(event.pointerId, at);
    painter.hideCell();
    if (this.pointers.size > 1) painter.drop();
    else if (painter.locked || this.holdsSpace || event.button === 1) this.pans = true;
    else if (event.button === 0) painter.begin(painter.view.at(...at));
  }

  #move(event) {
    const { painter } = this;
    const at = [event.offsetX, event.offsetY];
    const before = this.pointers.get(event.pointerId);
    if (!before) return painter.hoverAt(painter.view.at(...at));
    if (this.pointers.size > 1) return this.#pinch(event.pointerId, at);
    this.pointers.set(event.pointerId, at);
    if (this.pans) return painter.pan(at[0] - before[0], at[1] - before[1]);
    const between = event.getCoalescedEvents?.() ?? [];
    for (const { offsetX, offsetY } of between.length ? between : [event]) {
      painter.strokeTo(painter.view.at(offsetX, offsetY));
    }
    return painter.hoverAt(event.pointerType === "touch" ? null : painter.view.at(...at));
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    this.pans = false;
    if (this.pointers.size === 0) this.painter.finish();
  }

  // Two fingers move the picture; a stroke that the first had begun was not meant.
  #pinch(id, at) {
    const { painter, pointers } = this;
    const there = [...pointers].find(([pointer]) => pointer !== id)[1];
    const here = pointers.get(id);
    const apart = (a) => Math.hypot(a[0] - there[0], a[1] - there[1]) || 1;
    const middle = (a) => [(a[0] + there[0]) / 2, (a[1] + there[1]) / 2];
    const [from, to] = [middle(here), middle(at)];
    pointers.set(id, at);
    painter.pan(to[0] - from[0], to[1] - from[1]);
    painter.zoom(apart(at) / apart(here), ...to);
  }

  #wheel(event) {
    event.preventDefault();
    const { painter } = this;
    if (event.ctrlKey) painter.size -= Math.sign(event.deltaY);
    else painter.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
  }

  // So that the space bar moves the picture after a button was used; a field that is being typed in keeps its focus.
  #enter() {
    const focused = this.painter.canvas.getRootNode().activeElement;
    if (!focused || focused.matches("body, button")) this.painter.canvas.focus({ preventScroll: true });
  }

  #keyDown(event) {
    const { painter } = this;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in ARROWS) painter.moveCell(...ARROWS[event.key]);
    else if (event.key === " " && !event.repeat) this.holdsSpace = !painter.beginAtCell();
    else if (event.key !== " ") return;
    event.preventDefault();
  }

  #keyUp(event) {
    if (event.key !== " ") return;
    this.holdsSpace = false;
    if (this.pointers.size === 0) this.painter.finish();
  }

  #blur() {
    this.holdsSpace = false;
    if (this.pointers.size === 0) this.painter.finish();
    this.painter.surface.redraw();
  }
}
