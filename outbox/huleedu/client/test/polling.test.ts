import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it, mock } from "node:test";
import type { PollOptions } from "../src/client.js";
import { batch, end, type FakeServer, FakeSocket, Page, pass, settle, slot, start } from "./support.js";

let server: FakeServer;
beforeEach(() => {
  server = start();
});
afterEach(end);

const poll: PollOptions = { url: "https://app.example.com/", batchIds: ["batch"] };

async function withoutASocket(page: Page): Promise<Page> {
  await settle();
  FakeSocket.last.drop(1013, "live updates are not available");
  pass(2_500);
  await settle();
  return page;
}

/** Let so many seconds pass, on a socket that is alive if there is one. */
async function seconds(count: number): Promise<void> {
  for (let second = 0; second < count; second += 1) {
    pass(1_000);
    await settle();
    if (FakeSocket.last.opened) FakeSocket.last.say({ event: "heartbeat" });
  }
}

/** A page of which all that was owed at its beginning has been asked. */
async function open(page: Page): Promise<Page> {
  await settle();
  FakeSocket.last.open();
  if (server.answers.size === 0) server.answers.set("batch", batch());
  await seconds(31);
  server.asked.length = 0;
  return page;
}

describe("while there is no socket", () => {
  it("asks the page's server with the user's token", async () => {
    server.answers.set("batch", batch(1, 2));
    const seen: string[] = [];
    const page = await withoutASocket(
      new Page({ poll: { ...poll, onBatch: ({ overall_status }) => seen.push(overall_status) } }),
    );
    assert.deepEqual(server.asked, [
      { url: "https://app.example.com/v1/batches/batch/status", authorization: "Bearer the-token" },
    ]);
    assert.deepEqual(page.slots, ["upload-1", "upload-2"]);
    assert.deepEqual(seen, ["pending_content"]);
    assert.deepEqual(page.connection.status, {
      state: "polling",
      reason: "live updates are not available",
      code: 1013,
    });
  });

  it("asks again and again, and tells of each slot once", async () => {
    server.answers.set("batch", batch(1));
    const page = await withoutASocket(new Page({ poll }));
    for (const slots of [
      [1, 2],
      [1, 2, 3],
      [1, 2, 3],
    ]) {
      server.answers.set("batch", batch(...slots));
      pass(3_000);
      await settle();
    }
    assert.equal(server.asked.length, 4);
    assert.deepEqual(page.slots, ["upload-1", "upload-2", "upload-3"]);
  });

  it("keeps trying to connect, and asks no more once it has, but for what is owed", async () => {
    server.answers.set("batch", batch(1));
    const page = await withoutASocket(new Page({ poll, lastMessageId: "earlier" }));
    await settle();
    assert.equal(FakeSocket.all.length, 2);
    FakeSocket.last.open().say(slot(1));
    FakeSocket.last.say(slot(2));
    assert.deepEqual(page.slots, ["upload-1", "upload-2"]);
    assert.deepEqual(page.states, ["connecting", "connecting", "polling", "open"]);
    await seconds(31);
    const owed = server.asked.length;
    await seconds(60);
    assert.equal(server.asked.length, owed);
  });

  it("does not ask when the socket is back soon", async () => {
    await open(new Page({ poll, lastMessageId: "earlier" }));
    FakeSocket.last.drop();
    pass(250);
    await settle();
    FakeSocket.last.open();
    await seconds(60);
    assert.deepEqual(server.asked, []);
  });

  it("gives a gateway that restarts time to come back", async () => {
    await open(new Page({ poll, lastMessageId: "earlier" }));
    FakeSocket.last.drop(1001, "the server goes away");
    for (let attempt = 0; attempt < 5; attempt += 1) {
      pass(2_500);
      await settle();
      FakeSocket.last.drop();
    }
    assert.deepEqual(server.asked, []);
    pass(12_500);
    await settle();
    assert.equal(server.asked.length, 1);
  });

  it("asks for the batches of the moment, whatever they are called", async () => {
    const batchIds: string[] = [];
    await withoutASocket(new Page({ poll: { ...poll, batchIds: () => batchIds } }));
    batchIds.push("a/b?c");
    pass(3_000);
    await settle();
    assert.deepEqual(
      server.asked.map(({ url }) => url),
      ["https://app.example.com/v1/batches/a%2Fb%3Fc/status"],
    );
  });

  it("waits for a batch that is not known yet, and tells of its slots as news", async () => {
    const page = await withoutASocket(new Page({ poll }));
    assert.equal(page.connection.status.reason, "live updates are not available");
    server.answers.set("batch", batch(1));
    await seconds(6);
    assert.deepEqual(page.hows, ["recovered"]);
  });

  it("says when asking fails too, and goes on, less and less often", async () => {
    server.status = 503;
    const page = await withoutASocket(new Page({ poll }));
    assert.equal(
      page.connection.status.reason,
      "live updates are not available; asking: the server answered 503",
    );
    await seconds(120);
    assert.ok(server.asked.length < 10);
    server.status = 200;
    await seconds(46);
    assert.equal(page.connection.status.reason, "no connection can be made");
  });

  for (const [form, wait] of [
    ["120", 120],
    [new Date(120_000).toUTCString(), 120],
    ["never", 0],
  ] as const) {
    it(`waits as long as the server says (Retry-After: ${form})`, async () => {
      server.status = 503;
      server.headers = { "Retry-After": form, Date: new Date(0).toUTCString() };
      await withoutASocket(new Page({ poll }));
      server.status = 200;
      server.answers.set("batch", batch(1));
      await seconds(wait - 1);
      assert.equal(server.asked.length, 1);
      await seconds(5);
      assert.ok(server.asked.length > 1);
    });
  }

  it("gives a question up that is not answered in time", async () => {
    server.hangs = true;
    const page = await withoutASocket(new Page({ poll }));
    await seconds(10);
    assert.match(page.connection.status.reason, /asking: Error: there was no answer within 10 s/);
    server.hangs = false;
    server.answers.set("batch", batch(1));
    await seconds(5);
    assert.deepEqual(page.slots, ["upload-1"]);
  });

  for (const instead of [
    "<!doctype html>Sign in to the network",
    "null",
    "[]",
    '{"batch_id":1}',
    '{"batch_id":"batch","essays":[null]}',
  ]) {
    it(`is not misled by a network that answers ${instead}`, async () => {
      server.answers.set("batch", instead);
      const page = await withoutASocket(new Page({ poll }));
      assert.match(page.connection.status.reason, /; asking: /);
      server.answers.set("batch", batch(1));
      await seconds(5);
      assert.deepEqual(page.slots, ["upload-1"]);
    });
  }

  it("gives up a batch that the server goes on refusing, and no other", async () => {
    const refused: unknown[] = [];
    const { fetch } = server;
    globalThis.fetch = (async (url: string, init: RequestInit) => {
      const answer = await fetch(url, init);
      return url.includes("another") ? new Response("", { status: 403 }) : answer;
    }) as typeof globalThis.fetch;
    server.answers.set("batch", batch(1));
    const page = await withoutASocket(
      new Page({
        poll: { ...poll, batchIds: ["another", "batch"], onRefused: (...why) => refused.push(why) },
      }),
    );
    const asked = (name: string): number => server.asked.filter(({ url }) => url.includes(name)).length;
    await seconds(60);
    assert.equal(asked("another"), 3);
    assert.deepEqual(refused, [["another", 403]]);
    assert.ok(asked("/batch/") > 10);
    assert.equal(page.connection.status.reason, "no connection can be made");
    page.connection.reconnect();
    await seconds(10);
    assert.ok(asked("another") > 3);
  });

  it("does not take 401, 404, 408 and 429 for the last word", async () => {
    const page = await withoutASocket(new Page({ poll }));
    for (const status of [401, 404, 408, 429]) {
      server.status = status;
      await seconds(120);
    }
    server.status = 200;
    server.answers.set("batch", batch(1));
    await seconds(45);
    assert.deepEqual(page.slots, ["upload-1"]);
  });

  it("hardly asks for a batch that never comes to be known", async () => {
    await withoutASocket(new Page({ poll }));
    await seconds(1_000);
    server.asked.length = 0;
    await seconds(3_000);
    assert.ok(server.asked.length <= 11, String(server.asked.length));
  });

  it("does not ask when the page closes the connection as it hears of it", async () => {
    const page = new Page({
      poll,
      onStatus: ({ state }) => {
        if (state === "polling") page.connection.close();
      },
    });
    await withoutASocket(page);
    assert.equal(page.connection.status.state, "stopped");
    assert.deepEqual(server.asked, []);
  });

  it("stops asking when the page closes the connection", async () => {
    const page = await withoutASocket(new Page({ poll }));
    page.connection.close();
    pass(60_000);
    await settle();
    assert.equal(server.asked.length, 1);
  });
});

