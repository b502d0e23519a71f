/** When to try again, and what was there already. */

/**
 * The wait after so many failures in a row (1 is the first): exponential growth from `first` to at most
 * `longest`, with full jitter, so that browsers that lost the same server do not all come back at once.
 */
export function fullJitter(failures: number, first: number, longest: number): number {
  return Math.random() * Math.min(longest, first * 2 ** Math.min(failures - 1, 30));
}

/** Remembers the last `capacity` names. */
export class Seen {
  readonly #names = new Set<string>();
  readonly #capacity: number;

  constructor(capacity = 1_000) {
    this.#capacity = capacity;
  }

  /** Whether this name is new; from now on it is not. */
  add(name: string): boolean {
    if (this.#names.has(name)) return false;
    this.#names.add(name);
    if (this.#names.size > this.#capacity) {
      for (const oldest of this.#names) {
        this.#names.delete(oldest);
        break;
      }
    }
    return true;
  }
}
