/** The user's token: when to ask for another, and when there is no hope in any. */

import { now } from "./retry.js";

/** A token, or where to get one that is good now. */
export type Token = string | (() => string | Promise<string>);

/** What can stand in a header beside `bearer`; an error page cannot. */
const TOKEN = /^[\w!#$%&'*+.^`|~-]+$/;

/**
 * Keeps a token as long as it is good. Whatever goes wrong in getting one may go well the next time. There
 * is no hope only where the server has refused two different tokens for a reason that does not heal.
 */
export class Credential {
  readonly #source: Token;
  readonly #timeout: number;
  readonly #refused = new Set<string>();
  #asking: Promise<string> | undefined;
  #token: string | undefined;
  /** When the token was had first: its life is counted from here, by a clock that nobody sets. */
  #since = 0;

  constructor(source: Token, timeout: number) {
    this.#source = source;
    this.#timeout = timeout;
  }

  /** The current token, or a new one where that has ended. Rejects if none can be had now. */
  async get(): Promise<string> {
    if (this.#token !== undefined && this.left(this.#token) > 0) return this.#token;
    return this.fresh();
  }

  /** Asks for a token, once however many want one. Rejects if none can be had now. */
  fresh(): Promise<string> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  /** The milliseconds until this token ends, as far as it says so itself. */
  left(token: string): number {
    return this.#since + lifetime(token) - now();
  }

  /** This token was good, and so is where it came from. */
  accepted(): void {
    this.#refused.clear();
  }

  /** Use this token no more; without one, whichever there is. */
  forget(token = this.#token): void {
    if (token === this.#token) this.#token = undefined;
  }

  /** This token was refused; `heals` if another may be taken. Whether there is no hope in any. */
  refused(token: string, heals: boolean): boolean {
    this.forget(token);
    const again = this.#refused.has(token);
    if (!heals || typeof this.#source === "string") this.#refused.add(token);
    return this.#refused.size > 1 || (again && typeof this.#source === "string");
  }

  async #ask(): Promise<string> {
    const token: unknown =
      typeof this.#source === "string" ? this.#source : await inTime(this.#source, this.#timeout);
    // What was had instead may be a secret, or a whole page: it is not told.
    if (typeof token !== "string" || !TOKEN.test(token)) throw new Error("what was had is no token");
    if (token !== this.#token) this.#since = now();
    this.#token = token;
    return token;
  }
}

async function inTime(source: () => string | Promise<string>, timeout: number): Promise<string> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new Error(`there was no answer within ${timeout / 1_000} s`);
    timer = setTimeout(() => reject(error), timeout);
  });
  try {
    return await Promise.race([source(), late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * How long a new token is good for, in milliseconds; for ever, where it does not say. The issuer's two
 * moments are compared with each other, since the clock of this machine may be wrong.
 */
function lifetime(token: string): number {
  try {
    const payload = (token.split(".")[1] ?? "").replace(/-/g, "+").replace(/_/g, "/");
    const { iat, exp } = JSON.parse(atob(payload)) as { iat?: unknown; exp?: unknown };
    if (typeof exp !== "number") return Infinity;
    return exp * 1_000 - (typeof iat === "number" ? iat * 1_000 : Date.now());
  } catch {
    return Infinity;
  }
}
