// A second copy of the journal, which is there again when the whole browser was killed: IndexedDB with strict
// durability. What localStorage takes is written to the disk seconds later.

const NAME = "handscope";
const STORE = "strokes";

export class Vault {
  /** Entries of one run; `run` tells them from those of others under the same address. */
  constructor(run) {
    this.run = run;
    this.database = opened();
  }

  /** Write an entry; true once the disk has it, false where this browser keeps nothing. */
  put(entry) {
    return this.#write((store) => store.put({ key: `${this.run} ${entry.uid}`, run: this.run, entry }), "strict");
  }

  /** Remove an entry. */
  remove(uid) {
    return this.#write((store) => store.delete(`${this.run} ${uid}`), "relaxed");
  }

  /** Every entry of the run. */
  async entries() {
    const database = await this.database;
    if (!database) return [];
    const request = database.transaction(STORE).objectStore(STORE).getAll();
    return new Promise((resolve) => {
      request.onsuccess = () => resolve(request.result.filter(({ run }) => run === this.run).map(({ entry }) => entry));
      request.onerror = () => resolve([]);
    });
  }

  async #write(act, durability) {
    const database = await this.database;
    if (!database) return false;
    const transaction = database.transaction(STORE, "readwrite", { durability });
    act(transaction.objectStore(STORE));
    return new Promise((resolve) => {
      transaction.oncomplete = () => resolve(true);
      transaction.onabort = transaction.onerror = () => resolve(false);
    });
  }
}

// The database, or null where the browser has none, as in some private windows.
function opened() {
  return new Promise((resolve) => {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
      request.onsuccess = () => resolve(request.result);
      request.onerror = request.onblocked = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
}
