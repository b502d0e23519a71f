/** One batch on the page: its slots as they fill, and its files as they find one. */

import { byId, h, keepingFocus, spoken } from "./dom.js";
import { counted, duration, size } from "./format.js";
import { ESSAY, showState } from "./states.js";

/**
 * @typedef {import("./uploads.js").Essay} Essay
 * @typedef {(essay: Essay) => void} OfEssay
 * @typedef {import("/client/messages.js").SlotAssignmentData & {duplicate_of?: string}} Assignment
 * @typedef {{file_upload_id: string, filename?: string | null | undefined}} Excess
 */

/** Shows one batch, and knows which upload has which slot. */
export class Board {
  /** @type {Map<string, Essay>} by upload id */
  essays = new Map();
  /** @type {Array<string | undefined>} the upload in each slot */
  slots = [];
  /** @type {Map<string, HTMLLIElement>} */
  #rows = new Map();
  /** @type {HTMLLIElement[]} */
  #tiles = [];
  #events;

  /** @param {{again: OfEssay, chosen: OfEssay, filled: () => void}} events called when they happen */
  constructor(events) {
    this.#events = events;
  }

  /** How many slots are filled. */
  get filled() {
    return this.slots.filter((id) => id !== undefined).length;
  }

  /** True if every slot is filled. */
  get full() {
    return this.slots.length > 0 && this.filled === this.slots.length;
  }

  /**
   * Shows a batch with so many slots, and nothing in them yet.
   *
   * @param {number} slots
   */
  open(slots) {
    this.essays.clear();
    this.#rows.clear();
    this.slots = Array(slots).fill(undefined);
    this.#tiles = this.slots.map((_, index) => tile(index));
    byId("slot-list").replaceChildren(...this.#tiles);
    byId("slot-list").classList.toggle("many", slots > 30);
    byId("file-list").replaceChildren();
    byId("files").hidden = true;
    this.#count();
  }

  /**
   * Shows a file that is new, or in another state than before.
   *
   * @param {Essay} essay
   */
  show(essay) {
    this.essays.set(essay.id, essay);
    let row = this.#rows.get(essay.id);
    if (!row) {
      row = h("li");
      this.#rows.set(essay.id, row);
      byId("file-list").append(row);
      byId("files").hidden = false;
    }
    row.dataset["state"] = essay.state;
    keepingFocus(row, () => row.replaceChildren(...this.#line(essay)));
    if (essay.state === "assigned") this.#fill(essay);
  }

  /**
   * Shows that an upload has its slot, or that its text has one. Returns whether that is news.
   *
   * @param {Assignment} data
   * @param {Pick<Essay, "heard" | "heardAt">} how
   */
  assign(data, how) {
    const { file_upload_id: id, slot_index: slot } = data;
    const essay = this.#known(id, data.filename);
    if (this.slots[slot] === id || (essay.state === "duplicate" && essay.slot === slot)) return false;
    if (data.duplicate_of !== undefined) {
      this.show(Object.assign(essay, how, { state: "duplicate", slot }));
      return true;
    }
    const wasFull = this.full;
    this.show(Object.assign(essay, how, { state: "assigned", slot }));
    if (this.full && !wasFull) this.#events.filled();
    return true;
  }

  /**
   * Shows that no slot was left for an upload. Returns whether that is news.
   *
   * @param {Excess} data
   */
  refuse({ file_upload_id: id, filename }) {
    const essay = this.#known(id, filename ?? null);
    if (essay.state === "excess" || essay.slot !== undefined) return false;
    this.show(Object.assign(essay, { state: "excess" }));
    return true;
  }

  /** How many uploads found no slot. */
  get refused() {
    return [...this.essays.values()].filter((essay) => essay.state === "excess").length;
  }

  /**
   * Returns the upload of this id; one that this page has not heard of is made.
   *
   * @param {string} id
   * @param {string | null} name
   * @returns {Essay}
   */
  #known(id, name) {
    return this.essays.get(id) ?? { id, name: name ?? "without a name", bytes: null, state: "stored" };
  }

  /**
   * Shows an upload in its slot.
   *
   * @param {Essay} essay
   */
  #fill(essay) {
    const slot = Number(essay.slot);
    const tile = this.#tiles[slot];
    if (!tile || this.slots[slot] === essay.id) return;
    this.slots[slot] = essay.id;
    fill(tile, slot, essay);
    this.#count();
  }

  #count() {
    const { filled, slots } = this;
    byId("count").textContent = this.full
      ? `All ${counted(slots.length, "slot")} filled`
      : `${filled} of ${slots.length} filled`;
    byId("count").dataset["state"] = this.full ? "full" : "filling";
  }

  /**
   * Makes what stands in the line of a file.
   *
   * @param {Essay} essay
   */
  #line(essay) {
    const stored = essay.state !== "failed" && essay.state !== "waiting";
    const name = stored
      ? h(
          "button",
          { type: "button", class: "name", title: "Show its way", onclick: () => this.#events.chosen(essay) },
          essay.name,
        )
      : h("span", { class: "name" }, essay.name);
    const parts = [
      name,
      h("span", { class: "bytes" }, essay.bytes === null ? "" : size(essay.bytes)),
      stage(essay),
    ];
    if (essay.state === "failed" && !essay.hopeless) {
      const again = () => this.#events.again(essay);
      parts.push(
        h(
          "button",
          { type: "button", class: "again", onclick: again },
          "Try again",
          spoken(` with ${essay.name}`),
        ),
      );
    }
    return parts;
  }
}

/**
 * Makes what says how far a file is.
 *
 * @param {Essay} essay
 */
function stage(essay) {
  const element = h("span", { class: "stage" });
  const state = { ...ESSAY[essay.state], ...exactly(essay) };
  showState(element, essay.state, state, essay.state === "assigned" ? h("small", {}, since(essay)) : null);
  return element;
}

/**
 * Says more exactly how far a file is, where there is more to say.
 *
 * @param {Essay} essay
 * @returns {{words?: string}}
 */
function exactly({ state, slot, trouble }) {
  if (state === "assigned") return { words: `Slot ${Number(slot) + 1}` };
  if (state === "duplicate") return { words: `Same text as slot ${Number(slot) + 1}` };
  if (trouble === undefined) return {};
  return { words: state === "sending" ? `${trouble}; trying again` : trouble };
}

/**
 * Says how this page learnt of a slot, or how long that took.
 *
 * @param {Essay} essay
 */
function since({ beganAt, heardAt, heard }) {
  if (heard === "asked") return " learnt by asking";
  return beganAt !== undefined && heardAt !== undefined ? ` after ${duration(heardAt - beganAt)}` : "";
}

/**
 * Makes what shows a slot that is free.
 *
 * @param {number} index
 */
function tile(index) {
  return h(
    "li",
    { class: "slot", "data-state": "free" },
    h("span", { class: "number" }, spoken("Slot "), String(index + 1)),
    h("span", { class: "what" }, "free"),
  );
}

/**
 * Shows that a slot is filled, and by what.
 *
 * @param {HTMLLIElement} tile
 * @param {number} slot
 * @param {Essay} essay
 */
function fill(tile, slot, essay) {
  tile.dataset["state"] = "filled";
  tile.title = essay.name;
  tile.replaceChildren(
    h("span", { class: "number" }, spoken("Slot "), String(slot + 1)),
    h("span", { class: "what" }, essay.name),
  );
}
