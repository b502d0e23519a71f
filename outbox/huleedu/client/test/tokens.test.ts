import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it, mock } from "node:test";
import type { ConnectOptions } from "../src/client.js";
import {
  batch,
  end,
  type FakeServer,
  FakeSocket,
  jwt,
  Page,
  pass,
  setClock,
  settle,
  start,
} from "./support.js";

let server: FakeServer;
beforeEach(() => {
  server = start();
});
afterEach(end);

const poll = { url: "https://app.example.com", batchIds: ["batch"] };

/** Gives another token each time it is asked. */
function issuer(asked: string[] = []): () => string {
  return () => {
    asked.push(`token-${asked.length + 1}`);
    return String(asked.at(-1));
  };
}

async function refuse(reason: string, code = 4401): Promise<void> {
  FakeSocket.last.onopen?.();
  FakeSocket.last.drop(code, reason);
  await settle();
}

/** Let attempts be refused for as long as they come within a minute. */
async function refuseAll(reason: string, times: number): Promise<void> {
  for (let time = 0; time < times; time += 1) {
    const sockets = FakeSocket.all.length;
    await refuse(reason);
    for (let waited = 0; FakeSocket.all.length === sockets && waited < 60; waited += 1) {
      pass(1_000);
      await settle();
    }
  }
}

describe("tokens that the gateway refuses", () => {
  for (const reason of ["signature", "claims", "revoked", "token refused"]) {
    it(`for "${reason}": the second of two different ones ends it`, async () => {
      const page = new Page({ token: issuer(), poll });
      await settle();
      await refuse(reason);
      assert.deepEqual(FakeSocket.last.protocols, ["bearer", "token-2"]);
      await refuse(reason);
      assert.deepEqual(page.connection.status, { state: "stopped", reason, code: 4401 });
      pass(100_000);
      await settle();
      assert.equal(FakeSocket.all.length, 2);
      assert.deepEqual(server.asked, []);
    });
  }

  it("twice, but the same one, end nothing: the page may have no other yet", async () => {
    const page = new Page({ token: () => "cached" });
    await settle();
    await refuseAll("signature", 5);
    assert.equal(page.connection.status.state, "polling");
    assert.equal(FakeSocket.all.length, 6);
  });

  for (const reason of ["expired", "token expired", "early"]) {
    it(`for "${reason}" end nothing, however many`, async () => {
      const page = new Page({ token: issuer() });
      await settle();
      await refuseAll(reason, 6);
      FakeSocket.last.open();
      assert.equal(page.connection.status.state, "open");
    });
  }

  it("because their time has not come are kept until it has", async () => {
    const asked: string[] = [];
    new Page({ token: issuer(asked) });
    await settle();
    await refuseAll("early", 3);
    assert.deepEqual(asked, ["token-1"]);
  });

  it("may expire again and again while they are good in between", async () => {
    const page = new Page({ token: async () => "fresh" });
    await settle();
    for (let hour = 0; hour < 3; hour += 1) {
      FakeSocket.last.open();
      for (let beat = 0; beat < 240; beat += 1) {
        pass(15_000);
        FakeSocket.last.say({ event: "heartbeat" });
      }
      FakeSocket.last.drop(4401, "expired");
      await settle();
    }
    assert.equal(FakeSocket.all.length, 4);
    assert.equal(page.connection.status.state, "connecting");
  });

  it("and are fixed cannot be replaced", async () => {
    const page = new Page();
    await settle();
    await refuse("expired");
    await refuse("expired");
    assert.equal(page.connection.status.state, "stopped");
  });

  it("while keys cannot be looked up end nothing", async () => {
    const page = new Page({ token: issuer() });
    await settle();
    for (let time = 0; time < 3; time += 1) {
      await refuse("tokens cannot be checked now, try again later", 1013);
      pass(30_000);
      await settle();
    }
    assert.equal(page.connection.status.state, "polling");
    assert.deepEqual(FakeSocket.last.protocols, ["bearer", "token-1"]);
  });

  it("are forgotten once the page connects again", async () => {
    const page = new Page({ token: issuer() });
    await settle();
    await refuse("signature");
    await refuse("signature");
    assert.equal(page.connection.status.state, "stopped");
    page.connection.reconnect();
    await settle();
    assert.deepEqual(FakeSocket.last.protocols, ["bearer", "token-3"]);
    await refuse("signature");
    FakeSocket.last.open();
    assert.equal(page.connection.status.state, "open");
  });
});

