/** What one user has open in this window: the batches, the uploads, and what is shown of them. */

import { connect } from "/client/client.js";
import { assignmentsIn, isSlotAssigned } from "/client/messages.js";
import { Api } from "./api.js";
import { Board } from "./board.js";
import { Clock, now } from "./clock.js";
import { showConnection } from "./connection.js";
import { showBatch } from "./heading.js";
import { askBeforeLeaving } from "./leaving.js";
import { announce, clearNotices, showNotice, TOGETHER_MS } from "./notices.js";
import { RasPanel } from "./ras.js";
import { BATCH } from "./states.js";
import { loading } from "./trouble.js";
import { Uploads } from "./uploads.js";
import { WayPanel } from "./way.js";

/**
 * @typedef {import("./uploads.js").Essay} Essay
 * @typedef {import("./board.js").Assignment} Assignment
 * @typedef {import("./ras.js").BatchStatus} BatchStatus
 * @typedef {import("./api.js").Batch} Batch
 * @typedef {import("./board.js").Excess & {batch_id: string}} Excess
 * @typedef {import("./api.js").Config} Config
 */

/** Everything of one user in this window. */
export class Session {
  #config;
  #api;
  #board;
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
  /** @type {Map<string, number>} when the socket told of an upload, by its id */
  #toldAt = new Map();
  /** Whether what is shown at this moment was so before this window looked. */
  #quiet = false;
  /** @type {Set<string>} batches on which RAS has answered since they were opened: what is new then is news */
  #asked = new Set();
  /** @type {Set<string>} batches that this page has made, and not opened anew since */
  #made = new Set();
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
      filled: () => this.#filled(),
    });
    this.#ras = new RasPanel(this.#api, this.#board, {
      missed: (status) => this.#learn(status),
      answered: (status) => this.#refused(status),
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
    this.#asked.add(batch.batch_id);
    this.#made.add(batch.batch_id);
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
    if (!batch) return;
    const uploads = this.#uploadsHere ?? this.#uploadsTo(batch);
    for (const essay of uploads.essays) this.#board.show(essay);
    this.#asked.delete(batch.batch_id);
    this.#made.delete(batch.batch_id);
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
    if (status.status === "fulfilled") this.#loaded(status.value); // Else the panel says so, and asks again.
    if (files.status === "rejected") throw files.reason;
  }

  /**
   * Shows what RAS knows of a batch that was just opened: none of that is news.
   *
   * @param {BatchStatus} status
   */
  #loaded(status) {
    this.#quietly(() => {
      for (const assignment of assignmentsIn(status)) this.#board.assign(assignment, {});
      this.#ras.show(status);
    });
  }

  /**
   * Shows something that was so before this window looked.
   *
   * @param {() => void} show
   */
  #quietly(show) {
    this.#quiet = true;
    show();
    this.#quiet = false;
  }

  /**
   * Tells whether it was in this window that an upload was made: whatever becomes of it is news.
   *
   * @param {{file_upload_id: string}} upload
   */
  #isOurs({ file_upload_id: id }) {
    return this.#board.essays.get(id)?.beganAt !== undefined;
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
        if (isSlotAssigned(message)) this.#toldAt.set(message.data.file_upload_id, now());
      },
      onSlotAssigned: (assignment, how) => {
        // Of a batch that this page has made, nothing was there before.
        this.#assigned(assignment, how.live || how.recovered || this.#made.has(assignment.batch_id));
      },
      onExcess: (excess, how) => this.#excess(excess, how.live || how.recovered),
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

  /**
   * Learns of slots from RAS that nothing else has told of.
   *
   * @param {BatchStatus} status
   */
  #learn(status) {
    for (const assignment of assignmentsIn(status)) this.#assigned(assignment, true);
  }

  /**
   * Learns of uploads without a slot from RAS.
   *
   * @param {BatchStatus} status
   */
  #refused(status) {
    const { batch_id } = status;
    const isNews = this.#asked.has(batch_id);
    this.#asked.add(batch_id);
    for (const file of status.excess ?? []) this.#excess({ ...file, batch_id }, isNews);
  }

  /**
   * Shows that no slot was left for an upload.
   *
   * @param {Excess} excess
   * @param {boolean} isNews
   */
  #excess(excess, isNews) {
    if (excess.batch_id !== this.#batch?.batch_id || !this.#board.refuse(excess)) return;
    const essay = this.#board.essays.get(excess.file_upload_id);
    if (!essay || !(isNews || this.#isOurs(excess))) return;
    announce("excess", essay);
    this.#way.follow(essay);
  }

  /** Says that the batch that is shown has everything now. */
  #filled() {
    if (this.#quiet) return;
    const { length } = this.#board.slots;
    const all = length === 1 ? "its slot is" : `all ${length} slots are`;
    // After what is said of the last of its files.
    setTimeout(() => this.#ended || showNotice(`The batch is complete: ${all} filled`), 2 * TOGETHER_MS);
  }

  /** Asks before the window is closed, as long as files are on their way. */
  #guard() {
    askBeforeLeaving(!this.#ended && [...this.#uploads.values()].some((uploads) => uploads.busy));
  }

  /**
   * Shows that an upload has its slot, which the socket told or asking brought.
   *
   * @param {Assignment} assignment
   * @param {boolean} isNews
   */
  #assigned(assignment, isNews) {
    if (assignment.batch_id !== this.#batch?.batch_id) return;
    if (!isNews && !this.#isOurs(assignment)) {
      this.#quietly(() => this.#board.assign(assignment, {}));
      return;
    }
    const toldAt = this.#toldAt.get(assignment.file_upload_id);
    const heard = toldAt === undefined ? "asked" : "told";
    if (!this.#board.assign(assignment, { heard, heardAt: toldAt ?? now() })) return;
    const essay = this.#board.essays.get(assignment.file_upload_id);
    if (!essay) return;
    announce(essay.state === "duplicate" ? "duplicate" : "assigned", essay);
    this.#way.follow(essay);
    this.#ras.compare();
  }
}
