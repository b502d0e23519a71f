/** What a page tells the client, and what it gets. */
import type { Token } from "./credential.js";
import type { ExcessData, Notification, SlotAssignmentData } from "./messages.js";
import type { PollOptions } from "./poll.js";
/** Whether notifications arrive. */
export interface Status {
    /**
     * - `connecting`: there is no socket yet, or none any more; attempts go on.
     * - `open`: notifications arrive.
     * - `polling`: there is no socket, and the page's server is asked now and then instead; attempts go on.
     * - `stopped`: the page closed it, or no token is any good. {@link Connection.reconnect} starts anew.
     */
    state: "connecting" | "open" | "polling" | "stopped";
    /** Why, for people. */
    reason: string;
    /** The close code of the socket that was lost last, if that is why. */
    code?: number;
}
/**
 * How something was learnt. What is neither `live` nor `recovered` was so before the page began to look: it
 * is to be shown, but it is no news.
 */
export interface How {
    /** The socket told of it as it happened. */
    live: boolean;
    /** It happened while the page looked, and was learnt later: replayed, or by asking. */
    recovered: boolean;
}
/** The options of {@link connect}. */
export interface ConnectOptions {
    /** The gateway's address, such as `wss://ws.example.com/ws`. */
    url: string | URL;
    /**
     * The user's token. A function is asked again when the token is about to end or was refused, and must
     * then return another. It may throw, reject or take too long: it is asked again later.
     */
    token: Token;
    /** The last message of an earlier connection: what came after it is brought first. */
    lastMessageId?: string;
    /** Whom to ask while there is no socket, and after something may have been missed. */
    poll?: PollOptions;
    /** A file has its slot. Called once for each upload, however that was learnt. */
    onSlotAssigned?(data: SlotAssignmentData, how: How): void;
    /** No slot was left for a file. Called once for each upload, however that was learnt. */
    onExcess?(data: ExcessData, how: How): void;
    /** Called once for each notification that comes over the socket, slot assignments among them. */
    onEvent?(message: Notification, how: How): void;
    /**
     * Something may have been missed: load the state. With `poll` the client also asks by itself; without it
     * this is called again after 2, 10 and 30 seconds, since whoever answers may lag behind.
     */
    onResync?(): void;
    /** Called at the beginning, and whenever the status is another. */
    onStatus?(status: Status): void;
    /** Other waits than {@link TIMING}. */
    timing?: Partial<Timing>;
}
/** Waits, in milliseconds. */
export interface Timing {
    /** At most this before the first new attempt; doubled with each failure. */
    firstRetry: number;
    /** At most this before any. */
    longestRetry: number;
    /** At most this before the first new attempt when the gateway goes away, since all its sockets end then. */
    restart: number;
    /** An attempt is given up after this. */
    handshake: number;
    /** The gateway accepts a socket before it may refuse it: only what is still open after this is open. */
    settle: number;
    /** Only a connection that held this long makes up for failures before it. */
    stable: number;
    /** The gateway is asked to say something after this much silence; 0: it is not, and silence is no sign. */
    heartbeat: number;
    /** A socket on which nothing was heard for this long is dead. */
    silence: number;
    /** A token that is not there after this is asked for again. */
    token: number;
    /** About this long before a token ends another is sent; 0: the socket ends with its token. */
    renewBefore: number;
    /** About this long after the beginning, or after the gateway said that there are no live updates, polling begins. */
    pollAfter: number;
    /** At least this long, and at most four times this, after a socket was lost polling begins. */
    pollAfterLoss: number;
    /** About this long from one question about a batch to the next. */
    pollEvery: number;
    /** A question that is not answered after this has failed. */
    ask: number;
    /** After something may have been missed, questions begin at a random time within this. */
    resyncWithin: number;
}
/** The waits where `timing` names no others. */
export declare const TIMING: Readonly<Timing>;
/** What {@link connect} returns. */
export interface Connection {
    readonly status: Status;
    /** For the `lastMessageId` of a later connection. */
    readonly lastMessageId: string | undefined;
    /** Tries now, with a new token, also after it has stopped because tokens were refused. */
    reconnect(): void;
    /**
     * Asks about this batch from now on, as about those in `poll.batchIds`; also again, where it was given up.
     * With `poll` it asks also while notifications arrive: of a batch without a user none ever tells.
     */
    addBatch(batchId: string, options?: {
        poll?: boolean;
    }): void;
    /** Asks about this batch no more, unless it is in `poll.batchIds`. */
    removeBatch(batchId: string): void;
    /** Ends it for good. */
    close(): void;
}
