/** What the page has been told, so that nothing is told twice, and whether it is news. */
import { assignmentsIn, excessIn, isExcess, isSlotAssigned, } from "./messages.js";
import { Seen } from "./retry.js";
const LIVE = { live: true, recovered: false };
const RECOVERED = { live: false, recovered: true };
const BEFORE = { live: false, recovered: false };
export class News {
    /** The last message that came over the socket. */
    lastMessageId;
    #page;
    #call;
    #messages = new Seen(2_000);
    #uploads = new Seen(50_000);
    /** The batches of which the state is known: what is learnt of them now is news. */
    #known = new Set();
    /** `call` calls back the page. */
    constructor(page, call) {
        this.#page = page;
        this.#call = call;
        this.lastMessageId = page.lastMessageId;
    }
    /** Whether the state of anything is known. */
    get any() {
        return this.#known.size > 0;
    }
    /** The state of this batch, which may be that there is none yet, is known. */
    know(batchId) {
        this.#known.add(batchId);
    }
    forget(batchId) {
        this.#known.delete(batchId);
    }
    /** The socket told of this, as it happened or later. */
    receive(message, live) {
        const how = live ? LIVE : RECOVERED;
        if (message.message_id !== undefined) {
            if (!this.#messages.add(message.message_id))
                return;
            this.lastMessageId = message.message_id;
        }
        this.#call(() => this.#page.onEvent?.(message, how));
        if (isSlotAssigned(message))
            this.#assigned(message.data, how);
        if (isExcess(message))
            this.#excess(message.data, how);
    }
    /** The page's server answered this. */
    learn(status) {
        const how = this.#known.has(status.batch_id) ? RECOVERED : BEFORE;
        this.know(status.batch_id);
        this.#call(() => this.#page.poll?.onBatch?.(status));
        for (const assignment of assignmentsIn(status))
            this.#assigned(assignment, how);
        for (const excess of excessIn(status))
            this.#excess(excess, how);
    }
    #assigned(data, how) {
        this.know(data.batch_id);
        if (this.#uploads.add(`${data.batch_id}/${data.essay_id}/${data.file_upload_id}`)) {
            this.#call(() => this.#page.onSlotAssigned?.(data, how));
        }
    }
    #excess(data, how) {
        this.know(data.batch_id);
        if (this.#uploads.add(`${data.batch_id}//${data.file_upload_id}`)) {
            this.#call(() => this.#page.onExcess?.(data, how));
        }
    }
}
