import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it, mock } from "node:test";
import { batch, end, type FakeServer, FakeSocket, Page, pass, settle, start } from "./support.js";

const PAGES = 500;

let server: FakeServer;
let open: FakeSocket[];
beforeEach(async () => {
  server = start();
  mock.method(Math, "random", random());
  server.answers.set("batch", batch(1));
  for (let page = 0; page < PAGES; page += 1) {
    new Page({
      poll: { url: "https://app.example.com", batchIds: ["batch"] },
      lastMessageId: "earlier",
      timing: { heartbeat: 0 },
    });
  }
  await settle();
  for (const socket of FakeSocket.all) socket.onopen?.();
  await perSecond(31, () => server.asked.length);
  server.asked.length = 0;
  open = FakeSocket.all.splice(0);
});
afterEach(end);

/** Numbers that look random, the same in each run: a linear congruential generator's. */
function random(): () => number {
  let state = 1;
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state / 2 ** 31;
  };
}

/** By how much something grows in each of the seconds that pass. */
async function perSecond(seconds: number, count: () => number): Promise<number[]> {
  const growth: number[] = [];
  for (let second = 0; second < seconds; second += 1) {
    const before = count();
    pass(1_000);
    await settle();
    growth.push(count() - before);
  }
  return growth;
}

const total = (counts: number[]): number => counts.reduce((sum, count) => sum + count, 0);

describe("of many pages that lose one gateway", () => {
  it("not all come back at once, and none asks the server within ten seconds", async () => {
    await lose();
    const attempts = await perSecond(5, () => FakeSocket.all.length);
    assert.equal(total(attempts), PAGES);
    assert.ok(Math.max(...attempts) < PAGES / 3, String(attempts));
    assert.equal(server.asked.length, 0);
    const asked = await perSecond(35, () => server.asked.length);
    assert.deepEqual(asked.slice(0, 5), [0, 0, 0, 0, 0]);
    assert.ok(Math.max(...asked) < PAGES / 2, String(asked));
  });

  it("and must ask because their log is lost, not all do at once", async () => {
    await lose();
    await perSecond(5, () => 0);
    for (const socket of FakeSocket.all) {
      socket.onopen?.();
      socket.say({ event: "resync_required", recovered: false });
    }
    const asked = await perSecond(10, () => server.asked.length);
    assert.ok(Math.max(...asked) < PAGES / 3, String(asked));
    assert.ok(total(asked) >= PAGES);
  });
});

/** The gateway that all pages have goes away. */
async function lose(): Promise<void> {
  for (const socket of open) socket.drop(1001, "the server goes away");
  await settle();
}
