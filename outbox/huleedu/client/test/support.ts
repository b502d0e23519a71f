/** A browser in which nothing happens by itself: sockets, servers and time obey the test. */

import { mock } from "node:test";
import {
  type Connection,
  type ConnectOptions,
  connect,
  type Notification,
  type Status,
} from "../src/client.js";

/** A WebSocket whose other side is the test. */
export class FakeSocket {
  static all: FakeSocket[] = [];

  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  opened = false;
  closed = false;
  sent: unknown[] = [];

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    FakeSocket.all.push(this);
  }

  static get last(): FakeSocket {
    const socket = FakeSocket.all.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  /** What the address asks for. */
  get asks(): Record<string, string> {
    return Object.fromEntries(new URL(this.url).searchParams);
  }

  /** The gateway accepts, and does not close at once. */
  open(): this {
    this.opened = true;
    this.onopen?.();
    pass(200);
    return this;
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  say(message: unknown): void {
    this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  drop(code = 1006, reason = ""): void {
    this.onclose?.({ code, reason });
  }

  close(): void {
    this.closed = true;
    this.drop();
  }
}

/** What the page's server answers, by batch, and what it was asked. */
export class FakeServer {
  answers = new Map<string, unknown>();
  status = 200;
  headers: Record<string, string> = {};
  hangs = false;
  asked: { url: string; authorization: string | null }[] = [];

  fetch = async (url: string, init: RequestInit): Promise<Response> => {
    this.asked.push({ url, authorization: new Headers(init.headers).get("Authorization") });
    const batchId = decodeURIComponent(url.split("/").at(-2) ?? "");
    const { signal } = init;
    if (this.hangs && signal) {
      return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    }
    if (this.status !== 200) return new Response("", { status: this.status, headers: this.headers });
    const answer = this.answers.get(batchId);
    if (typeof answer === "string") return new Response(answer);
    return answer ? Response.json(answer) : new Response("", { status: 404 });
  };
}

/** Whether somebody looks, and what the browser tells its pages. */
export class FakeBrowser {
  readonly document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  readonly #window = new EventTarget();

  constructor() {
    const window = this.#window;
    Object.assign(globalThis, {
      document: this.document,
      addEventListener: window.addEventListener.bind(window),
    });
  }

  hide(): void {
    this.document.visibilityState = "hidden";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  show(): void {
    this.document.visibilityState = "visible";
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  /** Tell the page of this: `freeze` and `resume` are the document's, the others the window's. */
  tell(name: string, more: object = {}): void {
    const target = name === "freeze" || name === "resume" ? this.document : this.#window;
    target.dispatchEvent(Object.assign(new Event(name), more));
  }
}

/** What a page was told. */
export class Page {
  static all: Page[] = [];

  statuses: Status[] = [];
  events: Notification[] = [];
  slots: string[] = [];
  /** How each slot was learnt. */
  hows: string[] = [];
  resyncs = 0;
  readonly connection: Connection;

  constructor(options: Partial<ConnectOptions> = {}) {
    this.connection = connect({
      url: "wss://ws.example.com/ws",
      token: "the-token",
      onStatus: (status) => this.statuses.push(status),
      onEvent: (message) => this.events.push(message),
      onSlotAssigned: (data, { live, recovered }) => {
        this.slots.push(data.file_upload_id);
        this.hows.push(live ? "live" : recovered ? "recovered" : "before");
      },
      onResync: () => {
        this.resyncs += 1;
      },
      ...options,
    });
    Page.all.push(this);
  }

  get states(): string[] {
    return this.statuses.map(({ state }) => state);
  }
}

/** Let so many milliseconds pass. */
export function pass(milliseconds: number): void {
  mock.timers.tick(milliseconds);
}

/** Let everything happen that needs no time to pass. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** Set the clock on the wall, by so many milliseconds; what measures waits goes on as before. */
export function setClock(milliseconds: number): void {
  const { now } = Date;
  mock.method(Date, "now", () => now.call(Date) + milliseconds);
}

export function start(): FakeServer {
  const server = new FakeServer();
  FakeSocket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  const { now } = Date;
  mock.method(performance, "now", () => now.call(Date));
  mock.method(Math, "random", () => 0.5);
  Object.assign(globalThis, { WebSocket: FakeSocket, fetch: server.fetch });
  return server;
}

export function end(): void {
  for (const page of Page.all.splice(0)) page.connection.close();
  mock.timers.reset();
  mock.restoreAll();
  for (const name of ["document", "addEventListener"]) Reflect.deleteProperty(globalThis, name);
}

/** A token that says of itself how many seconds it is good for, by an issuer's clock that may be wrong. */
export function jwt(seconds: number, issued = 1_000_000, name = ""): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256" })}.${part({ sub: name, iat: issued, exp: issued + seconds })}.signature`;
}

export function slot(number: number): Notification {
  return {
    event: "essay_slot_assigned",
    message_id: `message-${number}`,
    timestamp: "2025-07-24T10:30:00Z",
    data: {
      batch_id: "batch",
      essay_id: `essay-${number}`,
      file_upload_id: `upload-${number}`,
      filename: null,
      slot_index: number,
      text_storage_id: "text",
      timestamp: "2025-07-24T10:30:00Z",
    },
  };
}

export function batch(...slots: number[]): unknown {
  const filled = slots.map((number) => ({
    essay_id: `essay-${number}`,
    file_upload_id: `upload-${number}`,
    slot_index: number,
    last_updated: "2025-07-24T10:30:00Z",
  }));
  const empty = {
    essay_id: "essay-99",
    file_upload_id: null,
    slot_index: 99,
    last_updated: "2025-07-24T10:30:00Z",
  };
  return {
    batch_id: "batch",
    overall_status: "pending_content",
    essay_count: 100,
    essays: [...filled, empty],
  };
}
