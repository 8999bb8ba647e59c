// Where an annotator was when the page was closed: the mode, and the picture in each.

export class Place {
  constructor(run, storage = localStorage) {
    Object.assign(this, { storage, prefix: `handscope ${run} place ` });
  }

  get mode() {
    return this.storage.getItem(`${this.prefix}mode`) ?? "paint";
  }

  set mode(mode) {
    this.#keep("mode", mode);
  }

  /** {size, opacity} of the brush and the labels as they were left; empty where they were not. */
  get look() {
    try {
      return JSON.parse(this.storage.getItem(`${this.prefix}look`)) ?? {};
    } catch {
      return {};
    }
  }

  set look({ size, opacity }) {
    this.#keep("look", JSON.stringify({ size, opacity }));
  }

  /** Whether the guide has been shown before, in this browser and of this run. */
  get isGuided() {
    return this.storage.getItem(`${this.prefix}guided`) !== null;
  }

  guided() {
    this.#keep("guided", "yes");
  }

  /** The sample that was shown last in a mode; null where there was none. */
  sample(mode) {
    return this.storage.getItem(this.prefix + mode);
  }

  moved(mode, sample) {
    this.#keep(mode, sample);
  }

  // Not worth a word where the storage is full: what room there is belongs to strokes.
  #keep(name, value) {
    try {
      this.storage.setItem(this.prefix + name, value);
    } catch {
      // The page then opens at another picture.
    }
  }
}
