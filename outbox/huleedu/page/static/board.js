/** One batch on the page: its slots as they fill, and its files as they find one. */

import { byId, h, spoken } from "./dom.js";
import { counted, duration, size } from "./format.js";

/**
 * @typedef {import("./uploads.js").Essay} Essay
 * @typedef {(essay: Essay) => void} Told
 * @typedef {import("/client/messages.js").SlotAssignmentData} Assignment
 */

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

  /** @param {{again: Told, chosen: Told, excess: Told, filled: () => void}} events */
  constructor(events) {
    this.#events = events;
  }

  get filled() {
    return this.slots.filter((id) => id !== undefined).length;
  }

  get full() {
    return this.slots.length > 0 && this.filled === this.slots.length;
  }

  /** @param {number} slots */
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

  /** @param {Essay} essay new, or with another state */
  show(essay) {
    this.essays.set(essay.id, essay);
    this.#judge(essay);
    let row = this.#rows.get(essay.id);
    if (!row) {
      row = h("li");
      this.#rows.set(essay.id, row);
      byId("file-list").append(row);
      byId("files").hidden = false;
    }
    const focused = row.contains(document.activeElement);
    row.dataset["state"] = essay.state;
    row.replaceChildren(...this.#line(essay));
    if (focused) row.querySelector("button")?.focus();
  }

  /**
   * Gives an upload its slot; says whether that is news.
   *
   * @param {Assignment} data
   * @param {Pick<Essay, "heard" | "heardAt">} how
   */
  assign(data, how) {
    const { file_upload_id: id, slot_index: slot } = data;
    if (this.slots[slot] === id) return false;
    const was = this.essays.get(id) ?? { id, name: data.filename ?? "without a name", bytes: null };
    const essay = /** @type {Essay} */ (Object.assign(was, how, { state: "assigned", slot }));
    const wasFull = this.full;
    this.slots[slot] = id;
    this.show(essay);
    fill(this.#tiles[slot], slot, essay);
    this.#count();
    if (this.full && !wasFull) {
      for (const each of this.essays.values()) if (each.state === "stored") this.show(each);
      this.#events.filled();
    }
    return true;
  }

  /**
   * Slots are never given back: what has none when all are taken will not get one.
   *
   * @param {Essay} essay
   */
  #judge(essay) {
    if (essay.state !== "stored" || !this.full) return;
    essay.state = "excess";
    this.#events.excess(essay);
  }

  #count() {
    const { filled, slots } = this;
    byId("count").textContent = this.full
      ? `All ${counted(slots.length, "slot")} filled`
      : `${filled} of ${slots.length} filled`;
    byId("count").classList.toggle("done", this.full);
  }

  /** @param {Essay} essay */
  #line(essay) {
    const known = essay.state !== "failed" && essay.state !== "waiting";
    const name = known
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

/** @param {Essay} essay */
function stage(essay) {
  const { state, trouble } = essay;
  switch (state) {
    case "waiting":
      return h("span", { class: "stage" }, "Waits its turn");
    case "sending":
      return h("span", { class: "stage busy" }, trouble ? `${trouble}; trying again` : "Uploading…");
    case "stored":
      return h("span", { class: "stage busy" }, "Uploaded, waits for a slot");
    case "assigned":
      return h(
        "span",
        { class: "stage good" },
        `Slot ${Number(essay.slot) + 1}`,
        h("small", {}, since(essay)),
      );
    case "excess":
      return h("span", { class: "stage warn" }, "Uploaded, but no slot was left");
    case "failed":
      return h("span", { class: "stage bad" }, trouble ?? "It failed");
  }
}

/** @param {Essay} essay */
function since({ beganAt, heardAt, heard }) {
  if (heard === "asked") return " learnt by asking";
  return beganAt !== undefined && heardAt !== undefined ? ` after ${duration(heardAt - beganAt)}` : "";
}

/** @param {number} index */
function tile(index) {
  return h(
    "li",
    { class: "slot" },
    h("span", { class: "number" }, spoken("Slot "), String(index + 1)),
    h("span", { class: "what" }, "free"),
  );
}

/**
 * @param {HTMLLIElement | undefined} tile
 * @param {number} slot
 * @param {Essay} essay
 */
function fill(tile, slot, essay) {
  tile?.classList.add("filled");
  tile?.setAttribute("title", essay.name);
  tile?.replaceChildren(
    h("span", { class: "number" }, spoken("Slot "), String(slot + 1)),
    h("span", { class: "what" }, essay.name),
  );
}
