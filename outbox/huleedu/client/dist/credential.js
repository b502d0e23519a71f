/** The user's token, and when to ask for another. */
/**
 * Asks for a token when there is none yet, and once more when it was refused. A second refusal in a row
 * is final: no token that can be had is good.
 */
export class Credential {
    #source;
    #current;
    #value;
    #renewed = false;
    constructor(source) {
        this.#source = source;
    }
    /** The current token. Rejects if it cannot be had now. */
    get() {
        const asked = this.#current ?? this.#ask();
        this.#current = asked;
        asked.catch(() => {
            if (this.#current === asked)
                this.#current = undefined;
        });
        return asked;
    }
    /** The current token was good. */
    accepted() {
        this.#renewed = false;
    }
    /** This token was refused; whether there is hope in another. */
    refused(token) {
        if (token !== this.#value)
            return true;
        if (typeof this.#source === "string" || this.#renewed)
            return false;
        this.#renewed = true;
        this.#current = undefined;
        return true;
    }
    async #ask() {
        this.#value = typeof this.#source === "string" ? this.#source : await this.#source();
        return this.#value;
    }
}