describe("when something may have been missed", () => {
  it("asks, and again after 2, 10 and 30 seconds, since the server may lag", async () => {
    const page = await open(new Page({ poll, lastMessageId: "earlier" }));
    FakeSocket.last.say({ event: "resync_required" });
    const when: number[] = [];
    for (let second = 1; second <= 60; second += 1) {
      const before = server.asked.length;
      await seconds(1);
      if (server.asked.length > before) when.push(second);
    }
    const [first = 0, ...again] = when;
    assert.ok(first <= 10);
    assert.deepEqual(
      again.map((second) => second - first),
      [2, 10, 30],
    );
    assert.equal(page.resyncs, 1);
  });

  it("tells a page without a server to ask as often", async () => {
    const page = await open(new Page({ lastMessageId: "earlier" }));
    FakeSocket.last.say({ event: "resync_required" });
    await seconds(60);
    assert.equal(page.resyncs, 4);
  });

  it("shows what a server that lagged had not known", async () => {
    server.answers.set("batch", batch(1));
    const page = await open(new Page({ poll, lastMessageId: "earlier" }));
    FakeSocket.last.say({ event: "resync_required" });
    await seconds(8);
    server.answers.set("batch", batch(1, 2));
    await seconds(10);
    assert.deepEqual(page.slots, ["upload-1", "upload-2"]);
    assert.deepEqual(page.hows, ["before", "recovered"]);
  });

  for (const trouble of [404, 502]) {
    it(`asks until it has an answer, which ${trouble} is not`, async () => {
      const page = await open(new Page({ poll, lastMessageId: "earlier" }));
      server.status = trouble;
      FakeSocket.last.say({ event: "resync_required" });
      await seconds(100);
      assert.ok(server.asked.length > 4);
      server.status = 200;
      server.answers.set("batch", batch(1));
      await seconds(46);
      assert.deepEqual(page.slots, ["upload-1"]);
    });
  }

  it("does not forget it when the socket is lost and comes back meanwhile", async () => {
    const page = await open(new Page({ poll, lastMessageId: "earlier" }));
    server.status = 502;
    FakeSocket.last.say({ event: "resync_required" });
    await seconds(6);
    FakeSocket.last.drop();
    await seconds(1);
    FakeSocket.last.open();
    server.status = 200;
    server.answers.set("batch", batch(1));
    await seconds(35);
    assert.equal(page.connection.status.state, "open");
    assert.deepEqual(page.slots, ["upload-1"]);
  });

  it("does not forget it while it polls", async () => {
    const page = await open(new Page({ poll, lastMessageId: "earlier" }));
    FakeSocket.last.say({ event: "resync_required" });
    FakeSocket.last.drop(1013, "live updates are not available");
    server.status = 502;
    pass(5_000);
    await settle();
    assert.equal(page.connection.status.state, "polling");
    pass(500);
    await settle();
    FakeSocket.last.open();
    server.status = 200;
    server.answers.set("batch", batch(1));
    await seconds(35);
    assert.deepEqual(page.slots, ["upload-1"]);
  });

  it("asks at a random moment, so that not all pages do at once", async () => {
    const moments = new Set<number>();
    for (const random of [0, 0.3, 0.6, 0.9]) {
      const page = await open(new Page({ poll, lastMessageId: "earlier" }));
      mock.method(Math, "random", () => random);
      FakeSocket.last.say({ event: "resync_required" });
      let waited = 0;
      while (page.resyncs === 0) {
        await seconds(1);
        waited += 1;
      }
      moments.add(waited);
      page.connection.close();
      mock.method(Math, "random", () => 0.5);
    }
    assert.deepEqual([...moments], [1, 3, 6, 9]);
  });
});

