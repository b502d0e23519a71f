/** What becomes of the page and its network: seen or hidden, frozen or woken, with a network or without. */
/** Whether nobody can see the page. Where there is no page, somebody always looks. */
export function hidden() {
    return globalThis.document?.visibilityState === "hidden";
}
/** Tells of these moments until the function that is returned is called. */
export function watch(moments) {
    const over = new AbortController();
    const on = (target, name, tell) => target?.addEventListener?.(name, tell, { signal: over.signal });
    const page = globalThis.document;
    const window = globalThis;
    on(page, "visibilitychange", () => {
        if (!hidden())
            moments.woke();
    });
    on(page, "freeze", () => moments.froze());
    on(page, "resume", () => moments.woke());
    on(window, "pagehide", (event) => {
        // A page that is kept for the way back stands still, and may only be kept without a socket.
        if (event.persisted)
            moments.froze();
    });
    on(window, "pageshow", () => moments.woke());
    on(window, "online", () => moments.online());
    on(window, "offline", () => moments.offline());
    return () => over.abort();
}
