/** One WebSocket, from its handshake to its end: whether it lives, and what came before it was there. */

import { type Notification, parse } from "./messages.js";
import type { Timing } from "./options.js";
import { Alarm, now } from "./retry.js";

/** How a socket ended. */
export interface Loss {
  code?: number;
  reason: string;
  /** Whether it was ever open. */
  opened: boolean;
  /** Whether it held long enough to say that all was well. */
  stable: boolean;
}

export interface LineEvents {
  /** The gateway keeps the socket: notifications arrive. */
  opened(): void;
  /** A message that is no matter of the line itself; `live` if it was not replayed. */
  said(message: Notification, live: boolean): void;
  /** What happened before is not known. */
  missed(): void;
  /** The gateway took the token that was sent, or did not. */
  token(accepted: boolean): void;
  /** It is over. Nothing is called after this. */
  lost(loss: Loss): void;
}

/** An alarm that rings later than this rang for a page that slept: what was said meanwhile may still wait. */
const LATE = 1_000;

export class Line {
  readonly #socket: WebSocket;
  readonly #timing: Timing;
  readonly #events: LineEvents;
  readonly #deadline = new Alarm();
  readonly #settling = new Alarm();
  readonly #quiet = new Alarm();
  #openedAt: number | undefined;
  #settled = false;
  #heardAt = 0;
  /** How many replayed messages are still to come. */
  #replayed: number;

  /** Throws if the address or the token can never be used. */
  constructor(address: URL, token: string, timing: Timing, events: LineEvents) {
    this.#timing = timing;
    this.#events = events;
    this.#replayed = address.searchParams.has("last_message_id") ? Infinity : 0;
    this.#socket = new WebSocket(address.href, ["bearer", token]);
    this.#socket.onopen = () => this.#open();
    this.#socket.onmessage = ({ data }) => this.#hear(data);
    this.#socket.onclose = ({ code, reason }) => this.#lose(reason || this.#why, code);
    this.#deadline.set(timing.handshake, () => this.#lose(this.#why));
  }

  get #why(): string {
    return this.#openedAt === undefined ? "no connection can be made" : "the connection was lost";
  }

  /** Ends it; no event follows. */
  close(): void {
    for (const alarm of [this.#deadline, this.#settling, this.#quiet]) alarm.clear();
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }

  /** Offers another token. */
  renew(token: string): void {
    this.#socket.send(JSON.stringify({ token }));
  }

  /** Looks now whether it lives, as the page does when it wakes. */
  check(): void {
    if (this.#openedAt === undefined || this.#timing.heartbeat === 0) return;
    const left = this.#heardAt + this.#timing.silence - now();
    const grace = Math.max(left, LATE);
    const planned = now() + grace;
    this.#deadline.set(grace, () => {
      const late = now() - planned > LATE;
      if (late || this.#heardAt + this.#timing.silence > now()) this.check();
      else this.#lose("nothing was heard for too long");
    });
  }

  #open(): void {
    this.#openedAt = this.#heardAt = now();
    this.#deadline.clear();
    this.check();
    this.#settling.set(this.#timing.settle, () => this.#settle());
    this.#waitForQuiet();
  }

  #settle(): void {
    this.#settling.clear();
    if (this.#settled) return;
    this.#settled = true;
    this.#events.opened();
  }

  #lose(reason: string, code?: number): void {
    const opened = this.#openedAt !== undefined;
    const stable = this.#openedAt !== undefined && now() - this.#openedAt >= this.#timing.stable;
    this.close();
    this.#events.lost({ ...(code === undefined ? {} : { code }), reason, opened, stable });
  }

  #hear(data: unknown): void {
    this.#heardAt = now();
    const message = parse(data);
    this.#settle();
    if (message !== null) this.#take(message);
  }

  #take(message: Notification): void {
    const { recovered, missed } = message as { recovered?: unknown; missed?: unknown };
    if (typeof recovered === "boolean") this.#resume(recovered, missed);
    else if (message.event === "resync_required") this.#miss();
    else if (message.event === "token_accepted") this.#events.token(true);
    else if (message.event === "token_refused") this.#events.token(false);
    else if (message.event !== "heartbeat") this.#say(message);
  }

  #say(message: Notification): void {
    this.#events.said(message, !this.#replays());
  }

  /** What is missed may be told by a note among what is replayed. */
  #miss(): void {
    this.#replays();
    this.#events.missed();
  }

  /** Whether what comes now is replayed. */
  #replays(): boolean {
    if (this.#replayed === 0) return false;
    this.#replayed -= 1;
    this.#waitForQuiet();
    return true;
  }

  /** The gateway's answer to the last message that the page saw. */
  #resume(recovered: boolean, missed: unknown): void {
    this.#replayed = recovered ? (typeof missed === "number" ? missed : Infinity) : 0;
    this.#waitForQuiet();
    if (!recovered) this.#events.missed();
  }

  /** A gateway that does not say how much it replays does so at once: what comes later is news. */
  #waitForQuiet(): void {
    if (this.#replayed !== Infinity) this.#quiet.clear();
    else this.#quiet.set(this.#timing.settle, () => (this.#replayed = 0));
  }
}
