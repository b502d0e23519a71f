/** Files on their way to the server: a few at a time, and again when the server is away for a moment. */

import { ApiError } from "./api.js";
import { now } from "./clock.js";
import { size } from "./format.js";

/**
 * A file of a batch.
 *
 * `waiting` → `sending` → `stored` → `assigned`, or `duplicate` where its text has a slot under another upload,
 * or `excess` where no slot was left; or `failed`.
 *
 * @typedef {object} Essay
 * @property {string} id the upload's id, made here
 * @property {string} name
 * @property {number | null} bytes null where only its slot is known
 * @property {"waiting" | "sending" | "stored" | "assigned" | "duplicate" | "excess" | "failed"} state
 * @property {string | undefined} [trouble] why it failed, or why it still waits
 * @property {boolean} [hopeless] whether trying again would not help
 * @property {number} [slot] from zero
 * @property {"told" | "asked"} [heard] how this page learnt of its slot: told by the socket, or by asking
 * @property {number} [beganAt] when it was sent, by this browser's clock
 * @property {number} [heardAt] when this browser heard of its slot
 * @property {File} [file] what is to be sent
 */

const AT_ONCE = 4;
const TRIES = 6;
const WAIT_MS = 500;

/** The files that were added to one batch in this window. */
export class Uploads {
  /** @type {Essay[]} all that were added */
  essays = [];
  /** @type {Essay[]} */
  #waiting = [];
  #sending = 0;
  #ended = false;
  #api;
  #batchId;
  #limits;
  #changed;
  #settled;

  /**
   * @param {import("./api.js").Api} api
   * @param {string} batchId
   * @param {{file_bytes: number, file_name_characters: number}} limits
   * @param {(essay: Essay) => void} changed called whenever one has another state
   * @param {() => void} settled called whenever one is no longer on its way
   */
  constructor(api, batchId, limits, changed, settled) {
    this.#api = api;
    this.#batchId = batchId;
    this.#limits = limits;
    this.#changed = changed;
    this.#settled = settled;
  }

  /**
   * Takes files to be sent, and refuses those that the server would.
   *
   * @param {Iterable<File>} files
   */
  add(files) {
    for (const file of files) {
      /** @type {Essay} */
      const essay = { id: newId(), name: file.name, bytes: file.size, state: "waiting", file };
      const trouble = this.#refusal(file);
      this.essays.push(essay);
      if (trouble) Object.assign(essay, { state: "failed", trouble, hopeless: true });
      else this.#waiting.push(essay);
      this.#changed(essay);
    }
    this.#go();
  }

  /**
   * Sends a file again that failed.
   *
   * @param {Essay} essay
   */
  again(essay) {
    this.#change(essay, { state: "waiting", trouble: undefined });
    this.#waiting.push(essay);
    this.#go();
  }

  /** True if a file is on its way, or waits for its turn. */
  get busy() {
    return !this.#ended && (this.#sending > 0 || this.#waiting.length > 0);
  }

  /** Sends no more: what is not on its way yet stays here. */
  end() {
    this.#ended = true;
  }

  /**
   * Says why a file cannot be taken; says nothing if it can.
   *
   * @param {File} file
   */
  #refusal(file) {
    const { file_bytes: bytes, file_name_characters: characters } = this.#limits;
    if (file.size > bytes) return `It is larger than ${size(bytes)}`;
    if (file.size === 0) return "There is nothing in it";
    if (file.name.length > characters) return `Its name is longer than ${characters} characters`;
    return "";
  }

  /** Begins to send what waits, as many at once as are allowed. */
  #go() {
    while (this.#sending < AT_ONCE && !this.#ended) {
      const essay = this.#waiting.shift();
      if (!essay) return;
      this.#sending += 1;
      void this.#send(essay).finally(() => {
        this.#sending -= 1;
        this.#go();
        this.#settled();
      });
    }
  }

  /**
   * Sends a file until the server has it, refuses it, or has been away for too long.
   *
   * @param {Essay} essay
   */
  async #send(essay) {
    for (let attempt = 1; !this.#ended; attempt += 1) {
      this.#change(essay, { state: "sending", beganAt: now() });
      try {
        await this.#api.upload(this.#batchId, essay.id, /** @type {File} */ (essay.file));
        // It may have its slot already: the answer is one way, the notification another.
        if (essay.state === "sending") this.#change(essay, { state: "stored", trouble: undefined });
        return;
      } catch (error) {
        if (essay.state !== "sending") return;
        const temporary = error instanceof ApiError && error.temporary;
        const trouble = error instanceof Error ? error.message : String(error);
        if (!temporary || attempt === TRIES) {
          this.#change(essay, { state: "failed", trouble, hopeless: !temporary });
          return;
        }
        this.#change(essay, { trouble });
        await new Promise((resolve) => setTimeout(resolve, WAIT_MS * 2 ** attempt * Math.random()));
      }
    }
  }

  /**
   * @param {Essay} essay
   * @param {Partial<Essay>} change
   */
  #change(essay, change) {
    Object.assign(essay, change);
    this.#changed(essay);
  }
}

/** Makes a UUID of version 4. Browsers have `crypto.randomUUID` on https and localhost only. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (Number(bytes[6]) & 0x0f) | 0x40;
  bytes[8] = (Number(bytes[8]) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
