/** Asks the page's server for the status of batches: now and then while there is no socket, and when it is owed. */
import type { Credential } from "./credential.js";
import { type BatchStatus } from "./messages.js";
import type { Timing } from "./options.js";
/** Whom to ask about what. */
export interface PollOptions {
    /** The page's server, before `/v1/batches/{batch_id}/status`. */
    url: string | URL;
    /** The batches that matter, beside those of `addBatch`; a function is asked anew every few seconds. */
    batchIds?: readonly string[] | (() => readonly string[]);
    /** Called with each answer. */
    onBatch?(status: BatchStatus): void;
    /** The server goes on refusing to tell of this batch: it is given up. `status` is that of HTTP. */
    onRefused?(batchId: string, status: number): void;
}
/** What becomes of the questions. */
export interface PollEvents {
    answered(status: BatchStatus): void;
    /** The server does not know this batch, yet. */
    unknown(batchId: string): void;
    refused(batchId: string, status: number): void;
    /** It is time for the page to load its state. */
    resync(): void;
    /** Something was answered; `trouble` says what goes wrong in asking, and is empty if nothing does. */
    asked(trouble: string): void;
}
export declare class Poller {
    #private;
    constructor(options: PollOptions | undefined, timing: Timing, credential: Credential, events: PollEvents);
    /** From now on ask about every batch, again and again, or only what is owed. */
    poll(on: boolean): void;
    /** Something may have been missed: what is asked for from now on is owed, whatever happens meanwhile. */
    resync(within: number): void;
    /** Ask about this batch too; `always`, also while there is a socket. */
    add(batchId: string, always: boolean): void;
    remove(batchId: string): void;
    /** The page is seen again, or the network is back: what waits because of failures need not. */
    wake(): void;
    /** Ask nothing until `poll`. */
    stop(): void;
    /** What was given up may be asked again. */
    revive(): void;
}
