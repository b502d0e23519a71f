// Connects as a page would, with the options on the command line, and prints what the page is told as
// lines of JSON. Ends when its standard input does.

import { connect } from "../../../outbox/huleedu/client/dist/client.js";

const { tokens, ...options } = JSON.parse(process.argv[2]);

const say = (what, value) => process.stdout.write(`${JSON.stringify({ [what]: value })}\n`);

const connection = connect({
  ...options,
  token: () => {
    say("token", tokens[0]);
    return tokens.length > 1 ? tokens.shift() : tokens[0];
  },
  onStatus: (status) => say("status", status),
  onEvent: (message) => say("event", message),
  onSlotAssigned: (data) => say("slot", data),
  onResync: () => say("resync", true),
});

process.stdin.resume().on("end", () => connection.close());
