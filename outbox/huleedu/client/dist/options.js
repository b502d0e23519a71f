/** What a page tells the client, and what it gets. */
export const TIMING = {
    firstRetry: 500,
    longestRetry: 30_000,
    handshake: 10_000,
    settle: 200,
    stable: 5_000,
    pollAfter: 2_000,
    pollEvery: 3_000,
};
