/** Asks the page's server for the status of batches: now and then while there is no socket, and when it is owed. */

import type { Credential } from "./credential.js";
import { type BatchStatus, isBatchStatus } from "./messages.js";
import { hidden } from "./moments.js";
import type { Timing } from "./options.js";
import { Alarm, between, growing, now, report, retryAfter, Steps } from "./retry.js";

/** Whom to ask about what. */
export interface PollOptions {
  /** The page's server, before `/v1/batches/{batch_id}/status`. */
  url: string | URL;
  /** The batches that matter, beside those of `addBatch`; a function is asked anew every few seconds. */
  batchIds?: readonly string[] | (() => readonly string[]);
  /** Called with each answer. */
  onBatch?(status: BatchStatus): void;
  /** The server goes on refusing to tell of this batch: it is given up. `status` is that of HTTP. */
  onRefused?(batchId: string, status: number): void;
}

/** What becomes of the questions. */
export interface PollEvents {
  answered(status: BatchStatus): void;
  /** The server does not know this batch, yet. */
  unknown(batchId: string): void;
  refused(batchId: string, status: number): void;
  /** It is time for the page to load its state. */
  resync(): void;
  /** Something was answered; `trouble` says what goes wrong in asking, and is empty if nothing does. */
  asked(trouble: string): void;
}

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
  readonly owed = new Steps();
  /** Not before this while polling, or after a failure. */
  next = 0;
  /** Not before this: the server said so. */
  notBefore = 0;
  failures = 0;
  refusals = 0;
  trouble = "";
  /** Whether to ask again and again also while there is a socket. */
  always = false;
  asking: AbortController | undefined;
  readonly deadline = new Alarm();
  over = false;

  /** When to ask. */
  due(polling: boolean): number {
    if (this.over || this.asking) return Infinity;
    const wanted = polling || this.always ? this.next : this.owed.next;
    return Math.max(wanted, this.failures > 0 ? this.next : 0, this.notBefore);
  }

  /** Begins to ask, for so long at most. */
  begin(timeout: number): AbortSignal {
    const asking = (this.asking = new AbortController());
    const late = new Error(`there was no answer within ${timeout / 1_000} s`);
    this.deadline.set(timeout, () => asking.abort(late));
    return asking.signal;
  }

  /** It has been answered, or its answer matters no more. */
  end(): void {
    this.deadline.clear();
    this.asking = undefined;
  }

  abandon(): void {
    this.asking?.abort();
    this.end();
  }
}

export class Poller {
  readonly #options: PollOptions | undefined;
  readonly #timing: Timing;
  readonly #credential: Credential;
  readonly #events: PollEvents;
  readonly #questions = new Map<string, Question>();
  readonly #added = new Map<string, boolean>();
  #list: readonly string[] = [];
  readonly #page = new Steps();
  readonly #alarm = new Alarm();
  #polling = false;
  #stopped = true;

  constructor(options: PollOptions | undefined, timing: Timing, credential: Credential, events: PollEvents) {
    this.#options = options;
    this.#timing = timing;
    this.#credential = credential;
    this.#events = events;
  }

