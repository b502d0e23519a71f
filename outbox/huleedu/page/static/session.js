/** What one user has open in this window: the batches, the uploads, and what is shown of them. */

import { connect } from "/client/client.js";
import { assignmentsIn, isSlotAssigned } from "/client/messages.js";
import { Api } from "./api.js";
import { Board } from "./board.js";
import { Clock, now } from "./clock.js";
import { showConnection } from "./connection.js";
import { byId, h } from "./dom.js";
import { clockTime, counted } from "./format.js";
import { announce, showNotice } from "./notices.js";
import { RasPanel } from "./ras.js";
import { Uploads } from "./uploads.js";
import { WayPanel } from "./way.js";

/**
 * @typedef {import("./uploads.js").Essay} Essay
 * @typedef {import("/client/messages.js").SlotAssignmentData} Assignment
 * @typedef {import("./api.js").Batch} Batch
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
      excess: (essay) => announce("excess", essay),
      filled: () => showNotice(`All ${counted(this.#board.slots.length, "slot")} are filled`),
    });
    this.#ras = new RasPanel(this.#api, this.#board, (status) => this.#learn(status));
    this.#way = new WayPanel(this.#api, new Clock(), config.topics);
  }

  /** Connects, and shows the newest batch. */
  async start() {
    this.#connect();
    const batches = await this.#api.batches();
    if (this.#ended) return;
    this.#batches = batches;
    await this.open(this.#batches[0]?.batch_id);
  }

  /** Ends it for good: somebody else uses the window. */
  end() {
    this.#ended = true;
    this.#connection?.close();
    for (const uploads of this.#uploads.values()) uploads.end();
    this.#ras.end();
    this.#way.end();
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
    await this.open(batch.batch_id);
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
    const batch = this.#batches.find((each) => each.batch_id === batchId);
    this.#batch = batch;
    this.#way.end();
    showBatch(this.#batches, batch);
    if (!batch) return;
    this.#board.open(batch.slots);
    const uploads = this.#uploadsHere ?? this.#uploadsTo(batch);
    for (const essay of uploads.essays) this.#board.show(essay);
    this.#ras.watch(batch.batch_id);
    await this.#load(batch);
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
    const uploads = new Uploads(this.#api, batch.batch_id, limits, changed);
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
    if (status.status === "rejected") return; // The panel says so, and the client asks again.
    this.#ras.show(status.value);
    for (const assignment of assignmentsIn(status.value)) this.#board.assign(assignment, {});
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
      onSlotAssigned: (assignment) => this.#assigned(assignment),
      onResync: () => {
        if (this.#batch) void this.#load(this.#batch);
      },
      onStatus: (status) => {
        if (this.#ended) return;
        showConnection(status, () => this.#connect());
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
    if (batch !== this.#batch || this.#ended) return;
    this.#board.show(essay);
    if (essay.state === "stored" || essay.state === "excess") this.#way.follow(essay);
    if (essay.state === "failed") announce("failed", essay);
  }

  /**
   * Learns of slots from RAS that nothing else has told of.
   *
   * @param {import("/client/messages.js").BatchStatus} status
   */
  #learn(status) {
    for (const assignment of assignmentsIn(status)) this.#assigned(assignment);
  }

  /**
   * Shows that an upload has its slot, which the socket told or asking brought.
   *
   * @param {Assignment} assignment
   */
  #assigned(assignment) {
    if (assignment.batch_id !== this.#batch?.batch_id) return;
    const toldAt = this.#toldAt.get(assignment.file_upload_id);
    const heard = toldAt === undefined ? "asked" : "told";
    if (!this.#board.assign(assignment, { heard, heardAt: toldAt ?? now() })) return;
    const essay = this.#board.essays.get(assignment.file_upload_id);
    if (!essay) return;
    announce("assigned", essay);
    this.#way.follow(essay);
    this.#ras.compare();
  }
}

/**
 * Shows which batches there are, and the facts of the one that is open.
 *
 * @param {Batch[]} batches
 * @param {Batch | undefined} batch
 */
function showBatch(batches, batch) {
  byId("batches").replaceChildren(
    ...batches.map((each) => h("option", { value: each.batch_id, selected: each === batch }, nameOf(each))),
  );
  byId("choose").hidden = batches.length < 2;
  byId("batch-title").textContent = batch ? nameOf(batch) : "A new batch";
  byId("facts").textContent = batch
    ? [batch.course_code, counted(batch.slots, "essay"), `created at ${clockTime(batch.created_at)}`]
        .filter(Boolean)
        .join(" · ")
    : "Each essay of a batch has a slot. The files that you drop then find theirs.";
  byId("board").hidden = byId("ras").hidden = !batch;
  byId("columns").classList.toggle("empty", !batch);
  byId("new", HTMLDetailsElement).open = !batch;
}

/**
 * Says what a batch is called.
 *
 * @param {Batch} batch
 */
function nameOf(batch) {
  return batch.title ?? `Batch of ${clockTime(batch.created_at)}`;
}
