// Connects as pages would, and prints what each page is told as lines of JSON: its name, what, the value.
// On the command line are the options of each page by its name. What comes on standard input, a line each, is
// done: {"page": name, "tokens": [...]}, of which the last is given again and again, or {"clock": milliseconds}.
// A token that is null never comes. Ends when its standard input does.

import { createInterface } from "node:readline";
import { connect } from "../../../outbox/huleedu/client/dist/client.js";

const pages = JSON.parse(process.argv[2]);
const connections = [];
const { now } = Date;

for (const [name, page] of Object.entries(pages)) {
  const say = (what, value) => process.stdout.write(`${JSON.stringify({ page: name, [what]: value })}\n`);
  const { tokens, poll, ...options } = page;
  const connection = connect({
    ...options,
    ...(poll && { poll: { ...poll, onBatch: ({ batch_id: id }) => say("batch", id) } }),
    token: () => {
      say("token", page.tokens[0]);
      const token = page.tokens.length > 1 ? page.tokens.shift() : page.tokens[0];
      return token ?? new Promise(() => {});
    },
    onStatus: (status) => say("status", status),
    onEvent: (message) => say("event", message),
    onSlotAssigned: (data, how) => say("slot", { ...data, ...how }),
    onResync: () => say("resync", true),
  });
  connections.push(connection);
}

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { page, tokens, clock } = JSON.parse(line);
    if (page !== undefined) pages[page].tokens = tokens;
    if (clock !== undefined) Date.now = () => now() + clock;
  })
  .on("close", () => {
    connections.forEach((connection) => connection.close());
    // Node waits for the farewell of sockets, which a dead network never brings.
    process.stdout.write("", () => process.exit(0));
  });
