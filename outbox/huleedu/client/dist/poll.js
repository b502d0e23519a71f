/** Asks the page's server for the status of batches: now and then while there is no socket, or once. */
export class Poller {
    #options;
    #credential;
    #events;
    #everyMs;
    #timer;
    #abort = new AbortController();
    constructor(options, everyMs, credential, events) {
        this.#options = options;
        this.#everyMs = everyMs;
        this.#credential = credential;
        this.#events = events;
    }
    /** Ask now, and again and again until `stop`. */
    start() {
        this.stop();
        void this.#go(this.#abort.signal, () => true);
    }
    /** Ask now, and again only until every batch was answered. */
    once() {
        this.stop();
        void this.#go(this.#abort.signal, (trouble) => trouble !== "");
    }
    /** Ask no more; what is under way comes to nothing. */
    stop() {
        clearTimeout(this.#timer);
        this.#abort.abort();
        this.#abort = new AbortController();
    }
    async #go(signal, again) {
        const trouble = await this.#round(signal);
        if (signal.aborted)
            return;
        this.#events.asked(trouble);
        if (signal.aborted || !again(trouble))
            return;
        // Around `everyMs` at random, so that browsers that lost the same gateway do not ask in step.
        const wait = this.#everyMs * (0.5 + Math.random());
        this.#timer = setTimeout(() => void this.#go(signal, again), wait);
    }
    /** Returns the first thing that went wrong, or nothing. */
    async #round(signal) {
        const { batchIds } = this.#options;
        let trouble = "";
        for (const id of typeof batchIds === "function" ? batchIds() : batchIds) {
            const problem = await this.#ask(id, signal).catch(String);
            if (signal.aborted)
                break;
            trouble ||= problem;
        }
        return trouble;
    }
    /** Returns what went wrong, or nothing. */
    async #ask(batchId, signal) {
        const token = await this.#credential.get();
        const url = `${String(this.#options.url).replace(/\/$/, "")}/v1/batches/${encodeURIComponent(batchId)}/status`;
        const answer = await fetch(url, {
            headers: { Authorization: `Bearer ${token}` },
            cache: "no-store",
            signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]),
        });
        if (answer.status === 401)
            return this.#askAgain(batchId, token, signal);
        this.#credential.accepted();
        if (answer.status === 404)
            return ""; // Its registration is still on its way.
        if (!answer.ok)
            return `the server answered ${answer.status}`;
        const status = (await answer.json());
        if (!signal.aborted)
            this.#events.answered(status);
        return "";
    }
    async #askAgain(batchId, refused, signal) {
        if (this.#credential.refused(refused))
            return this.#ask(batchId, signal);
        if (!signal.aborted)
            this.#events.refused();
        return "the token was refused";
    }
}
