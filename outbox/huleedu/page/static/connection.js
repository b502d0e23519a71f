/** Says whether the page is told of what happens, and if not, what it does instead. */

import { byId, h } from "./dom.js";
import { CONNECTION, showState } from "./states.js";

/**
 * @typedef {import("/client/options.js").Status} Status
 * @typedef {import("./dom.js").Child} Child
 */

const FALL_BACK =
  "Nothing is lost, and you can go on uploading. This page asks its server about every three seconds for what " +
  "has changed, and goes back to live as soon as it can connect again.";

/**
 * Shows how the connection is.
 *
 * @param {Status} status
 * @param {() => void} connectAgain called when the user asks for it, once the client has given up
 */
export function showConnection(status, connectAgain) {
  const pill = byId("connection");
  pill.hidden = false;
  pill.title = status.reason;
  showState(pill, status.state, CONNECTION[status.state]);
  showBanner(CONNECTION[status.state].tone, explanation(status, connectAgain));
}

/**
 * Shows something that everybody must see above all else; nothing hides it again.
 *
 * @param {import("./states.js").Tone} tone
 * @param {HTMLElement[]} lines
 */
export function showBanner(tone, lines) {
  const banner = byId("banner");
  banner.hidden = lines.length === 0;
  banner.dataset["tone"] = tone;
  banner.replaceChildren(...lines);
}

/**
 * Says why there is no live connection, and what that means; says nothing while there is one.
 *
 * @param {Status} status
 * @param {() => void} connectAgain
 */
function explanation({ state, reason }, connectAgain) {
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
        h("p", {}, h("button", { type: "button", onclick: connectAgain }, "Connect again")),
      ];
  }
}

/** @param {string} text */
function sentence(text) {
  return `${text.replace(/[.!]$/, "")}.`;
}

/**
 * Says what the names of JavaScript's errors mean.
 *
 * @param {string} trouble
 */
function plain(trouble) {
  return /^TypeError|^TimeoutError/.test(trouble) ? "the page's server cannot be reached" : trouble;
}
