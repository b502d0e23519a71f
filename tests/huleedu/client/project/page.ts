// What a page with the package may write, and what its types refuse.

import {
  type BatchStatus,
  type Connection,
  type ConnectOptions,
  connect,
  type ExcessData,
  type How,
  isExcess,
  isSlotAssigned,
  type Notification,
  type SlotAssignmentData,
  type Status,
  TIMING,
} from "huleedu-notifications";

const shown: string[] = [];

function show(slot: SlotAssignmentData, { live, recovered }: How): void {
  if (live || recovered) shown.push(`File "${slot.filename ?? "?"}" assigned to slot ${slot.slot_index + 1}`);
  if (slot.duplicate_of !== undefined) shown.push(slot.duplicate_of.toUpperCase());
}

const options: ConnectOptions = {
  url: new URL("wss://ws.example.com/ws"),
  token: async () => "token",
  poll: {
    url: "https://app.example.com",
    batchIds: ["batch-1"],
    onBatch: (status: BatchStatus) => shown.push(status.overall_status),
    onRefused: (batchId, status) => shown.push(`${batchId}: ${status.toFixed()}`),
  },
  onSlotAssigned: show,
  onExcess: (file: ExcessData) => shown.push(file.reason),
  onEvent(message: Notification) {
    if (isSlotAssigned(message)) shown.push(message.data.essay_id);
    else if (isExcess(message)) shown.push(message.data.file_upload_id);
    // @ts-expect-error: what other notifications carry is not known.
    else shown.push(message.data.essay_id);
  },
  onStatus: ({ state, reason, code }: Status) => {
    const open: boolean = state === "open";
    shown.push(`${open} ${reason} ${code?.toFixed()}`);
    // @ts-expect-error: there is no such state.
    shown.push(String(state === "closed"));
  },
  timing: { pollEvery: TIMING.pollEvery * 2 },
};

export function start(): Connection {
  const connection = connect(options);
  connection.addBatch("batch-2");
  connection.removeBatch("batch-2");
  connection.reconnect();
  // @ts-expect-error: it is told, not set.
  connection.status = { state: "open", reason: "" };
  return connection;
}

// @ts-expect-error: a token is needed.
export const without = (): Connection => connect({ url: "wss://ws.example.com/ws" });
