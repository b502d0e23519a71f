import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it, mock } from "node:test";
import { end, FakeSocket, Page, pass, settle, slot, start } from "./support.js";

beforeEach(start);
afterEach(end);

describe("connecting", () => {
  it("offers the token as a subprotocol, and is open once the gateway keeps the socket", async () => {
    const page = new Page();
    await settle();
    assert.equal(FakeSocket.last.url, "wss://ws.example.com/ws?heartbeat=15");
    assert.deepEqual(FakeSocket.last.protocols, ["bearer", "the-token"]);
    FakeSocket.last.onopen?.();
    assert.deepEqual(page.states, ["connecting"]);
    pass(200);
    assert.deepEqual(page.states, ["connecting", "open"]);
    assert.deepEqual(page.connection.status, { state: "open", reason: "connected" });
  });

  it("asks for the state when there is no message to go on from", async () => {
    const page = new Page();
    await settle();
    FakeSocket.last.open();
    pass(0);
    assert.equal(page.resyncs, 1);
  });

  it("goes on from the last message of an earlier connection", async () => {
    const page = new Page({ url: "https://ws.example.com/ws?x=1", lastMessageId: "earlier" });
    await settle();
    assert.equal(FakeSocket.last.url, "wss://ws.example.com/ws?x=1&heartbeat=15&last_message_id=earlier");
    FakeSocket.last.open();
    assert.equal(page.resyncs, 0);
    assert.equal(page.connection.lastMessageId, "earlier");
  });

  it("gives an attempt up that takes too long", async () => {
    const page = new Page();
    await settle();
    const first = FakeSocket.last;
    pass(10_000);
    assert.ok(first.closed);
    assert.equal(page.connection.status.reason, "no connection can be made");
  });

  it("fails at once when the address is none", () => {
    assert.throws(() => new Page({ url: "http://[" }), TypeError);
  });

  it("goes on asking where the page may open no socket", async () => {
    class Forbidden {
      constructor() {
        throw new Error("a secure page opens no insecure socket");
      }
    }
    Object.assign(globalThis, { WebSocket: Forbidden });
    const page = new Page();
    await settle();
    assert.equal(page.connection.status.state, "connecting");
    pass(2_500);
    assert.equal(page.connection.status.state, "polling");
  });
});

