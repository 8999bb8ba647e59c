// Seconds that somebody has really looked at a picture: not while the page is hidden, nor long after the last movement.

const IDLE = 30000;

export class Clock {
  constructor() {
    Object.assign(this, { total: 0, since: null, last: 0 });
    for (const type of ["pointermove", "pointerdown", "keydown", "wheel"]) {
      addEventListener(type, () => this.#active(), { passive: true, capture: true });
    }
    document.addEventListener("visibilitychange", () => document.hidden && this.#stop());
  }

  /** Begin with another picture, on which `seconds` have been spent already. */
  start(seconds) {
    Object.assign(this, { total: seconds, since: performance.now(), last: performance.now() });
  }

  get seconds() {
    const upTo = this.since === null ? 0 : Math.min(performance.now(), this.last + IDLE) - this.since;
    return Math.round((this.total + upTo / 1000) * 10) / 10;
  }

  #active() {
    const now = performance.now();
    if (this.since === null || now > this.last + IDLE) {
      this.total = this.seconds;
      this.since = now;
    }
    this.last = now;
  }

  #stop() {
    this.total = this.seconds;
    this.since = null;
  }
}
