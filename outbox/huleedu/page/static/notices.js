/** What has just happened, in a line that goes by itself; read out by screen readers. */

import { byId, h } from "./dom.js";

/** @typedef {import("./uploads.js").Essay} Essay */

const SHOWN_MS = 6_000;
const TOGETHER_MS = 250;
const AT_ONCE = 2;

/**
 * Shows a line for some seconds.
 *
 * @param {string} text
 */
export function showNotice(text) {
  const list = byId("notices");
  const notice = h("p", { class: "notice" }, text);
  list.append(notice);
  while (list.children.length > AT_ONCE) list.firstElementChild?.remove();
  setTimeout(() => notice.remove(), SHOWN_MS);
}

/** What is said of one upload, and of several. */
const LINES = {
  assigned: {
    one: (/** @type {Essay} */ { name, slot }) => `File “${name}” assigned to essay slot ${Number(slot) + 1}`,
    many: (/** @type {string} */ them) => `Files ${them} assigned to essay slots`,
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
  gathered.set(what, [essay]);
  setTimeout(() => {
    const others = (gathered.get(what)?.length ?? 1) - 1;
    gathered.delete(what);
    const { one, many } = LINES[what];
    showNotice(others === 0 ? one(essay) : many(`“${essay.name}” and ${others} more`));
  }, TOGETHER_MS);
}
