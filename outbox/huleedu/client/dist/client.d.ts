/**
 * A teacher's notifications, whatever happens to the connection.
 *
 * They come over a WebSocket. When it is lost the client connects again and asks for what it missed
 * meanwhile; when none can be had it asks the page's server now and then, until there is one again.
 *
 * @packageDocumentation
 */
import { type Connection, type ConnectOptions } from "./options.js";
export type { Token } from "./credential.js";
export * from "./messages.js";
export * from "./options.js";
export type { PollOptions } from "./poll.js";
/**
 * Connects, and keeps connected until `close`.
 *
 * @throws TypeError if an address in the options is none.
 */
export declare function connect(options: ConnectOptions): Connection;
