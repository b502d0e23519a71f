/** What a page tells the client, and what it gets. */
import type { Token } from "./credential.js";
import type { Notification, SlotAssignmentData } from "./messages.js";
import type { PollOptions } from "./poll.js";
export interface Status {
    /** `open`: notifications arrive. `polling`: none do, the server is asked now and then instead. */
    state: "connecting" | "open" | "polling" | "stopped";
    /** Why, for people. */
    reason: string;
    /** The close code of the socket that was lost last, if that is why. */
    code?: number;
}
export interface ConnectOptions {
    /** The gateway's address, such as `wss://ws.example.com/ws`. */
    url: string | URL;
    /** The user's token. A function is asked again when the token is refused or has expired. */
    token: Token;
    /** The last message of an earlier connection: what came after it is brought first. */
    lastMessageId?: string;
    /** Whom to ask while there is no socket. */
    poll?: PollOptions;
    /** A file has its slot. Called once per essay, however that was learnt. */
    onSlotAssigned?(data: SlotAssignmentData): void;
    /** Called once for each notification that comes over the socket, slot assignments among them. */
    onEvent?(message: Notification): void;
    /** What happened before is not known: load the state now. With `poll` the client also asks by itself. */
    onResync?(): void;
    onStatus?(status: Status): void;
    /** Other waits than `TIMING`. */
    timing?: Partial<Timing>;
}
/** Waits, in milliseconds. */
export interface Timing {
    /** At most this before the first new attempt; doubled with each failure. */
    firstRetry: number;
    /** At most this before any. */
    longestRetry: number;
    /** An attempt is given up after this. */
    handshake: number;
    /** The gateway accepts a socket before it may refuse it: only what is still open after this is open. */
    settle: number;
    /** Only a connection that held this long makes up for failures before it. */
    stable: number;
    /** Without a socket for this long, polling begins. */
    pollAfter: number;
    /** About this long from one round of polling to the next. */
    pollEvery: number;
}
export declare const TIMING: Timing;
export interface Connection {
    readonly status: Status;
    /** For the `lastMessageId` of a later connection. */
    readonly lastMessageId: string | undefined;
    /** Ends it for good. */
    close(): void;
}
