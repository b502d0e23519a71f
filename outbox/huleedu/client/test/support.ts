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
  closed = false;

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

  /** The gateway accepts, and does not close at once. */
  open(): this {
    this.onopen?.();
    pass(200);
    return this;
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
  asked: { url: string; authorization: string | null }[] = [];

  fetch = async (url: string, init: RequestInit): Promise<Response> => {
    this.asked.push({ url, authorization: new Headers(init.headers).get("Authorization") });
    const batchId = decodeURIComponent(url.split("/").at(-2) ?? "");
    if (this.status !== 200) return new Response("", { status: this.status });
    const answer = this.answers.get(batchId);
    return answer ? Response.json(answer) : new Response("", { status: 404 });
  };
}

/** What a page was told. */
export class Page {
  statuses: Status[] = [];
  events: Notification[] = [];
  slots: string[] = [];
  resyncs = 0;
  readonly connection: Connection;

  constructor(options: Partial<ConnectOptions> = {}) {
    this.connection = connect({
      url: "wss://ws.example.com/ws",
      token: "the-token",
      onStatus: (status) => this.statuses.push(status),
      onEvent: (message) => this.events.push(message),
      onSlotAssigned: (data) => this.slots.push(data.file_upload_id),
      onResync: () => {
        this.resyncs += 1;
      },
      ...options,
    });
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

export function start(): FakeServer {
  const server = new FakeServer();
  FakeSocket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => 0.5);
  Object.assign(globalThis, { WebSocket: FakeSocket, fetch: server.fetch });
  return server;
}

export function end(): void {
  mock.timers.reset();
  mock.restoreAll();
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
