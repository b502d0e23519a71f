/** The page's server, asked as the user who was picked. */

/**
 * @typedef {{slots: number, file_bytes: number, file_name_characters: number}} Limits
 * @typedef {{content_provisioned: string, slot_assigned: string, excess_content: string}} Topics
 * @typedef {{gateway_url: string, users: string[], limits: Limits, topics: Topics}} Config
 * @typedef {{batch_id: string, title: string | null, course_code: string | null, slots: number, files: number,
 *   created_at: string}} Batch
 * @typedef {{slots: number, title?: unknown, course_code?: unknown}} NewBatch
 * @typedef {{file_upload_id: string, name: string | null, bytes: number, uploaded_at: string}} StoredFile
 * @typedef {import("/client/messages.js").BatchStatus} BatchStatus
 * @typedef {{sink: string, destination: string, attempts: number, settled_at: string | null,
 *   state: "scheduled" | "ready" | "held" | "retrying" | "parked" | "delivered" | "expired" | "skipped",
 *   partition: number | null, offset: number | null, receivers: number | null}} Delivery
 * @typedef {{message_id: string, type: string, written_at: string, committed_at: string | null,
 *   deliveries: Delivery[]}} Message
 * @typedef {{now: string, name: string | null, messages: Message[]}} Way
 */

/** An answer that is an error, or no answer: then `status` is 0. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** True if the same may succeed a little later. */
  get temporary() {
    return this.status === 0 || this.status === 408 || this.status === 503;
  }
}

/** Asks as one user. A token that has expired is replaced by a new one. */
export class Api {
  /** @type {Promise<string> | undefined} */
  #token;

  /** @param {string} user */
  constructor(user) {
    this.user = user;
  }

  /** Fetches a new token, which all later requests use. */
  login() {
    const asked = ask("/v1/demo/login", posted({ user: this.user })).then(({ token }) => token);
    this.#token = asked;
    asked.catch(() => {
      if (this.#token === asked) this.#token = undefined;
    });
    return asked;
  }

  /**
   * Asks the server with the user's token; returns its answer, which is JSON.
   *
   * @param {string} path
   * @param {RequestInit} [options]
   * @returns {Promise<any>}
   */
  async request(path, options = {}) {
    const authorized = (/** @type {string} */ token) => ({
      ...options,
      headers: { ...options.headers, Authorization: `Bearer ${token}` },
    });
    try {
      return await ask(path, authorized(await (this.#token ?? this.login())));
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      return await ask(path, authorized(await this.login()));
    }
  }

  /** @returns {Promise<Batch[]>} the user's, the newest first */
  async batches() {
    return (await this.request("/v1/batches")).batches;
  }

  /**
   * @param {NewBatch} batch
   * @returns {Promise<Batch>}
   */
  createBatch(batch) {
    return this.request("/v1/batches", posted(batch));
  }

  /**
   * @param {string} batchId
   * @returns {Promise<StoredFile[]>} in the order in which they came
   */
  async files(batchId) {
    return (await this.request(`/v1/batches/${batchId}/files`)).files;
  }

  /**
   * @param {string} batchId
   * @returns {Promise<BatchStatus>} what RAS says of it
   */
  status(batchId) {
    return this.request(`/v1/batches/${batchId}/status`);
  }

  /**
   * @param {string} uploadId
   * @returns {Promise<Way>} each message that it led to, and when
   */
  way(uploadId) {
    return this.request(`/v1/uploads/${uploadId}/way`);
  }

  /**
   * @param {string} batchId
   * @param {string} uploadId
   * @param {File} file
   * @returns {Promise<StoredFile>}
   */
  upload(batchId, uploadId, file) {
    const headers = {
      "Content-Type": "application/octet-stream",
      // Not in the URL, which stands in logs.
      "Content-Disposition": `attachment; filename*=UTF-8''${encoded(file.name)}`,
    };
    const url = `/v1/batches/${batchId}/files?upload_id=${uploadId}`;
    return this.request(url, { method: "POST", headers, body: file });
  }
}

/**
 * Asks what the page has to know of its server.
 *
 * @returns {Promise<Config>}
 */
export function config() {
  return ask("/v1/page");
}

/**
 * Encodes a text for a header, as RFC 5987 has it. Half a surrogate pair, which no encoding has, is replaced.
 *
 * @param {string} text
 */
function encoded(text) {
  const letters = Array.from(text, (letter) => (/^[\ud800-\udfff]$/.test(letter) ? "\ufffd" : letter));
  return encodeURIComponent(letters.join("")).replace(
    /['()*]/g,
    (letter) => `%${letter.charCodeAt(0).toString(16)}`,
  );
}

/**
 * @param {object} value
 * @returns {RequestInit}
 */
function posted(value) {
  return {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(value),
  };
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(60_000) });
  } catch (error) {
    throw new ApiError(0, "The server cannot be reached");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ApiError(answer.status, body.error ?? `The server answered ${answer.status}`);
  return body;
}
