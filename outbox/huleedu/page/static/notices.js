/**
 * What has just happened: the newest lines where everybody sees them, and those before in a list.
 *
 * They stand in the page and not above it, so they cover nothing. Screen readers read the new ones out.
 */

import { byId, h } from "./dom.js";
import { clockTime, counted } from "./format.js";

/** @typedef {import("./uploads.js").Essay} Essay */

const SHOWN_MS = 15_000;
/** What is said together waits for so long. */
export const TOGETHER_MS = 250;
const AT_ONCE = 3;
const KEPT = 100;

/**
 * Shows a line for some time, and keeps it in the list then.
 *
 * @param {string} text
 */
export function showNotice(text) {
  const shown = byId("notices");
  byId("news").hidden = false;
  const notice = h("p", { class: "notice" }, h("time", {}, clockTime(Date.now())), h("span", {}, text));
  shown.append(notice);
  while (shown.children.length > AT_ONCE) keep(shown.firstElementChild);
  later(notice);
}

/** Forgets everything: somebody else uses the window. */
export function clearNotices() {
  gathered.clear();
  byId("notices").replaceChildren();
  byId("earlier-list").replaceChildren();
  byId("earlier").hidden = byId("news").hidden = true;
}

/**
 * Keeps a notice in the list once it was shown for long enough. In a window that nobody looks at, none was.
 *
 * @param {Element} notice
 */
function later(notice) {
  setTimeout(() => {
    if (!notice.isConnected || notice.parentElement?.id !== "notices") return;
    if (document.hidden) addEventListener("visibilitychange", () => later(notice), { once: true });
    else keep(notice);
  }, SHOWN_MS);
}

/** @param {Element | null} notice */
function keep(notice) {
  const list = byId("earlier-list");
  const line = h("li");
  line.append(...(notice?.childNodes ?? []));
  notice?.remove();
  list.prepend(line);
  while (list.children.length > KEPT) list.lastElementChild?.remove();
  byId("earlier").hidden = false;
  byId("earlier-count").textContent = counted(list.children.length, "earlier notice");
}

/** What is said of one upload, and of several. */
const LINES = {
  assigned: {
    one: (/** @type {Essay} */ { name, slot }) => `File “${name}” assigned to essay slot ${Number(slot) + 1}`,
    many: (/** @type {string} */ them) => `Files ${them} assigned to essay slots`,
  },
  duplicate: {
    one: (/** @type {Essay} */ { name, slot }) => `“${name}” has the text of essay slot ${Number(slot) + 1}`,
    many: (/** @type {string} */ them) => `${them} have texts that have slots already`,
  },
  excess: {
    one: (/** @type {Essay} */ { name }) => `No slot was left for “${name}”`,
    many: (/** @type {string} */ them) => `No slot was left for ${them}`,
  },
  failed: {
    one: (/** @type {Essay} */ { name, trouble }) => `“${name}” was not taken: ${trouble}`,
    many: (/** @type {string} */ them) => `${them} were not taken`,
  },
};

/** @type {Map<keyof typeof LINES, Essay[]>} */
const gathered = new Map(); // what is said together in a moment

/**
 * Says what became of an upload. Of many at once it says so in one line.
 *
 * @param {keyof typeof LINES} what
 * @param {Essay} essay
 */
export function announce(what, essay) {
  const together = gathered.get(what);
  if (together) {
    together.push(essay);
    return;
  }
  const essays = [essay];
  gathered.set(what, essays);
  setTimeout(() => {
    if (gathered.get(what) !== essays) return;
    gathered.delete(what);
    const { one, many } = LINES[what];
    showNotice(essays.length === 1 ? one(essay) : many(`“${essay.name}” and ${essays.length - 1} more`));
  }, TOGETHER_MS);
}
