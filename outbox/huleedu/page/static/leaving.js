/** Asks whoever leaves the page while files are on their way whether they mean it. */

let asks = false;

/** @param {BeforeUnloadEvent} event */
function ask(event) {
  event.preventDefault();
}

/**
 * Begins to ask, or no longer does. A page that always asks could not be kept for going back to it.
 *
 * @param {boolean} on
 */
export function askBeforeLeaving(on) {
  if (asks === on) return;
  asks = on;
  if (on) addEventListener("beforeunload", ask);
  else removeEventListener("beforeunload", ask);
}
