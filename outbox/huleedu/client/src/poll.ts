/** Asks the page's server for the status of batches: now and then while there is no socket, or once. */

import type { Credential } from "./credential.js";
import type { BatchStatus } from "./messages.js";

export interface PollOptions {
  /** The page's server, before `/v1/batches/{batch_id}/status`. */
  url: string | URL;
  /** The batches that matter; a function is asked anew each time. */
  batchIds: readonly string[] | (() => readonly string[]);
  /** Called with each answer. */
  onBatch?(status: BatchStatus): void;
}

/** What becomes of the answers. */
export interface PollEvents {
  answered(status: BatchStatus): void;
  /** A round is over; `trouble` says what went wrong in it, and is empty if nothing did. */
  asked(trouble: string): void;
  /** The token was refused, and there is no hope in another. */
  refused(): void;
}

export class Poller {
  readonly #options: PollOptions;
  readonly #credential: Credential;
  readonly #events: PollEvents;
  readonly #everyMs: number;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #abort = new AbortController();

  constructor(options: PollOptions, everyMs: number, credential: Credential, events: PollEvents) {
    this.#options = options;
    this.#everyMs = everyMs;
    this.#credential = credential;
    this.#events = events;
  }

  /** Ask now, and again and again until `stop`. */
  start(): void {
    this.stop();
    void this.#go(this.#abort.signal, () => true);
  }

  /** Ask now, and again only until every batch was answered. */
  once(): void {
    this.stop();
    void this.#go(this.#abort.signal, (trouble) => trouble !== "");
  }

  /** Ask no more; what is under way comes to nothing. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#abort.abort();
    this.#abort = new AbortController();
  }

  async #go(signal: AbortSignal, again: (trouble: string) => boolean): Promise<void> {
    const trouble = await this.#round(signal);
    if (signal.aborted) return;
    this.#events.asked(trouble);
    if (signal.aborted || !again(trouble)) return;
    // Around `everyMs` at random, so that browsers that lost the same gateway do not ask in step.
    const wait = this.#everyMs * (0.5 + Math.random());
    this.#timer = setTimeout(() => void this.#go(signal, again), wait);
  }

  /** Returns the first thing that went wrong, or nothing. */
  async #round(signal: AbortSignal): Promise<string> {
    const { batchIds } = this.#options;
    let trouble = "";
    for (const id of typeof batchIds === "function" ? batchIds() : batchIds) {
      const problem = await this.#ask(id, signal).catch(String);
      if (signal.aborted) break;
      trouble ||= problem;
    }
    return trouble;
  }

  /** Returns what went wrong, or nothing. */
  async #ask(batchId: string, signal: AbortSignal): Promise<string> {
    const token = await this.#credential.get();
    const url = `${String(this.#options.url).replace(/\/$/, "")}/v1/batches/${encodeURIComponent(batchId)}/status`;
    const answer = await fetch(url, {
      headers: { Authorization: `Bearer ${token}` },
      cache: "no-store",
      signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]),
    });
    if (answer.status === 401) return this.#askAgain(batchId, token, signal);
    this.#credential.accepted();
    if (answer.status === 404) return ""; // Its registration is still on its way.
    if (!answer.ok) return `the server answered ${answer.status}`;
    const status = (await answer.json()) as BatchStatus;
    if (!signal.aborted) this.#events.answered(status);
    return "";
  }

  async #askAgain(batchId: string, refused: string, signal: AbortSignal): Promise<string> {
    if (this.#credential.refused(refused)) return this.#ask(batchId, signal);
    if (!signal.aborted) this.#events.refused();
    return "the token was refused";
  }
}
