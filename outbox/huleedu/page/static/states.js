/** Every state that the page shows: its words, and its tone, which the stylesheet gives a colour. */

import { present } from "./dom.js";

/**
 * @typedef {import("./dom.js").Child} Child
 * @typedef {"plain" | "good" | "warn" | "bad"} Tone
 * @typedef {{words: string, tone: Tone}} State
 */

/** @type {Record<import("/client/options.js").Status["state"], State>} whether this page is told of changes */
export const CONNECTION = {
  open: { words: "Live", tone: "good" },
  connecting: { words: "Connecting…", tone: "warn" },
  polling: { words: "No live connection", tone: "warn" },
  stopped: { words: "Not connected", tone: "bad" },
};

/** @type {Record<import("./uploads.js").Essay["state"], State>} how far an upload is */
export const ESSAY = {
  waiting: { words: "Waits its turn", tone: "plain" },
  sending: { words: "Uploading…", tone: "plain" },
  stored: { words: "Uploaded, waits for a slot", tone: "plain" },
  assigned: { words: "Has its slot", tone: "good" },
  duplicate: { words: "Its text has a slot already", tone: "good" },
  excess: { words: "Uploaded, but no slot was left", tone: "warn" },
  failed: { words: "It failed", tone: "bad" },
};

/** @type {Record<import("/client/messages.js").OverallStatus, State>} how far a batch is, as RAS says it */
export const BATCH = {
  pending_content: { words: "waits for content", tone: "plain" },
  ready: { words: "ready", tone: "good" },
  processing: { words: "processing", tone: "plain" },
  completed_successfully: { words: "completed", tone: "good" },
  completed_with_failures: { words: "completed with failures", tone: "warn" },
  failed: { words: "failed", tone: "bad" },
  cancelled: { words: "cancelled", tone: "plain" },
};

/** @type {Record<import("./api.js").Delivery["state"], string>} how far a delivery is, as the outbox says it */
export const DELIVERY = {
  scheduled: "waits for its time",
  ready: "not sent yet",
  held: "waits behind an earlier one",
  retrying: "failed, is tried again",
  parked: "was given up for now; a person decides",
  delivered: "is there",
  expired: "came too late to be worth telling",
  skipped: "was skipped by a person",
};

/**
 * Shows on an element how far something is: in words, in a colour, and for the stylesheet by its name.
 *
 * @param {HTMLElement} element
 * @param {string} name
 * @param {State} state
 * @param {...Child} more stands after the words
 */
export function showState(element, name, { words, tone }, ...more) {
  element.dataset["state"] = name;
  element.dataset["tone"] = tone;
  element.replaceChildren(words, ...present(more));
}
