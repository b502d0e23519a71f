/** What stands above a batch: which there are, and the facts of the one that is open. */

import { byId, h } from "./dom.js";
import { clockTime, counted } from "./format.js";

/** @typedef {import("./api.js").Batch} Batch */

/**
 * Shows which batches there are, and the facts of the one that is open.
 *
 * @param {Batch[]} batches
 * @param {Batch | undefined} batch
 */
export function showBatch(batches, batch) {
  byId("batches").replaceChildren(
    ...batches.map((each) => h("option", { value: each.batch_id, selected: each === batch }, nameOf(each))),
  );
  byId("choose").hidden = batches.length < 2;
  byId("batch-title").textContent = batch ? nameOf(batch) : "A new batch";
  byId("facts").textContent = batch
    ? [batch.course_code, counted(batch.slots, "essay"), `created at ${clockTime(batch.created_at)}`]
        .filter(Boolean)
        .join(" · ")
    : "Each essay of a batch has a slot. The files that you drop then find theirs.";
  byId("board").hidden = byId("ras").hidden = !batch;
  byId("columns").classList.toggle("empty", !batch);
  byId("new", HTMLDetailsElement).open = !batch;
}

/**
 * Says what a batch is called.
 *
 * @param {Batch} batch
 */
function nameOf(batch) {
  return batch.title ?? `Batch of ${clockTime(batch.created_at)}`;
}