describe("tokens that the page's server refuses", () => {
  it("do not disturb the socket", async () => {
    server.status = 401;
    const page = new Page({ token: issuer(), poll });
    await settle();
    FakeSocket.last.open();
    for (let second = 0; second < 60; second += 1) {
      pass(1_000);
      await settle();
      FakeSocket.last.say({ event: "heartbeat" });
    }
    assert.equal(page.connection.status.state, "open");
    assert.ok(server.asked.length > 2 && server.asked.length < 30);
    assert.equal(FakeSocket.all.length, 1);
  });

  it("are replaced, once for each question", async () => {
    server.status = 401;
    const page = new Page({ token: issuer(), poll });
    await settle();
    pass(2_500);
    await settle();
    assert.deepEqual(
      server.asked.map(({ authorization }) => authorization),
      ["Bearer token-1", "Bearer token-2"],
    );
    assert.equal(page.connection.status.state, "polling");
    assert.match(page.connection.status.reason, /the server answered 401/);
  });

  it("together with the gateway, as after sleep, end nothing", async () => {
    let current = jwt(600, 1, "old");
    const page = new Page({ token: () => current, poll });
    await settle();
    FakeSocket.last.open();
    await settle();
    current = jwt(600, 2, "new");
    server.status = 401;
    FakeSocket.last.say({ event: "resync_required" });
    FakeSocket.last.drop(4401, "expired");
    pass(5_000);
    await settle();
    assert.ok(server.asked.some(({ authorization }) => authorization === `Bearer ${current}`));
    assert.deepEqual(FakeSocket.last.protocols, ["bearer", current]);
    FakeSocket.last.open();
    assert.equal(page.connection.status.state, "open");
  });
});

describe("tokens that cannot be had", () => {
  const troubles: [string, ConnectOptions["token"]][] = [
    ["an error", () => Promise.reject(new Error("offline"))],
    ["an exception", (): string => assert.fail("the page's own")],
    ["an error page", () => "<!doctype html><title>502 Bad Gateway</title>"],
    ["nothing", () => ""],
    ["no text", () => undefined as unknown as string],
    ["silence", () => new Promise(() => {})],
  ];
  for (const [what, trouble] of troubles) {
    it(`but ${what} instead are asked for again, and asking the server goes on`, async () => {
      let well = false;
      const page = new Page({
        token: () => (well ? "late" : (trouble as () => string)()),
        poll,
      });
      for (let second = 0; second < 120; second += 1) {
        await settle();
        pass(1_000);
      }
      await settle();
      assert.equal(FakeSocket.all.length, 0);
      assert.match(page.connection.status.reason, /^no token could be had/);
      assert.doesNotMatch(page.connection.status.reason, /html/);
      assert.equal(page.connection.status.state, "polling");
      well = true;
      server.answers.set("batch", batch(1));
      for (let second = 0; second < 60; second += 1) {
        await settle();
        pass(1_000);
      }
      assert.deepEqual(FakeSocket.last.protocols, ["bearer", "late"]);
      assert.deepEqual(page.slots, ["upload-1"]);
    });
  }

  it("after the end open nothing", async () => {
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

describe("tokens that are about to end", () => {
  /** Let time pass on a socket that is alive. */
  async function live(seconds: number): Promise<void> {
    for (let second = 0; second < seconds; second += 1) {
      pass(1_000);
      FakeSocket.last.say({ event: "heartbeat" });
      await settle();
    }
  }

  const tokens = (seconds: number): (() => string) => {
    let issued = 0;
    return () => jwt(seconds, (issued += 1));
  };

  it("are renewed on the socket, again and again", async () => {
    const page = new Page({ token: tokens(600) });
    await settle();
    FakeSocket.last.open();
    const socket = FakeSocket.last;
    for (let time = 1; time < 4; time += 1) {
      await live(500);
      assert.equal(socket.sent.length, time - 1);
      while (socket.sent.length < time) await live(1);
      socket.say({ event: "token_accepted", expires_at: 0 });
    }
    assert.deepEqual(socket.sent, [{ token: jwt(600, 2) }, { token: jwt(600, 3) }, { token: jwt(600, 4) }]);
    assert.equal(FakeSocket.all.length, 1);
    assert.deepEqual(page.events, []);
  });

  for (const hours of [-5, 5]) {
    it(`are renewed in time by a clock that is ${hours} hours wrong, and set back`, async () => {
      setClock(hours * 3_600_000);
      const page = new Page({ token: tokens(600) });
      await settle();
      FakeSocket.last.open();
      await live(300);
      assert.deepEqual(FakeSocket.last.sent, []);
      setClock(-hours * 3_600_000);
      await live(230);
      assert.equal(FakeSocket.last.sent.length, 1);
      assert.equal(page.connection.status.state, "open");
    });
  }

  it("and of which the new one is refused count on, and another is tried", async () => {
    new Page({ token: tokens(600) });
    await settle();
    FakeSocket.last.open();
    await live(530);
    FakeSocket.last.say({ event: "token_refused", reason: "early" });
    await live(20);
    assert.equal(FakeSocket.last.sent.length, 2);
    assert.equal(FakeSocket.all.length, 1);
  });

  it("and cannot be replaced now are replaced later", async () => {
    let away = true;
    const next = tokens(600);
    new Page({
      token: () => {
        if (away && FakeSocket.all.length > 0) throw new Error("away");
        return next();
      },
    });
    await settle();
    FakeSocket.last.open();
    await live(530);
    away = false;
    await live(20);
    assert.equal(FakeSocket.last.sent.length, 1);
  });

  it("while the page has no other yet are sent no second time", async () => {
    new Page({ token: () => jwt(600) });
    await settle();
    FakeSocket.last.open();
    await live(599);
    assert.deepEqual(FakeSocket.last.sent, []);
  });

  it("and last for months are not asked for all the time", async () => {
    const token = mock.fn(tokens(90 * 86_400));
    new Page({ token });
    await settle();
    FakeSocket.last.open();
    await live(10);
    assert.equal(token.mock.callCount(), 1);
  });
});
