/** What one user has open in this window: the batches, the uploads, and what is shown of them. */

import { connect } from "/client/client.js";
import { isSlotAssigned } from "/client/messages.js";
import { Api } from "./api.js";
import { Board } from "./board.js";
import { Clock } from "./clock.js";
import { showConnection } from "./connection.js";
import { showBatch } from "./heading.js";
import { askBeforeLeaving } from "./leaving.js";
import { announce, clearNotices, showNotice } from "./notices.js";
import { Outcomes } from "./outcomes.js";
import { RasPanel } from "./ras.js";
import { BATCH } from "./states.js";
import { loading } from "./trouble.js";
import { Uploads } from "./uploads.js";
import { WayPanel } from "./way.js";

/**
 * @typedef {import("./uploads.js").Essay} Essay
 * @typedef {import("./api.js").Batch} Batch
 * @typedef {import("./api.js").Config} Config
 */

/** Everything of one user in this window. */
export class Session {
  #config;
  #api;
  #board;
  #outcomes;
  #ras;
  #way;
  /** @type {Batch[]} the newest first */
  #batches = [];
  /** @type {Batch | undefined} */
  #batch;
  /** @type {Map<string, Uploads>} by batch; they go on while another batch is looked at */
  #uploads = new Map();
  /** @type {import("/client/client.js").Connection | undefined} */
  #connection;
  #ended = false;

  /**
   * @param {string} user
   * @param {Config} config
   */
  constructor(user, config) {
    this.#config = config;
    this.#api = new Api(user);
    this.#board = new Board({
      again: (essay) => this.#uploadsHere?.again(essay),
      chosen: (essay) => this.#way.follow(essay),
      filled: () => this.#outcomes.filled(),
    });
    this.#outcomes = new Outcomes(this.#board, (essay) => {
      this.#way.follow(essay);
      this.#ras.compare();
    });
    this.#ras = new RasPanel(this.#api, this.#board, {
      missed: (status) => this.#outcomes.learn(status),
      answered: (status) => this.#outcomes.refused(status),
      completed: (status) =>
        showNotice(`The batch is ${(BATCH[status.overall_status] ?? { words: "over" }).words}`),
    });
    this.#way = new WayPanel(this.#api, new Clock(), config.topics);
  }

  /** Connects, and shows the newest batch. */
  async start() {
    this.#connect();
    await loading("Your batches", async () => {
      const batches = await this.#api.batches();
      if (this.#ended) return;
      this.#batches = batches;
      this.#show(this.#batches[0]);
      void this.#loadHere();
    });
  }

  /** Ends it for good: somebody else uses the window. */
  end() {
    this.#ended = true;
    this.#connection?.close();
    this.#outcomes.end();
    for (const uploads of this.#uploads.values()) uploads.end();
    this.#ras.end();
    this.#way.end();
    this.#batches = [];
    this.#show(undefined);
    askBeforeLeaving(false);
    clearNotices();
  }

  /**
   * Makes a batch, and shows it.
   *
   * @param {import("./api.js").NewBatch} wanted
   */
  async create(wanted) {
    const batch = await this.#api.createBatch(wanted);
    if (this.#ended) return;
    this.#batches.unshift(batch);
    this.#show(batch);
    this.#outcomes.openNew(batch.batch_id);
    await this.#loadHere();
  }

  /**
   * Uploads files to the batch that is shown.
   *
   * @param {Iterable<File>} files
   */
  upload(files) {
    const uploads = this.#uploadsHere;
    if (uploads) uploads.add(files);
    else showNotice("Create a batch first, then drop its essays here");
  }

  /**
   * Shows one of the user's batches; without one, there is only the form.
   *
   * @param {string | undefined} batchId
   */
  async open(batchId) {
    this.#show(this.#batches.find((each) => each.batch_id === batchId));
    await this.#loadHere();
  }

  /**
   * Shows what is known here of a batch.
   *
   * @param {Batch | undefined} batch
   */
  #show(batch) {
    this.#batch = batch;
    this.#way.end();
    showBatch(this.#batches, batch);
    // What somebody else had open before stays nowhere.
    this.#board.open(batch?.slots ?? 0);
    this.#outcomes.open(batch?.batch_id);
    if (!batch) return;
    const uploads = this.#uploadsHere ?? this.#uploadsTo(batch);
    for (const essay of uploads.essays) this.#board.show(essay);
    this.#ras.watch(batch.batch_id);
  }

  /** Loads the batch that is shown, if there is one. */
  async #loadHere() {
    const batch = this.#batch;
    if (batch) await loading("The files of this batch", () => this.#load(batch));
  }

  /** The uploads to the batch that is shown. */
  get #uploadsHere() {
    return this.#batch && this.#uploads.get(this.#batch.batch_id);
  }

  /**
   * Begins to keep the uploads to a batch.
   *
   * @param {Batch} batch
   */
  #uploadsTo(batch) {
    const { limits } = this.#config;
    const changed = (/** @type {Essay} */ essay) => this.#changed(batch, essay);
    const uploads = new Uploads(this.#api, batch.batch_id, limits, changed, () => this.#guard());
    this.#uploads.set(batch.batch_id, uploads);
    return uploads;
  }

  /**
   * Fetches a batch's files and slots as they are now, and shows them.
   *
   * @param {Batch} batch
   */
  async #load(batch) {
    const [files, status] = await Promise.allSettled([
      this.#api.files(batch.batch_id),
      this.#api.status(batch.batch_id),
    ]);
    if (this.#ended || batch !== this.#batch) return;
    for (const file of files.status === "fulfilled" ? files.value : []) {
      const { file_upload_id: id, name, bytes } = file;
      if (!this.#board.essays.has(id)) {
        this.#board.show({ id, name: name ?? "without a name", bytes, state: "stored" });
      }
    }
    // Else the panel says so, and asks again.
    if (status.status === "fulfilled") {
      this.#outcomes.load(status.value);
      this.#ras.show(status.value);
    }
    if (files.status === "rejected") throw files.reason;
  }

  /** Connects to the gateway. */
  #connect() {
    this.#connection = connect({
      url: this.#config.gateway_url,
      token: () => this.#api.login(),
      poll: {
        url: location.origin,
        batchIds: () => (this.#batch ? [this.#batch.batch_id] : []),
        onBatch: (status) => this.#ras.show(status),
      },
      onEvent: (message) => {
        if (isSlotAssigned(message)) this.#outcomes.heard(message.data.file_upload_id);
      },
      onSlotAssigned: (slot, how) => this.#outcomes.assigned(slot, how.live || how.recovered),
      onExcess: (excess, how) => this.#outcomes.excess(excess, how.live || how.recovered),
      onResync: () => this.#ras.soon(),
      onStatus: (status) => {
        if (this.#ended) return;
        showConnection(status, () => this.#connection?.reconnect());
        this.#ras.pause(status.state === "polling");
      },
    });
  }

  /**
   * Shows that an upload to a batch is in another state.
   *
   * @param {Batch} batch
   * @param {Essay} essay
   */
  #changed(batch, essay) {
    this.#guard();
    if (batch !== this.#batch || this.#ended) return;
    this.#board.show(essay);
    if (essay.state === "stored") this.#way.follow(essay);
    if (essay.state === "failed") announce("failed", essay);
  }

  /** Asks before the window is closed, as long as files are on their way. */
  #guard() {
    askBeforeLeaving(!this.#ended && [...this.#uploads.values()].some((uploads) => uploads.busy));
  }
}
