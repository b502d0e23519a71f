/** The user's token, and when to ask for another. */
/** A token, or where to get one. */
export type Token = string | (() => string | Promise<string>);
/**
 * Asks for a token when there is none yet, and once more when it was refused. A second refusal in a row
 * is final: no token that can be had is good.
 */
export declare class Credential {
    #private;
    constructor(source: Token);
    /** The current token. Rejects if it cannot be had now. */
    get(): Promise<string>;
    /** The current token was good. */
    accepted(): void;
    /** This token was refused; whether there is hope in another. */
    refused(token: string): boolean;
}
