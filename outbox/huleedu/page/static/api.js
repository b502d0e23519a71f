/** The page's server, asked as the user who was picked. */

/** An answer that is an error, or none: then `status` is 0. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** Whether the same may succeed a little later. */
  get passes() {
    return this.status === 0 || this.status === 408 || this.status === 503;
  }
}

export class Api {
  /** @type {Promise<string> | undefined} */
  #token;

  /** @param {string} user */
  constructor(user) {
    this.user = user;
  }

  /** A new token. Requests use the last one. */
  login() {
    const asked = ask("/v1/demo/login", posted({ user: this.user })).then(({ token }) => token);
    this.#token = asked;
    asked.catch(() => {
      if (this.#token === asked) this.#token = undefined;
    });
    return asked;
  }

  /**
   * What the server answers, as JSON.
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

  async batches() {
    return (await this.request("/v1/batches")).batches;
  }

  /** @param {object} batch */
  createBatch(batch) {
    return this.request("/v1/batches", posted(batch));
  }

  /** @param {string} batchId */
  async files(batchId) {
    return (await this.request(`/v1/batches/${batchId}/files`)).files;
  }

  /** @param {string} batchId */
  status(batchId) {
    return this.request(`/v1/batches/${batchId}/status`);
  }

  /** @param {string} uploadId */
  way(uploadId) {
    return this.request(`/v1/uploads/${uploadId}/way`);
  }

  /**
   * @param {string} batchId
   * @param {string} uploadId
   * @param {File} file
   */
  upload(batchId, uploadId, file) {
    const query = new URLSearchParams({ name: file.name, upload_id: uploadId });
    const headers = { "Content-Type": "application/octet-stream" };
    return this.request(`/v1/batches/${batchId}/files?${query}`, { method: "POST", headers, body: file });
  }
}

/** What the page has to know of the server. */
export function settings() {
  return ask("/v1/page");
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
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ApiError(answer.status, said.error ?? `The server answered ${answer.status}`);
  return said;
}
