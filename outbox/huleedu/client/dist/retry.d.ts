/** When to do something, again or at all, and what was there already. */
/** Milliseconds by a clock that nobody sets: it neither jumps nor goes back. */
export declare function now(): number;
/** A random time, so that browsers that lost the same server do not all come back at once. */
export declare function between(least: number, most: number): number;
/**
 * The wait after so many failures in a row (1 is the first): exponential growth from `first` to at most
 * `longest`, with full jitter.
 */
export declare function fullJitter(failures: number, first: number, longest: number): number;
/** `first`, doubled with each failure after the first, and at most `longest`. */
export declare function growing(failures: number, first: number, longest: number): number;
/** The milliseconds that a server asks for in `Retry-After`, 0 if it does not. */
export declare function retryAfter(headers: Headers): number;
/** Rings once, for what was asked for last. */
export declare class Alarm {
    #private;
    get pending(): boolean;
    set(wait: number, ring: () => void): void;
    clear(): void;
}
/**
 * The moments at which something is still to be asked. What answers may lag behind, so that asking once
 * is not enough; a moment is over only when something that was asked after it has been answered.
 */
export declare class Steps {
    #private;
    /** When to ask next; never, if nothing is owed. */
    get next(): number;
    /** From now on: after `delay`, and again so long after that. */
    begin(delay: number, again: readonly number[]): void;
    /** What was asked at this moment has been answered. */
    answered(asked: number): void;
    clear(): void;
}
/** What the page's callback threw is the page's: it is reported, and disturbs nothing here. */
export declare function report(error: unknown): void;
/** Remembers the last `capacity` names. */
export declare class Seen {
    #private;
    constructor(capacity?: number);
    /** Whether this name is new; from now on it is not. */
    add(name: string): boolean;
}
