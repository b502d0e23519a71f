/** Asks the page's server for the status of batches: now and then while there is no socket, or once. */
import type { Credential } from "./credential.js";
import type { BatchStatus } from "./messages.js";
export interface PollOptions {
    /** The page's server, before `/v1/batches/{batch_id}/status`. */
    url: string | URL;
    /** The batches that matter; a function is asked anew each time. */
    batchIds: readonly string[] | (() => readonly string[]);
    /** Called with each answer. */
    onBatch?(status: BatchStatus): void;
}
/** What becomes of the answers. */
export interface PollEvents {
    answered(status: BatchStatus): void;
    /** A round is over; `trouble` says what went wrong in it, and is empty if nothing did. */
    asked(trouble: string): void;
    /** The token was refused, and there is no hope in another. */
    refused(): void;
}
export declare class Poller {
    #private;
    constructor(options: PollOptions, everyMs: number, credential: Credential, events: PollEvents);
    /** Ask now, and again and again until `stop`. */
    start(): void;
    /** Ask now, and again only until every batch was answered. */
    once(): void;
    /** Ask no more; what is under way comes to nothing. */
    stop(): void;
}
