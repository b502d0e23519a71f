/** When to try again, and what was there already. */
/**
 * The wait after so many failures in a row (1 is the first): exponential growth from `first` to at most
 * `longest`, with full jitter, so that browsers that lost the same server do not all come back at once.
 */
export declare function fullJitter(failures: number, first: number, longest: number): number;
/** Remembers the last `capacity` names. */
export declare class Seen {
    #private;
    constructor(capacity?: number);
    /** Whether this name is new; from now on it is not. */
    add(name: string): boolean;
}
