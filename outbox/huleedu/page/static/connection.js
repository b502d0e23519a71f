/** Says whether the page is told of what happens, and if not, what it does instead. */

import { byId, h } from "./dom.js";

/** @typedef {import("/client/options.js").Status} Status */

const PILLS = {
  open: "Live",
  connecting: "Connecting…",
  polling: "No live connection",
  stopped: "Not connected",
};

const FALL_BACK =
  "Nothing is lost, and you can go on uploading. This page asks its server about every three seconds for what " +
  "has changed, and goes back to live as soon as it can connect again.";

/**
 * @param {Status} status
 * @param {() => void} again connects anew, once the client has given up
 */
export function showConnection(status, again) {
  const pill = byId("connection");
  pill.hidden = false;
  pill.dataset["state"] = status.state;
  pill.textContent = PILLS[status.state];
  pill.title = status.reason;
  const banner = byId("banner");
  const lines = explained(status, again);
  banner.hidden = lines.length === 0;
  banner.dataset["state"] = status.state;
  banner.replaceChildren(...lines);
}

/**
 * @param {Status} status
 * @param {() => void} again
 */
function explained({ state, reason }, again) {
  const [why = "", asking] = reason.split("; asking: ");
  switch (state) {
    case "open":
    case "connecting":
      return [];
    case "polling":
      return [
        h("strong", {}, "There is no live connection"),
        h(
          "p",
          {},
          `Why: ${sentence(why)} `,
          h("br"),
          asking === undefined
            ? FALL_BACK
            : `Asking does not work now either: ${sentence(plain(asking))} Both are tried again and again.`,
        ),
      ];
    case "stopped":
      return [
        h("strong", {}, `This page is not told of changes any more: ${sentence(why)}`),
        h("p", {}, h("button", { type: "button", onclick: again }, "Connect again")),
      ];
  }
}

/** @param {string} text */
function sentence(text) {
  return `${text.replace(/[.!]$/, "")}.`;
}

/** @param {string} trouble */
function plain(trouble) {
  return /^TypeError|^TimeoutError/.test(trouble) ? "the page's server cannot be reached" : trouble;
}
