/** When to do something, again or at all, and what was there already. */

/** Milliseconds by a clock that nobody sets: it neither jumps nor goes back. */
export function now(): number {
  return performance.now();
}

/** A random time, so that browsers that lost the same server do not all come back at once. */
export function between(least: number, most: number): number {
  return least + Math.random() * (most - least);
}

/**
 * The wait after so many failures in a row (1 is the first): exponential growth from `first` to at most
 * `longest`, with full jitter.
 */
export function fullJitter(failures: number, first: number, longest: number): number {
  return between(0, growing(failures, first, longest));
}

/** `first`, doubled with each failure after the first, and at most `longest`. */
export function growing(failures: number, first: number, longest: number): number {
  return Math.min(longest, first * 2 ** Math.min(failures - 1, 30));
}

const LONGEST_RETRY_AFTER = 300_000;

/** The milliseconds that a server asks for in `Retry-After`, 0 if it does not. */
export function retryAfter(headers: Headers): number {
  const value = headers.get("Retry-After");
  if (value === null) return 0;
  // A date is the server's, and so is the clock that it is compared with.
  const wait = /^\d+$/.test(value)
    ? Number(value) * 1_000
    : Date.parse(value) - Date.parse(headers.get("Date") ?? new Date().toUTCString());
  return Math.min(Math.max(wait || 0, 0), LONGEST_RETRY_AFTER);
}

/** Rings once, for what was asked for last. */
export class Alarm {
  /** Beyond it a browser's timer fires at once. */
  static readonly #LONGEST = 86_400_000;
  #timer: ReturnType<typeof setTimeout> | undefined;

  get pending(): boolean {
    return this.#timer !== undefined;
  }

  set(wait: number, ring: () => void): void {
    this.clear();
    this.#timer = setTimeout(
      () => {
        this.#timer = undefined;
        ring();
      },
      Math.min(Math.max(wait, 0), Alarm.#LONGEST),
    );
  }

  clear(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

/**
 * The moments at which something is still to be asked. What answers may lag behind, so that asking once
 * is not enough; a moment is over only when something that was asked after it has been answered.
 */
export class Steps {
  #moments: number[] = [];

  /** When to ask next; never, if nothing is owed. */
  get next(): number {
    return this.#moments[0] ?? Infinity;
  }

  /** From now on: after `delay`, and again so long after that. */
  begin(delay: number, again: readonly number[]): void {
    const first = Math.min(this.next, now() + delay);
    this.#moments = [first, ...again.map((wait) => now() + delay + wait)];
  }

  /** What was asked at this moment has been answered. */
  answered(asked: number): void {
    this.#moments = this.#moments.filter((moment) => moment > asked);
  }

  clear(): void {
    this.#moments = [];
  }
}

/** What the page's callback threw is the page's: it is reported, and disturbs nothing here. */
export function report(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
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
