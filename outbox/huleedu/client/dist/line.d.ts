/** One WebSocket, from its handshake to its end: whether it lives, and what came before it was there. */
import { type Notification } from "./messages.js";
import type { Timing } from "./options.js";
/** How a socket ended. */
export interface Loss {
    code?: number;
    reason: string;
    /** Whether it was ever open. */
    opened: boolean;
    /** Whether it held long enough to say that all was well. */
    stable: boolean;
}
export interface LineEvents {
    /** The gateway keeps the socket: notifications arrive. */
    opened(): void;
    /** A message that is no matter of the line itself; `live` if it was not replayed. */
    said(message: Notification, live: boolean): void;
    /** What happened before is not known. */
    missed(): void;
    /** The gateway took the token that was sent, or did not. */
    token(accepted: boolean): void;
    /** It is over. Nothing is called after this. */
    lost(loss: Loss): void;
}
export declare class Line {
    #private;
    /** Throws if the address or the token can never be used. */
    constructor(address: URL, token: string, timing: Timing, events: LineEvents);
    /** Ends it; no event follows. */
    close(): void;
    /** Offers another token. */
    renew(token: string): void;
    /** Looks now whether it lives, as the page does when it wakes. */
    check(): void;
}
