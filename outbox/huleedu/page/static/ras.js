/** What RAS tells of the batch, beside what the slots show. */

import { ApiError } from "./api.js";
import { now } from "./clock.js";
import { byId, h } from "./dom.js";
import { clockTime, counted, duration } from "./format.js";

/** @typedef {import("/client/messages.js").BatchStatus} BatchStatus */

const SOON_MS = 150;
const DIFFERS_MS = 1_000;
const CALM_MS = 10_000;

const OVERALL = /** @type {Record<string, string>} */ ({
  pending_content: "waits for content",
  ready: "ready",
  processing: "processing",
  completed_successfully: "completed",
  completed_with_failures: "completed with failures",
  failed: "failed",
  cancelled: "cancelled",
});

/** Asks soon after something happened, then gently; not while nobody looks, nor while the client asks. */
export class RasPanel {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #batchId = "";
  #paused = false;
  /** @type {BatchStatus | undefined} */
  #status;
  /** Since when RAS has known more, with so many slots filled on the board. */
  #ahead = { since: Infinity, filled: 0 };
  #api;
  #board;
  #missed;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./board.js").Board} board
   * @param {(status: BatchStatus) => void} missed RAS goes on knowing of slots that the board does not
   */
  constructor(api, board, missed) {
    this.#api = api;
    this.#board = board;
    this.#missed = missed;
    document.addEventListener("visibilitychange", this.soon);
  }

  /** @param {string} batchId */
  watch(batchId) {
    this.#batchId = batchId;
    this.#status = undefined;
    this.#ahead = { since: Infinity, filled: 0 };
    byId("ras").hidden = false;
    byId("ras-badge").textContent = "";
    byId("ras-body").replaceChildren(h("p", { class: "hint" }, "Asking…"));
    this.soon();
  }

  /** @param {boolean} paused whether the client asks meanwhile, and its answers come by `show` */
  pause(paused) {
    if (this.#paused === paused) return;
    this.#paused = paused;
    this.soon();
  }

  end() {
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.soon);
    this.#batchId = "";
  }

  /** The slots have changed: ask soon, and compare them with the last answer meanwhile. */
  compare() {
    if (this.#status) byId("ras-body").firstElementChild?.replaceWith(this.#agreement(this.#status));
    this.soon();
  }

  soon = () => this.#again(SOON_MS);

  /**
   * @param {BatchStatus} status
   * @param {number} [took]
   */
  show(status, took) {
    if (status.batch_id !== this.#batchId) return;
    this.#status = status;
    const badge = byId("ras-badge");
    badge.textContent = OVERALL[status.overall_status] ?? status.overall_status;
    badge.dataset["state"] = status.overall_status;
    const details = byId("ras-body").querySelector("details");
    byId("ras-body").replaceChildren(
      this.#agreement(status),
      table(status),
      raw(status, details?.open ?? false),
      h(
        "p",
        { class: "hint" },
        `Asked at ${clockTime(Date.now())}`,
        took === undefined ? "" : `, answered within ${duration(took)}`,
      ),
    );
  }

  /** @param {number} wait */
  #again(wait) {
    clearTimeout(this.#timer);
    if (!this.#batchId || this.#paused || document.hidden) return;
    this.#timer = setTimeout(() => void this.#ask(this.#batchId), wait);
  }

  /** @param {string} batchId */
  async #ask(batchId) {
    const began = now();
    try {
      const status = await this.#api.status(batchId);
      this.show(status, now() - began);
      if (batchId === this.#batchId) this.#notice(status);
    } catch (error) {
      if (batchId === this.#batchId) this.#trouble(error);
    }
    if (batchId === this.#batchId) this.#again(this.#differs() ? DIFFERS_MS : CALM_MS);
  }

  /** @param {unknown} error */
  #trouble(error) {
    const unknown = error instanceof ApiError && error.status === 404;
    const said = unknown
      ? "RAS has not heard of this batch yet."
      : `${error instanceof Error ? error.message : error}.`;
    if (unknown || !this.#status) byId("ras-body").replaceChildren(h("p", { class: "hint" }, said));
    else byId("ras-body").lastElementChild?.replaceChildren(`${said} This is its last answer.`);
  }

  #differs() {
    return !this.#status || known(this.#status) !== this.#board.filled;
  }

  /**
   * What RAS knows first is usually told a moment later; if not, its notification was lost.
   *
   * @param {BatchStatus} status
   */
  #notice(status) {
    const { filled } = this.#board;
    if (known(status) <= filled) this.#ahead = { since: Infinity, filled };
    else if (this.#ahead.since === Infinity || this.#ahead.filled !== filled)
      this.#ahead = { since: now(), filled };
    else if (now() - this.#ahead.since >= DIFFERS_MS) this.#missed(status);
  }

  /** @param {BatchStatus} status */
  #agreement(status) {
    const theirs = known(status);
    const ours = this.#board.filled;
    const same =
      theirs === ours &&
      status.essays.every((essay, slot) => (essay.file_upload_id ?? undefined) === this.#board.slots[slot]);
    const text = same
      ? `The same story as the slots: ${theirs} of ${counted(status.essay_count, "essay")} assigned`
      : `RAS knows of ${theirs} assigned, this page of ${ours}; one of them is about to hear`;
    return h("p", { class: same ? "same" : "differs" }, text);
  }
}

/** @param {BatchStatus} status */
function known(status) {
  return status.essays.filter((essay) => essay.file_upload_id).length;
}

/** @param {BatchStatus} status */
function table(status) {
  const rows = status.essays.map((essay, index) =>
    h(
      "tr",
      { class: essay.file_upload_id ? "" : "free" },
      h("th", { scope: "row" }, String(index + 1)),
      h(
        "td",
        { class: "file" },
        essay.file_upload_id ? (essay.filename ?? "without a name") : "no content yet",
      ),
      h("td", {}, essay.spellcheck_status ?? "–"),
      h("td", {}, essay.cj_rank === null || essay.cj_rank === undefined ? "–" : String(essay.cj_rank)),
    ),
  );
  const head = ["Slot", "File", "Spelling", "Rank"].map((name) => h("th", { scope: "col" }, name));
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Essays as RAS knows them" },
    h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)),
  );
}

/**
 * @param {BatchStatus} status
 * @param {boolean} open
 */
function raw(status, open) {
  return h(
    "details",
    { open },
    h("summary", {}, "The answer itself"),
    h("pre", { tabindex: "0" }, JSON.stringify(status, null, 2)),
  );
}
