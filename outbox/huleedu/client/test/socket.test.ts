import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it, mock } from "node:test";
import { end, FakeSocket, Page, pass, settle, slot, start } from "./support.js";

beforeEach(start);
afterEach(end);

describe("connecting", () => {
  it("offers the token as a subprotocol, and is open once the gateway keeps the socket", async () => {
    const page = new Page();
    await settle();
    assert.equal(FakeSocket.last.url, "wss://ws.example.com/ws");
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
    assert.equal(page.resyncs, 1);
  });

  it("goes on from the last message of an earlier connection", async () => {
    const page = new Page({ url: "https://ws.example.com/ws?x=1", lastMessageId: "earlier" });
    await settle();
    assert.equal(FakeSocket.last.url, "wss://ws.example.com/ws?x=1&last_message_id=earlier");
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

  it("stops when the address can never work", async () => {
    const page = new Page({ url: "http://[" });
    await settle();
    assert.equal(page.connection.status.state, "stopped");
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
    assert.equal(page.resyncs, 1);
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
    FakeSocket.last.drop(1001, "the server goes away");
    assert.deepEqual(page.connection.status, {
      state: "connecting",
      reason: "the server goes away",
      code: 1001,
    });
    pass(250);
    await settle();
    assert.equal(FakeSocket.all.length, 2);
    assert.ok(FakeSocket.last.url.endsWith("?last_message_id=message-1"));
    FakeSocket.last.open();
    assert.deepEqual(page.states, ["connecting", "open", "connecting", "open"]);
    assert.equal(page.resyncs, 1);
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

  it("happens at once when the network comes back", async () => {
    const listeners = new Map<string, () => void>();
    Object.assign(globalThis, {
      addEventListener: (name: string, listener: () => void) => listeners.set(name, listener),
      removeEventListener: (name: string) => listeners.delete(name),
    });
    const page = new Page();
    await settle();
    const first = FakeSocket.last.open();
    listeners.get("online")?.();
    await settle();
    assert.ok(first.closed);
    assert.equal(FakeSocket.all.length, 2);
    page.connection.close();
    assert.equal(listeners.size, 0);
  });
});

describe("tokens", () => {
  const expired: [number, string] = [4401, "token expired"];

  it("are asked for once more when refused, and then no more", async () => {
    const asked: string[] = [];
    const page = new Page({
      token: () => {
        asked.push("");
        return `token-${asked.length}`;
      },
    });
    await settle();
    FakeSocket.last.onopen?.();
    FakeSocket.last.drop(...expired);
    await settle();
    assert.deepEqual(FakeSocket.last.protocols, ["bearer", "token-2"]);
    FakeSocket.last.onopen?.();
    FakeSocket.last.drop(...expired);
    await settle();
    assert.deepEqual(page.connection.status, { state: "stopped", reason: "token expired", code: 4401 });
    pass(100_000);
    await settle();
    assert.equal(FakeSocket.all.length, 2);
  });

  it("may expire again and again while they are good in between", async () => {
    const page = new Page({ token: async () => "fresh" });
    await settle();
    for (let hour = 0; hour < 3; hour += 1) {
      FakeSocket.last.open();
      pass(3_600_000);
      FakeSocket.last.drop(...expired);
      await settle();
    }
    assert.equal(FakeSocket.all.length, 4);
    assert.equal(page.connection.status.state, "connecting");
  });

  it("that are fixed cannot be renewed", async () => {
    const page = new Page();
    await settle();
    FakeSocket.last.drop(...expired);
    assert.equal(page.connection.status.state, "stopped");
  });

  it("that cannot be had now are asked for later", async () => {
    let tries = 0;
    const page = new Page({
      token: () => {
        tries += 1;
        if (tries === 1) throw new Error("offline");
        return "late";
      },
    });
    await settle();
    assert.equal(page.connection.status.reason, "no token could be had: Error: offline");
    pass(250);
    await settle();
    assert.deepEqual(FakeSocket.last.protocols, ["bearer", "late"]);
  });

  it("that come after the end open nothing", async () => {
    let give: (token: string) => void = () => {};
    const page = new Page({
      token: () =>
        new Promise((resolve) => {
          give = resolve;
        }),
    });
    await settle();
    page.connection.close();
    give("late");
    await settle();
    assert.equal(FakeSocket.all.length, 0);
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