describe("how something was learnt", () => {
  it("is told of each slot: before the page looked, as it happened, or later", async () => {
    server.answers.set("batch", batch(1, 2));
    const page = new Page({ poll });
    await settle();
    FakeSocket.last.open();
    pass(0);
    await settle();
    FakeSocket.last.say(slot(3));
    FakeSocket.last.drop();
    pass(250);
    await settle();
    FakeSocket.last.onopen?.();
    FakeSocket.last.say({ event: "resumed", recovered: true, missed: 1 });
    FakeSocket.last.say(slot(4));
    FakeSocket.last.say(slot(5));
    server.answers.set("batch", batch(1, 2, 3, 4, 5, 6));
    FakeSocket.last.say({ event: "resync_required" });
    await seconds(10);
    assert.deepEqual(page.hows, ["before", "before", "live", "recovered", "live", "recovered"]);
    assert.equal(new Set(page.slots).size, 6);
  });

  it("is told rightly where a note of something missed is among what is replayed", async () => {
    const page = new Page({ lastMessageId: "earlier" });
    await settle();
    FakeSocket.last.onopen?.();
    FakeSocket.last.say({ event: "resumed", recovered: true, missed: 2 });
    FakeSocket.last.say({ event: "resync_required" });
    FakeSocket.last.say(slot(1));
    FakeSocket.last.say(slot(2));
    assert.deepEqual(page.hows, ["recovered", "live"]);
    pass(10_000);
    assert.equal(page.resyncs, 1);
  });

  it("is not known of a gateway that does not say so, but what it replays comes at once", async () => {
    const page = new Page({ lastMessageId: "earlier" });
    await settle();
    FakeSocket.last.onopen?.();
    FakeSocket.last.say(slot(1));
    pass(150);
    FakeSocket.last.say(slot(2));
    pass(200);
    FakeSocket.last.say(slot(3));
    assert.deepEqual(page.hows, ["recovered", "recovered", "live"]);
  });

  it("is a resync when the gateway could not recover", async () => {
    const page = await open(new Page({ poll, lastMessageId: "earlier" }));
    FakeSocket.last.drop();
    pass(250);
    await settle();
    FakeSocket.last.onopen?.();
    FakeSocket.last.say({ event: "resumed", recovered: false });
    FakeSocket.last.say({ event: "resync_required" });
    await seconds(10);
    assert.equal(page.resyncs, 1);
    assert.deepEqual(page.events, []);
  });
});

