/** How a page handles its notifications: the handler of HuleEdu's upload page. */

import {
  type Connection,
  connect,
  isSlotAssigned,
  type Notification,
  type SlotAssignmentData,
} from "../src/client.js";

/** What the page can show. */
export interface Page {
  updateFileStatus(
    fileUploadId: string,
    file: { status: "assigned"; essayId: string; slotIndex: number },
  ): void;
  showNotification(text: string): void;
}

export function watchBatch(
  page: Page,
  gateway: string,
  token: () => Promise<string>,
  batchId: string,
): Connection {
  return connect({
    url: gateway,
    token,
    // This is also called for what is learnt by asking; `onEvent` would be for notifications alone.
    onSlotAssigned: (data) => handleSlotAssignment(page, data),
    poll: { url: location.origin, batchIds: [batchId] },
    onStatus: ({ state, reason }) => {
      if (state === "stopped") page.showNotification(`No more updates: ${reason}`);
    },
  });
}

/** The same for a page with a socket of its own, as `onEvent` or the socket's `message` handler. */
export function handleNotification(page: Page, event: Notification): void {
  switch (event.event) {
    case "essay_slot_assigned":
      if (isSlotAssigned(event)) handleSlotAssignment(page, event.data);
      break;
    default:
      // Other notifications are for other parts of the page.
      break;
  }
}

export function handleSlotAssignment(page: Page, data: SlotAssignmentData): void {
  page.updateFileStatus(data.file_upload_id, {
    status: "assigned",
    essayId: data.essay_id,
    slotIndex: data.slot_index,
  });
  page.showNotification(`File "${data.filename ?? "without a name"}" assigned to essay slot`);
}
