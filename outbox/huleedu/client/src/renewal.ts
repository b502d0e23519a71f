/** A token renewed on the open socket, before it ends. */

import type { Credential } from "./credential.js";
import type { Timing } from "./options.js";
import { Alarm, between } from "./retry.js";

/** So long after an attempt the gateway takes another. */
const AGAIN = 11_000;

/**
 * Asks for a new token some time before the current one ends, and sends it. Where that fails it tries again
 * until the gateway closes the socket, which the next one with a new token makes up for.
 */
export class Renewal {
  readonly #credential: Credential;
  readonly #timing: Timing;
  readonly #send: (token: string) => void;
  readonly #alarm = new Alarm();
  #stopped = false;
  /** The token on which the socket counts. */
  token: string;
  #sent: string | undefined;

  constructor(credential: Credential, timing: Timing, token: string, send: (token: string) => void) {
    this.#credential = credential;
    this.#timing = timing;
    this.token = token;
    this.#send = send;
  }

  /** The socket is open: from now on its token is to be renewed. */
  start(): void {
    const left = this.#credential.left(this.token);
    if (left === Infinity || this.#timing.renewBefore === 0) return;
    const margin = Math.min(this.#timing.renewBefore, left / 4);
    this.#alarm.set(left - margin * between(1, 1.5), () => void this.#renew());
  }

  stop(): void {
    this.#stopped = true;
    this.#alarm.clear();
  }

  /** The gateway's answer. */
  answered(accepted: boolean): void {
    const token = this.#sent;
    if (token === undefined) return;
    this.#sent = undefined;
    if (!accepted) {
      this.#credential.forget(token);
      return;
    }
    this.token = token;
    this.start();
  }

  async #renew(): Promise<void> {
    this.#alarm.set(AGAIN * between(1, 1.5), () => void this.#renew());
    let token: string;
    try {
      token = await this.#credential.fresh();
    } catch {
      return; // It is tried again.
    }
    if (this.#stopped || token === this.token) return;
    this.#sent = token;
    this.#send(token);
  }
}
