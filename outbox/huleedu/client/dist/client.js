/**
 * A teacher's notifications, whatever happens to the connection.
 *
 * They come over a WebSocket. When it is lost the client connects again and asks for what it missed
 * meanwhile; when none can be had it asks the page's server now and then, until there is one again.
 */
import { Credential } from "./credential.js";
import { assignmentsIn, isSlotAssigned, parse, } from "./messages.js";
import { TIMING } from "./options.js";
import { Poller } from "./poll.js";
import { fullJitter, Seen } from "./retry.js";
export * from "./messages.js";
export * from "./options.js";
/** Connects, and keeps connected until `close`. */
export function connect(options) {
    return new Client(options);
}
const UNAUTHORIZED = 4401;
class Client {
    status = { state: "connecting", reason: "connecting" };
    lastMessageId;
    #options;
    #timing;
    #credential;
    #poller;
    #messages = new Seen();
    #slots = new Seen(10_000);
    /** Why there is no socket. */
    #why = "connecting";
    #socket;
    /** Which attempt this is: a token that comes late must not open a second socket. */
    #attempt = 0;
    #failures = 0;
    #openedAt = 0;
    #retry;
    #handshake;
    #settling;
    #patience;
    constructor(options) {
        this.#options = options;
        this.#timing = { ...TIMING, ...options.timing };
        this.lastMessageId = options.lastMessageId;
        this.#credential = new Credential(options.token);
        if (options.poll) {
            this.#poller = new Poller(options.poll, this.#timing.pollEvery, this.#credential, {
                answered: (status) => this.#answered(status),
                asked: (trouble) => this.#asked(trouble),
                refused: () => this.#stop("the token was refused", UNAUTHORIZED),
            });
        }
        globalThis.addEventListener?.("online", this.#online);
        queueMicrotask(() => this.#begin());
    }
    close() {
        this.#stop("closed by the page");
    }
    /** Whatever calls back the page must look afterwards: the page may have closed the connection. */
    get #stopped() {
        return this.status.state === "stopped";
    }
    #begin() {
        if (this.#stopped)
            return;
        this.#call(() => this.#options.onStatus?.(this.status));
        this.#pollIfItTakesLong();
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
        if (attempt !== this.#attempt)
            return;
        try {
            this.#attach(new WebSocket(this.#address(), ["bearer", token]), token);
        }
        catch (error) {
            // A bad address, or a token that no header can carry: trying again does not help.
            this.#stop(String(error));
        }
    }
    #address() {
        const url = new URL(this.#options.url, globalThis.location?.href);
        url.protocol = url.protocol.replace("http", "ws");
        if (this.lastMessageId !== undefined)
            url.searchParams.set("last_message_id", this.lastMessageId);
        return url.href;
    }
    #attach(socket, token) {
        this.#socket = socket;
        this.#handshake = setTimeout(() => socket.close(), this.#timing.handshake);
        socket.onopen = () => {
            clearTimeout(this.#handshake);
            this.#openedAt = Date.now();
            this.#settling = setTimeout(() => this.#settle(), this.#timing.settle);
        };
        socket.onmessage = ({ data }) => {
            this.#settle();
            this.#receive(data);
        };
        socket.onclose = ({ code, reason }) => this.#lose(code, reason, token);
    }
    /** Forget the current socket, the attempt to open one, and the wait for the next. */
    #leave() {
        this.#attempt += 1;
        for (const timer of [this.#retry, this.#handshake, this.#settling])
            clearTimeout(timer);
        if (!this.#socket)
            return;
        this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
        this.#socket.close();
        this.#socket = undefined;
    }
    #settle() {
        if (this.status.state === "open")
            return;
        clearTimeout(this.#settling);
        clearTimeout(this.#patience);
        this.#patience = undefined;
        this.#poller?.stop();
        this.#tell({ state: "open", reason: "connected" });
        // Without a message to go on from, nothing tells what happened before.
        if (this.lastMessageId === undefined)
            this.#resync();
    }
    #lose(code, reason, token) {
        const opened = this.#openedAt > 0;
        const stable = opened && Date.now() - this.#openedAt >= this.#timing.stable;
        this.#openedAt = 0;
        if (stable) {
            this.#failures = 0;
            this.#credential.accepted();
        }
        const why = reason || (opened ? "the connection was lost" : "no connection can be made");
        if (code !== UNAUTHORIZED) {
            this.#fail(why, code);
        }
        else if (this.#credential.refused(token)) {
            this.#wait(why, code);
            void this.#open();
        }
        else {
            this.#stop(why, code);
        }
    }
    #fail(reason, code) {
        this.#leave();
        this.#failures += 1;
        const { firstRetry, longestRetry } = this.#timing;
        this.#retry = setTimeout(() => void this.#open(), fullJitter(this.#failures, firstRetry, longestRetry));
        this.#wait(reason, code);
    }
    /** There is no socket: say so, and ask the server if that lasts. */
    #wait(reason, code) {
        this.#why = reason;
        const state = this.status.state === "polling" ? "polling" : "connecting";
        this.#tell(code === undefined ? { state, reason } : { state, reason, code });
        this.#pollIfItTakesLong();
    }
    #pollIfItTakesLong() {
        if (!this.#poller || this.#stopped || this.status.state === "polling")
            return;
        this.#patience ??= setTimeout(() => {
            this.#patience = undefined;
            this.#tell({ ...this.status, state: "polling" });
            if (!this.#stopped)
                this.#poller?.start();
        }, this.#timing.pollAfter);
    }
    #asked(trouble) {
        if (this.status.state !== "polling")
            return;
        this.#tell({ ...this.status, reason: trouble ? `${this.#why}; asking: ${trouble}` : this.#why });
    }
    #answered(status) {
        this.#call(() => this.#options.poll?.onBatch?.(status));
        for (const assignment of assignmentsIn(status))
            this.#assigned(assignment);
    }
    #receive(data) {
        const message = parse(data);
        if (message === null)
            return;
        if (message.event === "resync_required") {
            this.#resync();
            return;
        }
        if (message.message_id !== undefined) {
            if (!this.#messages.add(message.message_id))
                return;
            this.lastMessageId = message.message_id;
        }
        this.#call(() => this.#options.onEvent?.(message));
        if (isSlotAssigned(message))
            this.#assigned(message.data);
    }
    #assigned(data) {
        if (this.#slots.add(`${data.batch_id}/${data.essay_id}/${data.file_upload_id}`)) {
            this.#call(() => this.#options.onSlotAssigned?.(data));
        }
    }
    #resync() {
        this.#call(() => this.#options.onResync?.());
        if (!this.#stopped)
            this.#poller?.once();
    }
    #online = () => {
        // The socket, if there seems to be one, belongs to a network that is gone.
        this.#failures = 0;
        this.#wait("the network came back");
        void this.#open();
    };
    #stop(reason, code) {
        if (this.#stopped)
            return;
        globalThis.removeEventListener?.("online", this.#online);
        this.#leave();
        clearTimeout(this.#patience);
        this.#poller?.stop();
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
            queueMicrotask(() => {
                throw error;
            });
        }
    }
}
