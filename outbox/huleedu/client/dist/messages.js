/** What comes over the wire: from the WebSocket gateway, and from the page's server. */
/** True if this is an answer on a batch, and not, say, the login page of a network. */
export function isBatchStatus(value) {
    if (!has(value, "batch_id"))
        return false;
    const { essays, excess = [] } = value;
    return [essays, excess].every((list) => Array.isArray(list) && list.every(isObject));
}
/** Reads what the gateway sent; null if it is no notification. */
export function parse(text) {
    if (typeof text !== "string")
        return null;
    try {
        const message = JSON.parse(text);
        return isNotification(message) ? message : null;
    }
    catch {
        return null;
    }
}
/** True if this tells of an assigned slot. */
export function isSlotAssigned(message) {
    return (message.event === "essay_slot_assigned" && has(message.data, "batch_id", "essay_id", "file_upload_id"));
}
/** True if this tells of a file for which no slot was left. */
export function isExcess(message) {
    return message.event === "essay_excess" && has(message.data, "batch_id", "file_upload_id");
}
/** The assignments that a batch's status tells of. */
export function* assignmentsIn(status) {
    for (const essay of status.essays) {
        if (essay.file_upload_id == null || essay.slot_index == null)
            continue;
        yield {
            batch_id: status.batch_id,
            essay_id: essay.essay_id,
            file_upload_id: essay.file_upload_id,
            filename: essay.filename ?? null,
            slot_index: essay.slot_index,
            text_storage_id: null,
            timestamp: essay.last_updated,
        };
    }
}
/** The files without a slot that a batch's status tells of. */
export function* excessIn(status) {
    for (const file of status.excess ?? []) {
        yield {
            batch_id: status.batch_id,
            file_upload_id: file.file_upload_id,
            filename: file.filename ?? null,
            reason: "NO_AVAILABLE_SLOT",
            timestamp: null,
        };
    }
}
function isNotification(value) {
    if (!isObject(value))
        return false;
    const { event, message_id: id } = value;
    return typeof event === "string" && (id === undefined || typeof id === "string");
}
/** True if these are there, as texts. */
function has(data, ...names) {
    return isObject(data) && names.every((name) => typeof data[name] === "string");
}
function isObject(value) {
    return typeof value === "object" && value !== null;
}
