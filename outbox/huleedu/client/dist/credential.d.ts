/** The user's token: when to ask for another, and when there is no hope in any. */
/** A token, or where to get one that is good now. */
export type Token = string | (() => string | Promise<string>);
/**
 * Keeps a token as long as it is good. Whatever goes wrong in getting one may go well the next time. There
 * is no hope only where the server has refused two different tokens for a reason that does not heal.
 */
export declare class Credential {
    #private;
    constructor(source: Token, timeout: number);
    /** The current token, or a new one where that has ended. Rejects if none can be had now. */
    get(): Promise<string>;
    /** Asks for a token, once however many want one. Rejects if none can be had now. */
    fresh(): Promise<string>;
    /** The milliseconds until this token ends, as far as it says so itself. */
    left(token: string): number;
    /** This token was good, and so is where it came from. */
    accepted(): void;
    /** Use this token no more; without one, whichever there is. */
    forget(token?: string | undefined): void;
    /** This token was refused; `heals` if another may be taken. Whether there is no hope in any. */
    refused(token: string, heals: boolean): boolean;
}
