/** Asks the page's server for the status of batches: now and then while there is no socket, and when it is owed. */
import { isBatchStatus } from "./messages.js";
import { hidden } from "./moments.js";
import { Alarm, between, growing, now, report, retryAfter, Steps } from "./retry.js";
/** Who is asked lags behind Kafka: what is owed is asked for again so long after the first time. */
const AGAIN = [2_000, 10_000, 30_000];
const AT_ONCE = 4;
/** So many refusals in a row are taken for the last word. */
const REFUSALS = 3;
/** A batch that was unknown so often is hardly ever asked for. */
const LONG_UNKNOWN = 12;
/** What the server may say of a request that the next one may heal. */
const HEALS = [401, 408, 421, 423, 425, 429];
/** What is known about the questions for one batch. */
class Question {
    owed = new Steps();
    /** Not before this while polling, or after a failure. */
    next = 0;
    /** Not before this: the server said so. */
    notBefore = 0;
    failures = 0;
    refusals = 0;
    trouble = "";
    /** Whether to ask again and again also while there is a socket. */
    always = false;
    asking;
    deadline = new Alarm();
    over = false;
    /** When to ask. */
    due(polling) {
        if (this.over || this.asking)
            return Infinity;
        const wanted = polling || this.always ? this.next : this.owed.next;
        return Math.max(wanted, this.failures > 0 ? this.next : 0, this.notBefore);
    }
    /** Begins to ask, for so long at most. */
    begin(timeout) {
        const asking = (this.asking = new AbortController());
        const late = new Error(`there was no answer within ${timeout / 1_000} s`);
        this.deadline.set(timeout, () => asking.abort(late));
        return asking.signal;
    }
    /** It has been answered, or its answer matters no more. */
    end() {
        this.deadline.clear();
        this.asking = undefined;
    }
    abandon() {
        this.asking?.abort();
        this.end();
    }
}
export class Poller {
    #options;
    #timing;
    #credential;
    #events;
    #questions = new Map();
    #added = new Map();
    #list = [];
    #page = new Steps();
    #alarm = new Alarm();
    #polling = false;
    #stopped = true;
    constructor(options, timing, credential, events) {
        this.#options = options;
        this.#timing = timing;
        this.#credential = credential;
        this.#events = events;
    }
    /** From now on ask about every batch, again and again, or only what is owed. */
    poll(on) {
        this.#stopped = false;
        if (on && !this.#polling)
            for (const question of this.#questions.values())
                question.next = now();
        this.#polling = on;
        this.#arrange();
    }
    /** Something may have been missed: what is asked for from now on is owed, whatever happens meanwhile. */
    resync(within) {
        const delay = between(0, within);
        this.#sync();
        for (const question of this.#questions.values())
            question.owed.begin(delay, AGAIN);
        this.#page.begin(delay, this.#options ? [] : AGAIN);
        this.#arrange();
    }
    /** Ask about this batch too; `always`, also while there is a socket. */
    add(batchId, always) {
        this.#added.set(batchId, always);
        this.#forget(batchId);
        this.#arrange();
    }
    remove(batchId) {
        this.#added.delete(batchId);
        this.#forget(batchId);
        this.#arrange();
    }
    /** The page is seen again, or the network is back: what waits because of failures need not. */
    wake() {
        for (const question of this.#questions.values()) {
            if (question.failures > 0)
                question.next = Math.min(question.next, now() + between(0, 1_000));
        }
        this.#arrange();
    }
    /** Ask nothing until `poll`. */
    stop() {
        this.#stopped = true;
        this.#polling = false;
        this.#alarm.clear();
        for (const question of this.#questions.values())
            question.abandon();
    }
    /** What was given up may be asked again. */
    revive() {
        for (const question of this.#questions.values()) {
            question.over = false;
            question.refusals = 0;
        }
        this.#arrange();
    }
    #forget(batchId) {
        this.#questions.get(batchId)?.abandon();
        this.#questions.delete(batchId);
    }
    /** Takes up batches that are new, whose past is not known, and forgets those that matter no more. */
    #sync() {
        const ids = new Set([...this.#listed(), ...this.#added.keys()]);
        for (const id of this.#questions.keys())
            if (!ids.has(id))
                this.#forget(id);
        for (const id of ids) {
            if (this.#questions.has(id))
                continue;
            const question = new Question();
            question.owed.begin(0, AGAIN);
            question.always = this.#added.get(id) ?? false;
            this.#questions.set(id, question);
        }
    }
    /** The batches that the page lists; those that it listed last, if it fails to. */
    #listed() {
        const ids = this.#options?.batchIds ?? [];
        try {
            this.#list = [...(typeof ids === "function" ? ids() : ids)];
        }
        catch (error) {
            report(error);
        }
        return this.#list;
    }
    /** Sets the alarm for what is due next; nobody asks for a page that nobody sees. */
    #arrange() {
        this.#alarm.clear();
        if (this.#stopped || hidden())
            return;
        this.#sync();
        const due = [...this.#questions.values()].map((question) => question.due(this.#polling));
        const look = typeof this.#options?.batchIds === "function" ? now() + this.#timing.pollEvery : Infinity;
        const next = Math.min(...due, this.#page.next, look);
        if (next < Infinity)
            this.#alarm.set(next - now(), () => this.#ring());
    }
    #ring() {
        if (hidden())
            return;
        if (this.#page.next <= now()) {
            this.#page.answered(now());
            this.#events.resync();
        }
        let asking = [...this.#questions.values()].filter((question) => question.asking).length;
        for (const [id, question] of this.#questions) {
            if (this.#stopped || asking >= AT_ONCE)
                break;
            if (question.due(this.#polling) > now())
                continue;
            asking += 1;
            void this.#ask(id, question);
        }
        if (asking < AT_ONCE)
            this.#arrange();
    }
    async #ask(id, question) {
        const began = now();
        const signal = question.begin(this.#timing.ask);
        const answer = await this.#answer(id, question, signal).catch((error) => String(error));
        if (question.asking?.signal !== signal)
            return;
        question.end();
        question.trouble = typeof answer === "string" ? answer : "";
        if (answer !== null && typeof answer === "object") {
            question.failures = question.refusals = 0;
            question.owed.answered(began);
            question.next = now() + this.#timing.pollEvery * between(0.5, 1.5);
            this.#events.answered(answer);
        }
        else {
            question.failures += 1;
            question.next = now() + this.#patience(question) * between(0.5, 1.5);
        }
        if (this.#stopped)
            return;
        this.#events.asked([...this.#questions.values()].find(({ trouble }) => trouble)?.trouble ?? "");
        this.#arrange();
    }
    #patience({ failures, trouble }) {
        const { pollEvery, longestRetry } = this.#timing;
        const unknown = trouble === "" && failures > LONG_UNKNOWN;
        return growing(failures, pollEvery, longestRetry) * (unknown ? 10 : 1);
    }
    /** Returns the status, what went wrong, or nothing where the server knows nothing of the batch yet. */
    async #answer(id, question, signal) {
        const answer = await this.#fetch(id, signal);
        signal.throwIfAborted();
        question.notBefore = now() + retryAfter(answer.headers);
        const final = answer.status >= 400 && answer.status < 500 && !HEALS.includes(answer.status);
        if (answer.status === 404) {
            question.refusals = 0;
            this.#events.unknown(id);
            return null;
        }
        if (final && (question.refusals += 1) >= REFUSALS) {
            question.over = true;
            this.#events.refused(id, answer.status);
            return "";
        }
        if (!answer.ok)
            return `the server answered ${answer.status}`;
        const status = await answer.json();
        return isBatchStatus(status) ? status : "the server answered with something else";
    }
    /** A token that the server refuses is replaced, once for each question. */
    async #fetch(id, signal) {
        const token = await this.#credential.get();
        const answer = await this.#request(id, token, signal);
        if (answer.status !== 401 || signal.aborted)
            return answer;
        this.#credential.forget(token);
        const another = await this.#credential.get();
        return another === token ? answer : this.#request(id, another, signal);
    }
    #request(id, token, signal) {
        const address = String(this.#options?.url).replace(/\/$/, "");
        return fetch(`${address}/v1/batches/${encodeURIComponent(id)}/status`, {
            headers: { Authorization: `Bearer ${token}` },
            cache: "no-store",
            signal,
        });
    }
}
