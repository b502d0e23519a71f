/** What the page has been told, so that nothing is told twice, and whether it is news. */

import {
  assignmentsIn,
  type BatchStatus,
  type ExcessData,
  excessIn,
  isExcess,
  isSlotAssigned,
  type Notification,
  type SlotAssignmentData,
} from "./messages.js";
import type { ConnectOptions, How } from "./options.js";
import { Seen } from "./retry.js";

const LIVE: How = { live: true, recovered: false };
const RECOVERED: How = { live: false, recovered: true };
const BEFORE: How = { live: false, recovered: false };

export class News {
  /** The last message that came over the socket. */
  lastMessageId: string | undefined;
  readonly #page: ConnectOptions;
  readonly #call: (callback: () => void) => void;
  readonly #messages = new Seen(2_000);
  readonly #uploads = new Seen(50_000);
  /** The batches of which the state is known: what is learnt of them now is news. */
  readonly #known = new Set<string>();

  /** `call` calls back the page. */
  constructor(page: ConnectOptions, call: (callback: () => void) => void) {
    this.#page = page;
    this.#call = call;
    this.lastMessageId = page.lastMessageId;
  }

  /** Whether the state of anything is known. */
  get any(): boolean {
    return this.#known.size > 0;
  }

  /** The state of this batch, which may be that there is none yet, is known. */
  know(batchId: string): void {
    this.#known.add(batchId);
  }

  forget(batchId: string): void {
    this.#known.delete(batchId);
  }

  /** The socket told of this, as it happened or later. */
  receive(message: Notification, live: boolean): void {
    const how = live ? LIVE : RECOVERED;
    if (message.message_id !== undefined) {
      if (!this.#messages.add(message.message_id)) return;
      this.lastMessageId = message.message_id;
    }
    this.#call(() => this.#page.onEvent?.(message, how));
    if (isSlotAssigned(message)) this.#assigned(message.data, how);
    if (isExcess(message)) this.#excess(message.data, how);
  }

  /** The page's server answered this. */
  learn(status: BatchStatus): void {
    const how = this.#known.has(status.batch_id) ? RECOVERED : BEFORE;
    this.know(status.batch_id);
    this.#call(() => this.#page.poll?.onBatch?.(status));
    for (const assignment of assignmentsIn(status)) this.#assigned(assignment, how);
    for (const excess of excessIn(status)) this.#excess(excess, how);
  }

  #assigned(data: SlotAssignmentData, how: How): void {
    this.know(data.batch_id);
    if (this.#uploads.add(`${data.batch_id}/${data.essay_id}/${data.file_upload_id}`)) {
      this.#call(() => this.#page.onSlotAssigned?.(data, how));
    }
  }

  #excess(data: ExcessData, how: How): void {
    this.know(data.batch_id);
    if (this.#uploads.add(`${data.batch_id}//${data.file_upload_id}`)) {
      this.#call(() => this.#page.onExcess?.(data, how));
    }
  }
}
