/** What could not be loaded, with a way to try again. */

import { byId, h } from "./dom.js";

/**
 * Does something that may fail: says so then, and offers to try again. Returns once it is done or has failed.
 *
 * @param {string} what cannot be loaded then
 * @param {() => Promise<void>} load
 */
export async function loading(what, load) {
  const again = () => {
    byId("work").focus();
    void loading(what, load);
  };
  try {
    await load();
    byId("trouble").replaceChildren();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    byId("trouble").replaceChildren(
      h(
        "div",
        { class: "banner", "data-tone": "bad" },
        h("strong", {}, `${what} cannot be loaded: ${why}.`),
        h("p", {}, h("button", { type: "button", onclick: again }, "Try again")),
      ),
    );
  }
}
