/** What the page has been told, so that nothing is told twice, and whether it is news. */
import { type BatchStatus, type Notification } from "./messages.js";
import type { ConnectOptions } from "./options.js";
export declare class News {
    #private;
    /** The last message that came over the socket. */
    lastMessageId: string | undefined;
    /** `call` calls back the page. */
    constructor(page: ConnectOptions, call: (callback: () => void) => void);
    /** Whether the state of anything is known. */
    get any(): boolean;
    /** The state of this batch, which may be that there is none yet, is known. */
    know(batchId: string): void;
    forget(batchId: string): void;
    /** The socket told of this, as it happened or later. */
    receive(message: Notification, live: boolean): void;
    /** The page's server answered this. */
    learn(status: BatchStatus): void;
}
