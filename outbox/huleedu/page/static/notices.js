/** What has just happened, in a line that goes by itself; read out by screen readers. */

import { byId, h } from "./dom.js";

const SHOWN_MS = 6_000;
const TOGETHER_MS = 250;
const AT_ONCE = 3;

/** @param {string} text */
export function showNotification(text) {
  const list = byId("notices");
  const notice = h("p", { class: "notice" }, text);
  list.append(notice);
  while (list.children.length > AT_ONCE) list.firstElementChild?.remove();
  setTimeout(() => notice.remove(), SHOWN_MS);
}

/** @type {Array<{name: string, slot: number}>} */
let assigned = [];

/**
 * Many at once are told in one line.
 *
 * @param {string} name
 * @param {number} slot from zero
 */
export function tellAssigned(name, slot) {
  if (assigned.length === 0) setTimeout(tell, TOGETHER_MS);
  assigned.push({ name, slot });
}

function tell() {
  const [first, ...others] = assigned;
  assigned = [];
  if (!first) return;
  const rest =
    others.length === 0
      ? `assigned to essay slot ${first.slot + 1}`
      : `and ${others.length} more assigned to essay slots`;
  showNotification(`File “${first.name}” ${rest}`);
}
