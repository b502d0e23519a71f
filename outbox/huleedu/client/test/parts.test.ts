import assert from "node:assert/strict";
import { afterEach, it, mock } from "node:test";
import { handleNotification } from "../example/handler.js";
import { fullJitter, Seen } from "../src/retry.js";
import { slot } from "./support.js";

afterEach(() => mock.restoreAll());

it("full jitter is between nothing and a limit that doubles up to the longest wait", () => {
  for (const [random, expected] of [
    [0, [0, 0, 0]],
    [0.999, [499.5, 999, 29_970]],
  ] as const) {
    mock.method(Math, "random", () => random);
    assert.deepEqual(
      [1, 2, 1_000].map((failures) => fullJitter(failures, 500, 30_000)),
      expected,
    );
  }
});

it("only so many names are remembered", () => {
  const seen = new Seen(2);
  assert.deepEqual(
    ["a", "b", "a", "c", "a", "c"].map((name) => seen.add(name)),
    [true, true, false, true, true, false],
  );
});

it("the example shows an assigned file", () => {
  const shown: unknown[] = [];
  const page = {
    updateFileStatus: (...change: unknown[]) => shown.push(change),
    showNotification: (text: string) => shown.push(text),
  };
  handleNotification(page, slot(3));
  handleNotification(page, { event: "something else" });
  assert.deepEqual(shown, [
    ["upload-3", { status: "assigned", essayId: "essay-3", slotIndex: 3 }],
    'File "without a name" assigned to essay slot',
  ]);
});