  /** From now on ask about every batch, again and again, or only what is owed. */
  poll(on: boolean): void {
    this.#stopped = false;
    if (on && !this.#polling) for (const question of this.#questions.values()) question.next = now();
    this.#polling = on;
    this.#arrange();
  }

  /** Something may have been missed: what is asked for from now on is owed, whatever happens meanwhile. */
  resync(within: number): void {
    const delay = between(0, within);
    this.#sync();
    for (const question of this.#questions.values()) question.owed.begin(delay, AGAIN);
    this.#page.begin(delay, this.#options ? [] : AGAIN);
    this.#arrange();
  }

  /** Ask about this batch too; `always`, also while there is a socket. */
  add(batchId: string, always: boolean): void {
    this.#added.set(batchId, always);
    this.#forget(batchId);
    this.#arrange();
  }

  remove(batchId: string): void {
    this.#added.delete(batchId);
    this.#forget(batchId);
    this.#arrange();
  }

  /** The page is seen again, or the network is back: what waits because of failures need not. */
  wake(): void {
    for (const question of this.#questions.values()) {
      if (question.failures > 0) question.next = Math.min(question.next, now() + between(0, 1_000));
    }
    this.#arrange();
  }

  /** Ask nothing until `poll`. */
  stop(): void {
    this.#stopped = true;
    this.#polling = false;
    this.#alarm.clear();
    for (const question of this.#questions.values()) question.abandon();
  }

  /** What was given up may be asked again. */
  revive(): void {
    for (const question of this.#questions.values()) {
      question.over = false;
      question.refusals = 0;
    }
    this.#arrange();
  }

  #forget(batchId: string): void {
    this.#questions.get(batchId)?.abandon();
    this.#questions.delete(batchId);
  }

  /** Takes up batches that are new, whose past is not known, and forgets those that matter no more. */
  #sync(): void {
    const ids = new Set([...this.#listed(), ...this.#added.keys()]);
    for (const id of this.#questions.keys()) if (!ids.has(id)) this.#forget(id);
    for (const id of ids) {
      if (this.#questions.has(id)) continue;
      const question = new Question();
      question.owed.begin(0, AGAIN);
      question.always = this.#added.get(id) ?? false;
      this.#questions.set(id, question);
    }
  }

  /** The batches that the page lists; those that it listed last, if it fails to. */
  #listed(): readonly string[] {
    const ids = this.#options?.batchIds ?? [];
    try {
      this.#list = [...(typeof ids === "function" ? ids() : ids)];
    } catch (error) {
      report(error);
    }
    return this.#list;
  }

  /** Sets the alarm for what is due next; nobody asks for a page that nobody sees. */
  #arrange(): void {
    this.#alarm.clear();
    if (this.#stopped || hidden()) return;
    this.#sync();
    const due = [...this.#questions.values()].map((question) => question.due(this.#polling));
    const look = typeof this.#options?.batchIds === "function" ? now() + this.#timing.pollEvery : Infinity;
    const next = Math.min(...due, this.#page.next, look);
    if (next < Infinity) this.#alarm.set(next - now(), () => this.#ring());
  }

  #ring(): void {
    if (hidden()) return;
    if (this.#page.next <= now()) {
      this.#page.answered(now());
      this.#events.resync();
    }
    let asking = [...this.#questions.values()].filter((question) => question.asking).length;
    for (const [id, question] of this.#questions) {
      if (this.#stopped || asking >= AT_ONCE) break;
      if (question.due(this.#polling) > now()) continue;
      asking += 1;
      void this.#ask(id, question);
    }
    if (asking < AT_ONCE) this.#arrange();
  }

  async #ask(id: string, question: Question): Promise<void> {
    const began = now();
    const signal = question.begin(this.#timing.ask);
    const answer = await this.#answer(id, question, signal).catch((error: unknown) => String(error));
    if (question.asking?.signal !== signal) return;
    question.end();
    question.trouble = typeof answer === "string" ? answer : "";
    if (answer !== null && typeof answer === "object") {
      question.failures = question.refusals = 0;
      question.owed.answered(began);
      question.next = now() + this.#timing.pollEvery * between(0.5, 1.5);
      this.#events.answered(answer);
    } else {
      question.failures += 1;
      question.next = now() + this.#patience(question) * between(0.5, 1.5);
    }
    if (this.#stopped) return;
    this.#events.asked([...this.#questions.values()].find(({ trouble }) => trouble)?.trouble ?? "");
    this.#arrange();
  }

  #patience({ failures, trouble }: Question): number {
    const { pollEvery, longestRetry } = this.#timing;
    const unknown = trouble === "" && failures > LONG_UNKNOWN;
    return growing(failures, pollEvery, longestRetry) * (unknown ? 10 : 1);
  }

  /** Returns the status, what went wrong, or nothing where the server knows nothing of the batch yet. */
  async #answer(id: string, question: Question, signal: AbortSignal): Promise<BatchStatus | string | null> {
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
    if (!answer.ok) return `the server answered ${answer.status}`;
    const status: unknown = await answer.json();
    return isBatchStatus(status) ? status : "the server answered with something else";
  }

  /** A token that the server refuses is replaced, once for each question. */
  async #fetch(id: string, signal: AbortSignal): Promise<Response> {
    const token = await this.#credential.get();
    const answer = await this.#request(id, token, signal);
    if (answer.status !== 401 || signal.aborted) return answer;
    this.#credential.forget(token);
    const another = await this.#credential.get();
    return another === token ? answer : this.#request(id, another, signal);
  }

  #request(id: string, token: string, signal: AbortSignal): Promise<Response> {
    const address = String(this.#options?.url).replace(/\/$/, "");
    return fetch(`${address}/v1/batches/${encodeURIComponent(id)}/status`, {
      headers: { Authorization: `Bearer ${token}` },
      cache: "no-store",
      signal,
    });
  }
}
