import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import {
  batch,
  end,
  FakeBrowser,
  type FakeServer,
  FakeSocket,
  Page,
  pass,
  setClock,
  settle,
  slot,
  start,
} from "./support.js";

let server: FakeServer;
let browser: FakeBrowser;
beforeEach(() => {
  server = start();
  browser = new FakeBrowser();
});
afterEach(end);

const poll = { url: "https://app.example.com", batchIds: ["batch"] };

async function open(page: Page): Promise<Page> {
  await settle();
  FakeSocket.last.open();
  await settle();
  return page;
}

describe("a socket on which nothing is heard", () => {
  it("is given up after its deadline, and replaced", async () => {
    const page = await open(new Page());
    const dead = FakeSocket.last;
    pass(24_000);
    assert.equal(page.connection.status.state, "open");
    pass(1_000);
    assert.ok(dead.closed);
    assert.equal(page.connection.status.reason, "nothing was heard for too long");
    pass(250);
    await settle();
    assert.equal(FakeSocket.all.length, 2);
  });

  it("lives as long as the gateway breaks the silence", async () => {
    const page = await open(new Page());
    for (let beat = 0; beat < 100; beat += 1) {
      pass(15_000);
      FakeSocket.last.say({ event: "heartbeat" });
    }
    assert.equal(FakeSocket.all.length, 1);
    assert.deepEqual(page.events, []);
  });

  it("may be silent where no heartbeat is asked for", async () => {
    await open(new Page({ timing: { heartbeat: 0 } }));
    pass(1_000_000);
    assert.equal(FakeSocket.all.length, 1);
    assert.equal(FakeSocket.last.url, "wss://ws.example.com/ws");
  });

  for (const hours of [-30, 30]) {
    it(`is found by waits, not by a clock that is set by ${hours} hours`, async () => {
      const page = await open(new Page());
      pass(20_000);
      setClock(hours * 3_600_000);
      browser.tell("pageshow");
      pass(4_000);
      assert.equal(page.connection.status.state, "open");
      pass(1_000);
      assert.equal(page.connection.status.state, "connecting");
    });
  }

  for (const moment of ["pageshow", "resume", "visibilitychange"]) {
    it(`is found within a second when the page wakes (${moment})`, async () => {
      const page = await open(new Page());
      browser.document.visibilityState = "hidden";
      // Timers of a page that sleeps do not ring: only its clock goes on.
      const { now } = performance;
      performance.now = () => now.call(performance) + 60_000;
      if (moment === "visibilitychange") browser.show();
      else browser.tell(moment);
      pass(999);
      assert.equal(page.connection.status.state, "open");
      pass(1);
      assert.equal(page.connection.status.state, "connecting");
      performance.now = now;
    });
  }

  it("is kept when what was said meanwhile comes with the waking", async () => {
    const page = await open(new Page());
    const { now } = performance;
    performance.now = () => now.call(performance) + 60_000;
    browser.tell("pageshow");
    FakeSocket.last.say(slot(1));
    pass(1_000);
    assert.equal(page.connection.status.state, "open");
    assert.deepEqual(page.slots, ["upload-1"]);
    performance.now = now;
  });
});

describe("a page that freezes", () => {
  for (const [moment, more] of [
    ["freeze", {}],
    ["pagehide", { persisted: true }],
  ] as const) {
    it(`leaves its socket (${moment}), and goes on from its last message`, async () => {
      const page = await open(new Page());
      FakeSocket.last.say(slot(1));
      const left = FakeSocket.last;
      browser.tell(moment, more);
      assert.ok(left.closed);
      browser.tell("pageshow", { persisted: true });
      pass(250);
      await settle();
      assert.equal(FakeSocket.last.asks["last_message_id"], "message-1");
      FakeSocket.last.open();
      assert.equal(page.connection.status.state, "open");
    });
  }

  it("is not one that goes for good", async () => {
    await open(new Page());
    browser.tell("pagehide", { persisted: false });
    assert.ok(!FakeSocket.last.closed);
  });
});

describe("the network", () => {
  it("that goes takes the socket with it", async () => {
    const page = await open(new Page());
    browser.tell("offline");
    assert.ok(FakeSocket.last.closed);
    assert.equal(page.connection.status.reason, "the network is gone");
  });

  it("that comes back is used within half a second", async () => {
    await open(new Page());
    const first = FakeSocket.last;
    browser.tell("online");
    assert.ok(first.closed);
    pass(500);
    await settle();
    assert.equal(FakeSocket.all.length, 2);
  });

  it("is listened to no more once the page has closed the connection", async () => {
    const page = await open(new Page());
    page.connection.close();
    browser.tell("online");
    browser.tell("pageshow");
    pass(10_000);
    await settle();
    assert.equal(FakeSocket.all.length, 1);
    page.connection.reconnect();
    await settle();
    assert.equal(page.connection.status.state, "stopped");
    assert.equal(FakeSocket.all.length, 1);
  });
});

describe("a page that nobody sees", () => {
  it("asks nothing, and asks when it is seen", async () => {
    server.answers.set("batch", batch(1));
    const page = new Page({ poll });
    await settle();
    browser.hide();
    FakeSocket.last.drop();
    for (let second = 0; second < 120; second += 1) {
      pass(1_000);
      await settle();
    }
    assert.deepEqual(server.asked, []);
    assert.ok(FakeSocket.all.length > 3);
    browser.show();
    pass(0);
    await settle();
    assert.equal(server.asked.length, 1);
    assert.deepEqual(page.slots, ["upload-1"]);
  });

  it("owes a resync until it is seen", async () => {
    const page = await open(new Page({ poll, lastMessageId: "earlier" }));
    for (let second = 0; second < 40; second += 1) {
      pass(1_000);
      await settle();
      FakeSocket.last.say({ event: "heartbeat" });
    }
    const before = server.asked.length;
    browser.hide();
    FakeSocket.last.say({ event: "resync_required" });
    pass(20_000);
    await settle();
    assert.deepEqual([server.asked.length, page.resyncs], [before, 0]);
    browser.show();
    pass(0);
    await settle();
    assert.deepEqual([server.asked.length, page.resyncs], [before + 1, 1]);
  });

  it("is told of what comes over the socket nevertheless", async () => {
    const page = await open(new Page());
    browser.hide();
    FakeSocket.last.say(slot(1));
    assert.deepEqual(page.slots, ["upload-1"]);
  });

  it("does not wait for the next attempt once it is seen", async () => {
    await open(new Page());
    for (let failure = 0; failure < 8; failure += 1) {
      FakeSocket.last.drop();
      pass(30_000);
      await settle();
    }
    FakeSocket.last.drop();
    const sockets = FakeSocket.all.length;
    browser.hide();
    browser.show();
    pass(500);
    await settle();
    assert.equal(FakeSocket.all.length, sockets + 1);
  });
});
