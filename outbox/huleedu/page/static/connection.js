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
 * Shows what everybody must see, unless it is there already: it is read out whenever it changes.
 *
 * @param {import("./states.js").Tone} tone
 * @param {HTMLElement[]} lines
 */
function showBanner(tone, lines) {
  const banner = byId("banner");
  const box = h("div", { class: "banner", "data-tone": tone }, ...lines);
  if (banner.textContent === box.textContent) return;
  banner.replaceChildren(...(lines.length ? [box] : []));
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

/** Why a token was refused, as the gateway says it. */
const REFUSALS = new Map([
  ["expired", "the token has expired"],
  ["early", "the token is not good yet; a clock may be wrong"],
  ["signature", "the token was refused"],
  ["claims", "the token was refused"],
  ["revoked", "you were signed out"],
]);

/** @param {string} text */
function sentence(text) {
  return `${(REFUSALS.get(text) ?? text).replace(/[.!]$/, "")}.`;
}

/**
 * Says what the names of JavaScript's errors mean.
 *
 * @param {string} trouble
 */
function plain(trouble) {
  return /^TypeError|^TimeoutError/.test(trouble) ? "the page's server cannot be reached" : trouble;
}
