/** What becomes of the page and its network: seen or hidden, frozen or woken, with a network or without. */
export interface Moments {
    /** Somebody may look again, or the page runs again. */
    woke(): void;
    /** The page is about to stand still, for how long nobody knows. */
    froze(): void;
    online(): void;
    offline(): void;
}
/** Whether nobody can see the page. Where there is no page, somebody always looks. */
export declare function hidden(): boolean;
/** Tells of these moments until the function that is returned is called. */
export declare function watch(moments: Moments): () => void;
