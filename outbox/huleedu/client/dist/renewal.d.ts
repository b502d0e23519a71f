/** A token renewed on the open socket, before it ends. */
import type { Credential } from "./credential.js";
import type { Timing } from "./options.js";
/**
 * Asks for a new token some time before the current one ends, and sends it. Where that fails it tries again
 * until the gateway closes the socket, which the next one with a new token makes up for.
 */
export declare class Renewal {
    #private;
    /** The token on which the socket counts. */
    token: string;
    constructor(credential: Credential, timing: Timing, token: string, send: (token: string) => void);
    /** The socket is open: from now on its token is to be renewed. */
    start(): void;
    stop(): void;
    /** The gateway's answer. */
    answered(accepted: boolean): void;
}
