/** What RAS tells of the batch, beside what the slots show. */

import { ApiError } from "./api.js";
import { now } from "./clock.js";
import { byId, h, keepingFocus } from "./dom.js";
import { clockTime, counted, duration } from "./format.js";
import { BATCH, showState } from "./states.js";

/**
 * @typedef {import("/client/messages.js").BatchStatus & {excess?: import("./board.js").Excess[]}} BatchStatus
 */

const SOON_MS = 150;
const DIFFERS_MS = 1_000;
const CALM_MS = 10_000;

/** @typedef {(status: BatchStatus) => void} OfStatus */

/** After these nothing more comes. */
const FINAL = new Set(["completed_successfully", "completed_with_failures", "failed", "cancelled"]);

/** Asks RAS soon after something happened, then gently; not while nobody looks, nor while the client asks. */
export class RasPanel {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #batchId = "";
  #paused = false;
  /** @type {BatchStatus | undefined} */
  #status;
  /** Since when RAS has known of more slots than the board, and how many are filled on the board since. */
  #ahead = { since: Infinity, filled: 0 };
  #api;
  #board;
  #events;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./board.js").Board} board
   * @param {{missed: OfStatus, answered: OfStatus, completed: OfStatus}} events `missed`: RAS goes on knowing of
   *   slots that the board does not; `completed`: nothing more will come of the batch
   */
  constructor(api, board, events) {
    this.#api = api;
    this.#board = board;
    this.#events = events;
    document.addEventListener("visibilitychange", this.soon);
  }

  /**
   * Asks about this batch from now on.
   *
   * @param {string} batchId
   */
  watch(batchId) {
    this.#batchId = batchId;
    this.#status = undefined;
    this.#ahead = { since: Infinity, filled: 0 };
    byId("ras").hidden = false;
    byId("ras-badge").textContent = "";
    byId("ras-body").replaceChildren(h("p", { class: "hint" }, "Asking…"));
    this.soon();
  }

  /**
   * Asks no more while the client does, whose answers come by `show`; goes on afterwards.
   *
   * @param {boolean} paused
   */
  pause(paused) {
    if (this.#paused === paused) return;
    this.#paused = paused;
    this.soon();
  }

  /** Asks no more. */
  end() {
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.soon);
    this.#batchId = "";
    byId("ras-body").replaceChildren();
  }

  /** The slots have changed: ask soon, and compare them with the last answer meanwhile. */
  compare() {
    if (this.#status) byId("ras-body").firstElementChild?.replaceWith(this.#agreement(this.#status));
    this.soon();
  }

  /** Asks in a moment. */
  soon = () => this.#again(SOON_MS);

  /**
   * Shows an answer, and within how many milliseconds it came.
   *
   * @param {BatchStatus} status
   * @param {number} [took]
   */
  show(status, took) {
    if (status.batch_id !== this.#batchId) return;
    const before = this.#status;
    this.#status = status;
    this.#events.answered(status);
    if (before && !FINAL.has(before.overall_status) && FINAL.has(status.overall_status))
      this.#events.completed(status);
    const badge = byId("ras-badge");
    const overall = status.overall_status;
    showState(badge, overall, BATCH[overall] ?? { words: overall, tone: "plain" });
    const body = byId("ras-body");
    const hint = h(
      "p",
      { class: "hint" },
      `Asked at ${clockTime(Date.now())}`,
      took === undefined ? "" : `, answered within ${duration(took)}`,
    );
    if (JSON.stringify(before) === JSON.stringify(status)) {
      // Who reads in the table, or stands in it with the keyboard, is not disturbed.
      body.firstElementChild?.replaceWith(this.#agreement(status));
      body.lastElementChild?.replaceWith(hint);
      return;
    }
    const open = body.querySelector("details")?.open ?? false;
    const place = body.querySelector(".scroll")?.scrollTop ?? 0;
    keepingFocus(body, () =>
      body.replaceChildren(this.#agreement(status), table(status), raw(status, open), hint),
    );
    body.querySelector(".scroll")?.scrollTo({ top: place });
  }

  /**
   * Asks again after so many milliseconds.
   *
   * @param {number} wait
   */
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

  /**
   * Shows why there is no answer, beside the last one.
   *
   * @param {unknown} error
   */
  #trouble(error) {
    const unknown = error instanceof ApiError && error.status === 404;
    const text = unknown
      ? "RAS has not heard of this batch yet."
      : `${error instanceof Error ? error.message : error}.`;
    if (unknown || !this.#status) {
      this.#status = undefined;
      byId("ras-body").replaceChildren(h("p", { class: "hint" }, text));
    } else byId("ras-body").lastElementChild?.replaceChildren(`${text} This is its last answer.`);
  }

  /** True if RAS and the board do not know of the same number of slots. */
  #differs() {
    if (!this.#status) return true;
    const { filled, refused } = this.#board;
    return known(this.#status) !== filled || (this.#status.excess?.length ?? 0) !== refused;
  }

  /**
   * Finds out whether a notification was lost. Usually what RAS knows first is told here a moment later.
   *
   * @param {BatchStatus} status
   */
  #notice(status) {
    const { filled } = this.#board;
    if (known(status) <= filled) this.#ahead = { since: Infinity, filled };
    else if (this.#ahead.since === Infinity || this.#ahead.filled !== filled)
      this.#ahead = { since: now(), filled };
    else if (now() - this.#ahead.since >= DIFFERS_MS) this.#events.missed(status);
  }

  /**
   * Says whether RAS and the board tell the same story.
   *
   * @param {BatchStatus} status
   */
  #agreement(status) {
    const theirs = known(status);
    const ours = this.#board.filled;
    const same =
      theirs === ours &&
      status.essays.every((essay, slot) => (essay.file_upload_id ?? undefined) === this.#board.slots[slot]);
    const left = status.excess?.length ?? 0;
    const text = same
      ? `The same story as the slots: ${theirs} of ${counted(status.essay_count, "essay")} assigned${left ? `, ${counted(left, "file")} without a slot` : ""}`
      : `RAS knows of ${theirs} assigned, this page of ${ours}; one of them is about to hear`;
    return h("p", { class: "agreement", "data-state": same ? "same" : "differs" }, text);
  }
}

/**
 * Counts the essays that RAS knows a file of.
 *
 * @param {BatchStatus} status
 */
function known(status) {
  return status.essays.filter((essay) => essay.file_upload_id).length;
}

/**
 * Makes the table of essays.
 *
 * @param {BatchStatus} status
 */
function table(status) {
  const rows = status.essays.map((essay, index) =>
    h(
      "tr",
      { "data-state": essay.file_upload_id ? "filled" : "free" },
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
 * Makes the answer as it came, to be opened by whoever wants to see it.
 *
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
