/** What becomes of the uploads to a batch: shown on the board, and told where that is news. */

import { assignmentsIn } from "/client/messages.js";
import { now } from "./clock.js";
import { announce, showNotice, TOGETHER_MS } from "./notices.js";

/**
 * @typedef {import("./uploads.js").Essay} Essay
 * @typedef {import("./board.js").Assignment} Assignment
 * @typedef {import("./board.js").Board} Board
 * @typedef {import("./ras.js").BatchStatus} BatchStatus
 * @typedef {import("./board.js").Excess & {batch_id: string}} Excess
 */

/** Of one user in this window. What is told of a batch that is not shown is asked for when it is. */
export class Outcomes {
  #board;
  #told;
  /** @type {string | undefined} the batch that is shown */
  #batchId;
  /** @type {Map<string, number>} when the socket told of an upload, by its id */
  #toldAt = new Map();
  /** Whether what is shown at this moment was so before this window looked. */
  #quiet = false;
  /** @type {Set<string>} batches on which RAS has answered since they were opened: what is new then is news */
  #asked = new Set();
  /** @type {Set<string>} batches that this page has made, and not opened anew since */
  #made = new Set();
  #ended = false;

  /**
   * @param {Board} board
   * @param {(essay: Essay) => void} told hears of each upload whose outcome was news
   */
  constructor(board, told) {
    this.#board = board;
    this.#told = told;
  }

  /**
   * Begins with a batch, or with none: what is there already is no news.
   *
   * @param {string | undefined} batchId
   */
  open(batchId) {
    this.#batchId = batchId;
    if (batchId === undefined) return;
    this.#asked.delete(batchId);
    this.#made.delete(batchId);
  }

  /**
   * Begins with a batch that was just made here: nothing was there before.
   *
   * @param {string} batchId
   */
  openNew(batchId) {
    this.open(batchId);
    this.#asked.add(batchId);
    this.#made.add(batchId);
  }

  /** Tells nothing any more. */
  end() {
    this.#ended = true;
    this.open(undefined);
  }

  /**
   * Takes note that the socket tells of an upload at this moment.
   *
   * @param {string} uploadId
   */
  heard(uploadId) {
    this.#toldAt.set(uploadId, now());
  }

  /**
   * Shows what RAS knows of a batch that was just opened: none of that is news.
   *
   * @param {BatchStatus} status
   */
  load(status) {
    this.#quietly(() => {
      for (const assignment of assignmentsIn(status)) this.#board.assign(assignment, {});
    });
  }

  /**
   * Learns of slots from RAS that nothing else has told of.
   *
   * @param {BatchStatus} status
   */
  learn(status) {
    for (const assignment of assignmentsIn(status)) this.assigned(assignment, true);
  }

  /**
   * Learns of uploads without a slot from RAS.
   *
   * @param {BatchStatus} status
   */
  refused(status) {
    const { batch_id } = status;
    const isNews = this.#asked.has(batch_id);
    this.#asked.add(batch_id);
    for (const file of status.excess ?? []) this.excess({ ...file, batch_id }, isNews);
  }

  /**
   * Shows that no slot was left for an upload.
   *
   * @param {Excess} excess
   * @param {boolean} isNews
   */
  excess(excess, isNews) {
    if (excess.batch_id !== this.#batchId || !this.#board.refuse(excess)) return;
    const essay = this.#board.essays.get(excess.file_upload_id);
    if (!essay || !(isNews || this.#isOurs(excess))) return;
    announce("excess", essay);
    this.#told(essay);
  }

  /**
   * Shows that an upload has its slot, which the socket told or asking brought.
   *
   * @param {Assignment} assignment
   * @param {boolean} isNews
   */
  assigned(assignment, isNews) {
    if (assignment.batch_id !== this.#batchId) return;
    // Of a batch that this page has made, nothing was there before.
    if (!isNews && !this.#made.has(assignment.batch_id) && !this.#isOurs(assignment)) {
      this.#quietly(() => this.#board.assign(assignment, {}));
      return;
    }
    const toldAt = this.#toldAt.get(assignment.file_upload_id);
    const heard = toldAt === undefined ? "asked" : "told";
    if (!this.#board.assign(assignment, { heard, heardAt: toldAt ?? now() })) return;
    const essay = this.#board.essays.get(assignment.file_upload_id);
    if (!essay) return;
    announce(essay.state === "duplicate" ? "duplicate" : "assigned", essay);
    this.#told(essay);
  }

  /** Says that the batch that is shown has everything now. */
  filled() {
    if (this.#quiet) return;
    const { length } = this.#board.slots;
    const all = length === 1 ? "its slot is" : `all ${length} slots are`;
    // After what is said of the last of its files.
    setTimeout(() => this.#ended || showNotice(`The batch is complete: ${all} filled`), 2 * TOGETHER_MS);
  }

  /**
   * Tells whether it was in this window that an upload was made: whatever becomes of it is news.
   *
   * @param {{file_upload_id: string}} upload
   */
  #isOurs({ file_upload_id: id }) {
    return this.#board.essays.get(id)?.beganAt !== undefined;
  }

  /**
   * Shows something that was so before this window looked.
   *
   * @param {() => void} show
   */
  #quietly(show) {
    this.#quiet = true;
    show();
    this.#quiet = false;
  }
}
