/** What comes over the wire: from the WebSocket gateway, and from the page's server. */
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
export function isSlotAssigned(message) {
    const { event, data } = message;
    return (event === "essay_slot_assigned" &&
        isObject(data) &&
        ["batch_id", "essay_id", "file_upload_id"].every((name) => typeof data[name] === "string"));
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
function isNotification(value) {
    if (!isObject(value))
        return false;
    const { event, message_id: id } = value;
    return typeof event === "string" && (id === undefined || typeof id === "string");
}
function isObject(value) {
    return typeof value === "object" && value !== null;
}
