/** What a page tells the client, and what it gets. */
/** The waits where `timing` names no others. */
export const TIMING = {
    firstRetry: 500,
    longestRetry: 30_000,
    restart: 5_000,
    handshake: 10_000,
    settle: 200,
    stable: 5_000,
    heartbeat: 15_000,
    silence: 25_000,
    token: 10_000,
    renewBefore: 60_000,
    pollAfter: 2_000,
    pollAfterLoss: 10_000,
    pollEvery: 3_000,
    ask: 10_000,
    resyncWithin: 10_000,
};