describe("messages", () => {
  it("reach the page, each once", async () => {
    const page = new Page();
    await settle();
    FakeSocket.last.open();
    for (const message of [slot(1), slot(2), slot(1), { event: "other", data: 1 }])
      FakeSocket.last.say(message);
    assert.deepEqual(
      page.events.map(({ event }) => event),
      ["essay_slot_assigned", "essay_slot_assigned", "other"],
    );
    assert.deepEqual(page.slots, ["upload-1", "upload-2"]);
    assert.equal(page.connection.lastMessageId, "message-2");
  });

  it("may be anything", async () => {
    const page = new Page();
    await settle();
    FakeSocket.last.open();
    for (const text of ["", "no JSON", "[]", "null", "{}", '{"event":1}', '{"event":"x","message_id":1}']) {
      FakeSocket.last.say(text);
    }
    assert.deepEqual(page.events, []);
    FakeSocket.last.say({ event: "essay_slot_assigned", data: { batch_id: "batch" } });
    assert.equal(page.events.length, 1);
    assert.deepEqual(page.slots, []);
  });

  it("may say that some were missed", async () => {
    const page = new Page({ lastMessageId: "earlier" });
    await settle();
    FakeSocket.last.open().say({ event: "resync_required" });
    pass(10_000);
    assert.ok(page.resyncs > 0);
    assert.deepEqual(page.events, []);
  });

  it("prove that the socket is open before it has settled", async () => {
    const page = new Page({ lastMessageId: "earlier" });
    await settle();
    FakeSocket.last.onopen?.();
    FakeSocket.last.say(slot(1));
    assert.deepEqual(page.states, ["connecting", "open"]);
  });

  it("are not lost when the page's handler fails", async () => {
    const reported: unknown[] = [];
    mock.method(globalThis, "queueMicrotask", (callback: () => void) => reported.push(callback));
    const slots: string[] = [];
    const page = new Page({
      onEvent: () => {
        throw new Error("the page's own");
      },
      onSlotAssigned: (data) => slots.push(data.file_upload_id),
    });
    (reported.shift() as () => void)();
    await settle();
    FakeSocket.last.open().say(slot(1));
    assert.deepEqual(slots, ["upload-1"]);
    assert.equal(page.connection.status.state, "open");
    assert.throws(reported[0] as () => void, /the page's own/);
  });
});

describe("reconnecting", () => {
  it("brings what came after the last message", async () => {
    const page = new Page();
    await settle();
    FakeSocket.last.open().say(slot(1));
    pass(0);
    FakeSocket.last.drop(1001, "the server goes away");
    assert.deepEqual(page.connection.status, {
      state: "connecting",
      reason: "the server goes away",
      code: 1001,
    });
    pass(2_500);
    await settle();
    assert.equal(FakeSocket.all.length, 2);
    assert.equal(FakeSocket.last.asks["last_message_id"], "message-1");
    FakeSocket.last.open();
    assert.deepEqual(page.states, ["connecting", "open", "connecting", "open"]);
  });

  it("waits longer and longer, at random", async () => {
    new Page();
    await settle();
    const waits = [];
    for (let failure = 0; failure < 9; failure += 1) {
      const sockets = FakeSocket.all.length;
      FakeSocket.last.drop();
      let waited = 0;
      while (FakeSocket.all.length === sockets) {
        pass(250);
        await settle();
        waited += 250;
      }
      waits.push(waited);
    }
    assert.deepEqual(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
  });

  it("starts over only after a connection that held", async () => {
    new Page();
    await settle();
    for (const failure of [1, 2]) {
      FakeSocket.last.open().drop(1013, "overloaded");
      pass(250 * failure);
      await settle();
    }
    assert.equal(FakeSocket.all.length, 3);
    FakeSocket.last.open();
    pass(5_000);
    FakeSocket.last.drop();
    pass(250);
    await settle();
    assert.equal(FakeSocket.all.length, 4);
  });
});

describe("closing", () => {
  it("is for good", async () => {
    const page = new Page();
    await settle();
    const socket = FakeSocket.last.open();
    page.connection.close();
    page.connection.close();
    assert.ok(socket.closed);
    assert.deepEqual(page.states, ["connecting", "open", "stopped"]);
    assert.equal(page.connection.status.reason, "closed by the page");
    pass(100_000);
    await settle();
    assert.equal(FakeSocket.all.length, 1);
  });

  for (const callback of ["onStatus", "onResync", "onEvent", "onSlotAssigned"] as const) {
    it(`may be done in ${callback}, which is the last one called`, async () => {
      const called: string[] = [];
      const note = (name: string) => (): void => {
        called.push(name);
        if (name === callback) page.connection.close();
      };
      const page = new Page({
        poll: { url: "https://app.example.com", batchIds: ["batch"] },
        onResync: note("onResync"),
        onEvent: note("onEvent"),
        onSlotAssigned: note("onSlotAssigned"),
        onStatus: ({ state }) => {
          if (state === "open") note("onStatus")();
        },
      });
      await settle();
      const socket = FakeSocket.last;
      socket.onopen?.();
      socket.say(slot(1));
      socket.say(slot(2));
      pass(100_000);
      await settle();
      assert.equal(called.at(-1), callback);
      assert.equal(page.connection.status.state, "stopped");
      assert.equal(FakeSocket.all.length, 1);
    });
  }

  for (const code of [1006, 4401]) {
    it(`may be done when the connection is lost with ${code}`, async () => {
      let lost = false;
      const page = new Page({
        token: async () => "fresh",
        poll: { url: "https://app.example.com", batchIds: ["batch"] },
        onStatus: () => {
          if (lost) page.connection.close();
        },
      });
      await settle();
      FakeSocket.last.open();
      lost = true;
      FakeSocket.last.drop(code);
      pass(100_000);
      await settle();
      assert.equal(page.connection.status.state, "stopped");
      assert.equal(FakeSocket.all.length, 1);
    });
  }

  it("may come before anything else", async () => {
    const page = new Page();
    page.connection.close();
    await settle();
    assert.equal(FakeSocket.all.length, 0);
    assert.deepEqual(page.states, ["stopped"]);
  });
});
