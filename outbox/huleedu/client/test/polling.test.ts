import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
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
  pass(2_000);
  await settle();
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

  it("keeps trying to connect, and asks no more once it has", async () => {
    server.answers.set("batch", batch(1));
    const page = await withoutASocket(new Page({ poll, lastMessageId: "earlier" }));
    await settle();
    assert.equal(FakeSocket.all.length, 2);
    FakeSocket.last.open().say(slot(1));
    FakeSocket.last.say(slot(2));
    assert.deepEqual(page.slots, ["upload-1", "upload-2"]);
    assert.deepEqual(page.states, ["connecting", "connecting", "polling", "open"]);
    pass(60_000);
    await settle();
    assert.equal(server.asked.length, 1);
  });

  it("does not ask when the socket is back soon", async () => {
    new Page({ poll, lastMessageId: "earlier" });
    await settle();
    FakeSocket.last.open().drop();
    pass(250);
    await settle();
    FakeSocket.last.open();
    pass(60_000);
    await settle();
    assert.deepEqual(server.asked, []);
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

  it("waits for a batch that is not known yet", async () => {
    const page = await withoutASocket(new Page({ poll }));
    assert.equal(page.connection.status.reason, "live updates are not available");
  });

  it("says when asking fails too, and goes on", async () => {
    server.status = 503;
    const page = await withoutASocket(new Page({ poll }));
    assert.equal(
      page.connection.status.reason,
      "live updates are not available; asking: the server answered 503",
    );
    server.status = 200;
    pass(3_000);
    await settle();
    assert.equal(page.connection.status.reason, "live updates are not available");
  });

  it("asks for another token when the server refuses it, and then stops", async () => {
    let tokens = 0;
    server.status = 401;
    const page = await withoutASocket(
      new Page({
        poll,
        token: () => {
          tokens += 1;
          return `token-${tokens}`;
        },
      }),
    );
    assert.deepEqual(
      server.asked.map(({ authorization }) => authorization),
      ["Bearer token-1", "Bearer token-2"],
    );
    assert.deepEqual(page.connection.status, {
      state: "stopped",
      reason: "the token was refused",
      code: 4401,
    });
    pass(60_000);
    await settle();
    assert.equal(server.asked.length, 2);
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
  it("asks once", async () => {
    server.answers.set("batch", batch(1));
    const page = new Page({ poll, lastMessageId: "earlier" });
    await settle();
    FakeSocket.last.open().say({ event: "resync_required" });
    await settle();
    assert.deepEqual(page.slots, ["upload-1"]);
    pass(60_000);
    await settle();
    assert.equal(server.asked.length, 1);
    assert.equal(page.connection.status.state, "open");
  });

  it("asks until it has an answer", async () => {
    server.status = 502;
    const page = new Page({ poll });
    await settle();
    FakeSocket.last.open();
    await settle();
    server.status = 200;
    server.answers.set("batch", batch(1));
    pass(3_000);
    await settle();
    assert.equal(server.asked.length, 2);
    assert.deepEqual(page.slots, ["upload-1"]);
  });
});
