/** The user's token: when to ask for another, and when there is no hope in any. */
import { now } from "./retry.js";
/** What can stand in a header beside `bearer`; an error page cannot. */
const TOKEN = /^[\w!#$%&'*+.^`|~-]+$/;
/**
 * Keeps a token as long as it is good. Whatever goes wrong in getting one may go well the next time. There
 * is no hope only where the server has refused two different tokens for a reason that does not heal.
 */
export class Credential {
    #source;
    #timeout;
    #refused = new Set();
    #asking;
    #token;
    /** When the token was had first: its life is counted from here, by a clock that nobody sets. */
    #since = 0;
    constructor(source, timeout) {
        this.#source = source;
        this.#timeout = timeout;
    }
    /** The current token, or a new one where that has ended. Rejects if none can be had now. */
    async get() {
        if (this.#token !== undefined && this.left(this.#token) > 0)
            return this.#token;
        return this.fresh();
    }
    /** Asks for a token, once however many want one. Rejects if none can be had now. */
    fresh() {
        this.#asking ??= this.#ask().finally(() => {
            this.#asking = undefined;
        });
        return this.#asking;
    }
    /** The milliseconds until this token ends, as far as it says so itself. */
    left(token) {
        return this.#since + lifetime(token) - now();
    }
    /** This token was good, and so is where it came from. */
    accepted() {
        this.#refused.clear();
    }
    /** Use this token no more; without one, whichever there is. */
    forget(token = this.#token) {
        if (token === this.#token)
            this.#token = undefined;
    }
    /** This token was refused; `heals` if another may be taken. Whether there is no hope in any. */
    refused(token, heals) {
        this.forget(token);
        const again = this.#refused.has(token);
        if (!heals || typeof this.#source === "string")
            this.#refused.add(token);
        return this.#refused.size > 1 || (again && typeof this.#source === "string");
    }
    async #ask() {
        const token = typeof this.#source === "string" ? this.#source : await inTime(this.#source, this.#timeout);
        // What was had instead may be a secret, or a whole page: it is not told.
        if (typeof token !== "string" || !TOKEN.test(token))
            throw new Error("what was had is no token");
        if (token !== this.#token)
            this.#since = now();
        this.#token = token;
        return token;
    }
}
async function inTime(source, timeout) {
    let timer;
    const late = new Promise((_, reject) => {
        const error = new Error(`there was no answer within ${timeout / 1_000} s`);
        timer = setTimeout(() => reject(error), timeout);
    });
    try {
        return await Promise.race([source(), late]);
    }
    finally {
        clearTimeout(timer);
    }
}
/**
 * How long a new token is good for, in milliseconds; for ever, where it does not say. The issuer's two
 * moments are compared with each other, since the clock of this machine may be wrong.
 */
function lifetime(token) {
    try {
        const payload = (token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/");
        const { iat, exp } = JSON.parse(atob(payload));
        if (typeof exp !== "number")
            return Infinity;
        return exp * 1_000 - (typeof iat === "number" ? iat * 1_000 : Date.now());
    }
    catch {
        return Infinity;
    }
}