describe("excess content", () => {
  const excess = {
    event: "essay_excess",
    message_id: "excess-1",
    data: {
      batch_id: "batch",
      file_upload_id: "upload-9",
      filename: "late.txt",
      reason: "NO_AVAILABLE_SLOT",
    },
  };

  it("is told once, whether by the socket or by asking", async () => {
    const told: unknown[] = [];
    server.answers.set("batch", {
      ...(batch(1) as object),
      excess: [{ file_upload_id: "upload-8" }, { file_upload_id: "upload-9" }],
    });
    await open(new Page({ poll, onExcess: ({ file_upload_id: id }, { live }) => told.push([id, live]) }));
    FakeSocket.last.say(excess);
    FakeSocket.last.say({
      ...excess,
      message_id: "excess-2",
      data: { ...excess.data, file_upload_id: "upload-7" },
    });
    assert.deepEqual(told, [
      ["upload-8", false],
      ["upload-9", false],
      ["upload-7", true],
    ]);
  });

  it("and a second upload of a text that has its slot are different things", async () => {
    const page = await open(new Page());
    const first = slot(1);
    FakeSocket.last.say(first);
    const data = { ...(first.data as object), file_upload_id: "upload-2", duplicate_of: "upload-1" };
    FakeSocket.last.say({ ...first, message_id: "message-2", data });
    assert.deepEqual(page.slots, ["upload-1", "upload-2"]);
  });
});

describe("batches that are added", () => {
  it("are asked about, at once and as often as what is owed", async () => {
    const page = await open(new Page({ poll: { url: poll.url } }));
    server.answers.set("added", { ...(batch(1) as object), batch_id: "added" });
    page.connection.addBatch("added");
    await seconds(60);
    assert.equal(server.asked.length, 4);
    assert.deepEqual(page.hows, ["before"]);
    assert.equal(page.resyncs, 1);
  });

  it("and have no user are asked about while the socket is open, since nobody tells of them", async () => {
    const page = await open(new Page({ poll: { url: poll.url } }));
    page.connection.addBatch("batch", { poll: true });
    await seconds(60);
    server.answers.set("batch", batch(1));
    await seconds(5);
    assert.deepEqual(page.hows, ["recovered"]);
    assert.equal(page.connection.status.state, "open");
  });

  it("are asked about no more once they are removed", async () => {
    const page = await withoutASocket(new Page({ poll: { url: poll.url } }));
    page.connection.addBatch("added");
    await seconds(1);
    page.connection.removeBatch("added");
    server.asked.length = 0;
    await seconds(30);
    assert.deepEqual(server.asked, []);
  });

  it("by a page that lists them are found", async () => {
    const batchIds: string[] = [];
    await open(new Page({ poll: { ...poll, batchIds: () => batchIds } }));
    batchIds.push("listed");
    await seconds(6);
    assert.equal(server.asked.length, 2);
  });

  it("by a page that fails to list them are those that it listed last", async () => {
    const reported: unknown[] = [];
    let fails = false;
    const batchIds = (): string[] => (fails ? assert.fail("the page's own") : ["batch"]);
    await open(new Page({ poll: { ...poll, batchIds } }));
    mock.method(globalThis, "queueMicrotask", (callback: () => void) => reported.push(callback));
    fails = true;
    FakeSocket.last.say({ event: "resync_required" });
    await seconds(10);
    assert.ok(server.asked.length > 0);
    assert.ok(reported.length > 0);
  });

  it("are a few at a time", async () => {
    server.hangs = true;
    const batchIds = Array.from({ length: 20 }, (_, number) => `batch-${number}`);
    await withoutASocket(new Page({ poll: { ...poll, batchIds } }));
    assert.equal(server.asked.length, 4);
    await seconds(11);
    assert.equal(server.asked.length, 8);
  });
});
