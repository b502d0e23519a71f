/**
 * A teacher's notifications, whatever happens to the connection.
 *
 * They come over a WebSocket. When it is lost the client connects again and asks for what it missed
 * meanwhile; when none can be had it asks the page's server now and then, until there is one again.
 *
 * @packageDocumentation
 */
import { Credential } from "./credential.js";
import { Line } from "./line.js";
import { watch } from "./moments.js";
import { News } from "./news.js";
import { TIMING } from "./options.js";
import { Poller } from "./poll.js";
import { Renewal } from "./renewal.js";
import { Alarm, between, fullJitter, report } from "./retry.js";
export * from "./messages.js";
export * from "./options.js";
/**
 * Connects, and keeps connected until `close`.
 *
 * @throws TypeError if an address in the options is none.
 */
export function connect(options) {
    return new Client(options);
}
const GOING_AWAY = 1001;
const NO_UPDATES = 1013;
const UNAUTHORIZED = 4401;
class Client {
    status = { state: "connecting", reason: "connecting" };
    #options;
    #timing;
    #address;
    #credential;
    #poller;
    #news;
    #retry = new Alarm();
    #patience = new Alarm();
    /** Why there is no socket. */
    #why = "connecting";
    /** What goes wrong in asking. */
    #trouble = "";
    #line;
    #renewal;
    /** Which attempt this is: a token that comes late must not open a second socket. */
    #attempt = 0;
    #failures = 0;
    /** How many tokens in a row were refused. */
    #refusals = 0;
    #begun = false;
    #closed = false;
    #unwatch = () => { };
    constructor(options) {
        this.#options = options;
        this.#timing = { ...TIMING, ...options.timing };
        this.#address = gateway(options.url, this.#timing.heartbeat);
        this.#news = new News(options, (callback) => this.#call(callback));
        this.#credential = new Credential(options.token, this.#timing.token);
        this.#poller = new Poller(options.poll, this.#timing, this.#credential, {
            answered: (status) => this.#news.learn(status),
            unknown: (batchId) => this.#news.know(batchId),
            refused: (batchId, status) => this.#call(() => options.poll?.onRefused?.(batchId, status)),
            resync: () => this.#call(() => options.onResync?.()),
            asked: (trouble) => this.#asked(trouble),
        });
        queueMicrotask(() => this.#begin());
    }
    get lastMessageId() {
        return this.#news.lastMessageId;
    }
    reconnect() {
        if (this.#closed)
            return;
        this.#credential.accepted();
        this.#credential.forget();
        this.#failures = this.#refusals = 0;
        this.#poller.revive();
        if (this.#stopped) {
            this.status = { state: "connecting", reason: "connecting" };
            this.#begin();
        }
        else if (this.#begun) {
            this.#wait("the page connects again");
            void this.#open();
        }
    }
    addBatch(batchId, { poll = false } = {}) {
        this.#poller.add(batchId, poll);
    }
    removeBatch(batchId) {
        this.#poller.remove(batchId);
        this.#news.forget(batchId);
    }
    close() {
        this.#closed = true;
        this.#stop("closed by the page");
    }
    /** Whatever calls back the page must look afterwards: the page may have closed the connection. */
    get #stopped() {
        return this.status.state === "stopped";
    }
    #begin() {
        if (this.#stopped)
            return;
        this.#begun = true;
        this.#unwatch = watch({
            woke: () => this.#woke(),
            froze: () => this.#drop("the page was frozen"),
            online: () => this.#online(),
            offline: () => this.#drop("the network is gone"),
        });
        this.#call(() => this.#options.onStatus?.(this.status));
        this.#pollIfItTakesLong(this.#timing.pollAfter * between(1, 1.5));
        void this.#open();
    }
    async #open() {
        if (this.#stopped)
            return;
        this.#leave();
        const attempt = this.#attempt;
        let token;
        try {
            token = await this.#credential.get();
        }
        catch (error) {
            if (attempt === this.#attempt)
                this.#fail(`no token could be had: ${error}`);
            return;
        }
        if (attempt === this.#attempt)
            this.#attach(token);
    }
    #attach(token) {
        const address = new URL(this.#address);
        const cursor = this.lastMessageId;
        if (cursor !== undefined)
            address.searchParams.set("last_message_id", cursor);
        const renewal = new Renewal(this.#credential, this.#timing, token, (another) => this.#line?.renew(another));
        this.#renewal = renewal;
        try {
            this.#line = new Line(address, token, this.#timing, {
                opened: () => this.#opened(cursor !== undefined),
                said: (message, live) => this.#news.receive(message, live),
                missed: () => this.#poller.resync(this.#timing.resyncWithin),
                token: (accepted) => renewal.answered(accepted),
                lost: (loss) => this.#lose(loss, renewal.token),
            });
        }
        catch (error) {
            // A page that may not open this socket: asking may go well nevertheless.
            this.#fail(String(error));
        }
    }
    /** Forget the current socket, the attempt to open one, and the wait for the next. */
    #leave() {
        this.#attempt += 1;
        this.#retry.clear();
        this.#renewal?.stop();
        this.#line?.close();
        this.#line = this.#renewal = undefined;
    }
    #opened(resumes) {
        this.#refusals = 0;
        this.#patience.clear();
        this.#renewal?.start();
        this.#poller.poll(false);
        // Without a message to go on from, nothing tells what happened before. Of many pages one gateway's end
        // makes connect again at once, but only one page is new.
        if (!resumes)
            this.#poller.resync(this.#news.any ? this.#timing.resyncWithin : 0);
        this.#tell({ state: "open", reason: "connected" });
    }
    #lose(loss, token) {
        if (loss.stable) {
            this.#failures = 0;
            this.#credential.accepted();
        }
        if (loss.code === UNAUTHORIZED)
            this.#refused(loss, token);
        else
            this.#fail(loss.reason, loss);
    }
    /** A token was refused. One that has expired is replaced, one whose time has not come yet is kept. */
    #refused(loss, token) {
        const early = /\bearly\b/.test(loss.reason);
        const expired = /\bexpired\b/.test(loss.reason);
        if (!early && this.#credential.refused(token, expired)) {
            this.#stop(loss.reason, loss.code);
            return;
        }
        this.#refusals += 1;
        if (early || this.#refusals > 1) {
            this.#fail(loss.reason, loss);
        }
        else {
            this.#wait(loss.reason, loss);
            void this.#open();
        }
    }
    #fail(reason, loss) {
        this.#leave();
        this.#failures += 1;
        const { firstRetry, longestRetry, restart } = this.#timing;
        const restarts = loss?.opened && loss.code === GOING_AWAY;
        const wait = restarts ? between(0, restart) : fullJitter(this.#failures, firstRetry, longestRetry);
        this.#retry.set(wait, () => void this.#open());
        this.#wait(reason, loss);
    }
    /** There is no socket: say so, and ask the server if that lasts. */
    #wait(reason, loss) {
        this.#why = reason;
        const state = this.status.state === "polling" ? "polling" : "connecting";
        const { pollAfter, pollAfterLoss } = this.#timing;
        const lost = loss?.opened && loss.code !== NO_UPDATES;
        const status = { state, reason: this.#reasons(state) };
        this.#tell(loss?.code === undefined ? status : { ...status, code: loss.code });
        this.#pollIfItTakesLong(lost ? pollAfterLoss * between(1, 4) : pollAfter * between(1, 4));
    }
    #pollIfItTakesLong(wait) {
        if (this.#patience.pending || this.#stopped || this.status.state === "polling")
            return;
        this.#patience.set(wait, () => {
            this.#tell({ ...this.status, state: "polling" });
            if (!this.#stopped)
                this.#poller.poll(true);
        });
    }
    #asked(trouble) {
        this.#trouble = trouble;
        const { state } = this.status;
        if (state === "polling")
            this.#tell({ ...this.status, reason: this.#reasons(state) });
    }
    #reasons(state) {
        return state === "polling" && this.#trouble ? `${this.#why}; asking: ${this.#trouble}` : this.#why;
    }
    /** Timers stood still, or were slow: see whether the socket still lives, and do not wait for the next. */
    #woke() {
        this.#line?.check();
        if (this.#retry.pending)
            this.#soon();
        this.#poller.wake();
    }
    #online() {
        // The socket, if there seems to be one, belongs to a network that is gone.
        this.#leave();
        this.#failures = 0;
        this.#soon();
        this.#wait("the network came back");
        this.#poller.wake();
    }
    #soon() {
        this.#retry.set(between(0, this.#timing.firstRetry), () => void this.#open());
    }
    /** The socket has no future. */
    #drop(reason) {
        if (this.#line)
            this.#fail(reason);
    }
    #stop(reason, code) {
        if (this.#stopped)
            return;
        this.#unwatch();
        this.#leave();
        this.#patience.clear();
        this.#poller.stop();
        this.status = code === undefined ? { state: "stopped", reason } : { state: "stopped", reason, code };
        this.#report(() => this.#options.onStatus?.(this.status));
    }
    #tell(status) {
        const { state, reason, code } = this.status;
        this.status = status;
        if (state === status.state && reason === status.reason && code === status.code)
            return;
        this.#call(() => this.#options.onStatus?.(status));
    }
    /** Calls back the page, unless it has closed the connection. */
    #call(callback) {
        if (!this.#stopped)
            this.#report(callback);
    }
    /** What the page's callback throws is reported, and does not disturb the connection. */
    #report(callback) {
        try {
            callback();
        }
        catch (error) {
            report(error);
        }
    }
}
/** The gateway's address for a WebSocket, which asks it to break the silence. */
function gateway(url, heartbeat) {
    const address = new URL(url, globalThis.location?.href);
    address.protocol = address.protocol.replace("http", "ws");
    if (heartbeat > 0)
        address.searchParams.set("heartbeat", String(heartbeat / 1_000));
    return address;
}
