/** The upload page, composed: who it is, which batch, what comes in and what goes out. */

import { connect } from "/client/client.js";
import { assignmentsIn, isSlotAssigned } from "/client/messages.js";
import { Api, ApiError, settings } from "./api.js";
import { Board } from "./board.js";
import { Clock, now } from "./clock.js";
import { showConnection } from "./connection.js";
import { byId, h } from "./dom.js";
import { clockTime, counted, size, titled } from "./format.js";
import { showNotification, tell } from "./notices.js";
import { RasPanel } from "./ras.js";
import { Uploads } from "./uploads.js";
import { WayPanel } from "./way.js";

/**
 * @typedef {import("./uploads.js").Essay} Essay
 * @typedef {import("/client/messages.js").SlotAssignmentData} Assignment
 * @typedef {{slots: number, file_bytes: number, file_name_characters: number}} Limits
 * @typedef {{gateway_url: string, users: string[], limits: Limits}} Config
 * @typedef {{batch_id: string, title: string | null, course_code: string | null, slots: number, files: number,
 *   created_at: string}} Batch
 */

/** Everything of one user in this window. */
class Session {
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
  /** @type {Map<string, number>} when the socket told of which upload */
  #told = new Map();
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
      excess: (essay) => tell("excess", essay),
      filled: () => showNotification(`All ${counted(this.#board.slots.length, "slot")} are filled`),
    });
    this.#ras = new RasPanel(this.#api, this.#board, (status) => this.#learn(status));
    this.#way = new WayPanel(this.#api, new Clock());
  }

  async start() {
    this.#connect();
    const batches = await this.#api.batches();
    if (this.#ended) return;
    this.#batches = batches;
    await this.open(this.#batches[0]?.batch_id);
  }

  end() {
    this.#ended = true;
    this.#connection?.close();
    for (const uploads of this.#uploads.values()) uploads.end();
    this.#ras.end();
    this.#way.end();
  }

  /** @param {object} wanted */
  async create(wanted) {
    const batch = await this.#api.createBatch(wanted);
    if (this.#ended) return;
    this.#batches.unshift(batch);
    await this.open(batch.batch_id);
  }

  /** @param {Iterable<File>} files */
  upload(files) {
    const uploads = this.#uploadsHere;
    if (uploads) uploads.add(files);
    else showNotification("Create a batch first, then drop its essays here");
  }

  /** @param {string | undefined} batchId one of the user's, or none: then there is only the form */
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

  get #uploadsHere() {
    return this.#batch && this.#uploads.get(this.#batch.batch_id);
  }

  /** @param {Batch} batch */
  #uploadsTo(batch) {
    const { limits } = this.#config;
    const changed = (/** @type {Essay} */ essay) => this.#changed(batch, essay);
    const uploads = new Uploads(this.#api, batch.batch_id, limits, changed);
    this.#uploads.set(batch.batch_id, uploads);
    return uploads;
  }

  /** @param {Batch} batch its files and slots as they are now */
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
        if (isSlotAssigned(message)) this.#told.set(message.data.file_upload_id, now());
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
   * @param {Batch} batch
   * @param {Essay} essay an upload to it has another state
   */
  #changed(batch, essay) {
    if (batch !== this.#batch || this.#ended) return;
    this.#board.show(essay);
    if (essay.state === "stored" || essay.state === "excess") this.#way.follow(essay);
    if (essay.state === "failed") tell("failed", essay);
  }

  /** @param {import("/client/messages.js").BatchStatus} status tells of slots that nothing has told of */
  #learn(status) {
    for (const assignment of assignmentsIn(status)) this.#assigned(assignment);
  }

  /** @param {Assignment} assignment told by the socket, or learnt by asking */
  #assigned(assignment) {
    if (assignment.batch_id !== this.#batch?.batch_id) return;
    const told = this.#told.get(assignment.file_upload_id);
    const how = told === undefined ? "asked" : "told";
    if (!this.#board.assign(assignment, { heard: how, heardAt: told ?? now() })) return;
    const essay = this.#board.essays.get(assignment.file_upload_id);
    if (!essay) return;
    tell("assigned", essay);
    this.#way.follow(essay);
    this.#ras.compare();
  }
}

/**
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
  byId("new").open = !batch;
}

/** @param {Batch} batch */
function nameOf(batch) {
  return batch.title ?? `Batch of ${clockTime(batch.created_at)}`;
}

/** The whole page, once the server has said what there is. */
class Page {
  /** @type {Session | undefined} */
  #session;
  #config;

  /** @param {Config} config */
  constructor(config) {
    this.#config = config;
    const people = config.users.map((user) =>
      h(
        "li",
        {},
        h(
          "button",
          { type: "button", "data-user": user, onclick: () => this.#be(user) },
          avatar(user),
          titled(user),
        ),
      ),
    );
    byId("people").replaceChildren(...people);
    byId("users").replaceChildren(...config.users.map((user) => h("option", { value: user }, titled(user))));
    byId("users").addEventListener("change", () => this.#be(byId("users").value));
    byId("batches").addEventListener("change", () => void this.#session?.open(byId("batches").value));
    byId("slots").max = config.limits.slots;
    byId("drop-hint").textContent =
      `Plain text, up to ${size(config.limits.file_bytes)} each. Any number at once.`;
    byId("create").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      void this.#create();
    });
    byId("picker").addEventListener("change", () => {
      this.#session?.upload([...byId("picker").files]);
      byId("picker").value = "";
    });
    this.#takeDrops();
    const user = sessionStorage.getItem("user");
    if (user !== null && config.users.includes(user)) this.#be(user);
    else byId("login").hidden = false;
  }

  /** @param {string} user */
  #be(user) {
    this.#session?.end();
    // Of this window alone, so that two windows may be two users.
    sessionStorage.setItem("user", user);
    byId("login").hidden = true;
    byId("who").hidden = byId("columns").hidden = false;
    byId("users").value = user;
    document.title = `${titled(user)} – Essay upload`;
    this.#session = new Session(user, this.#config);
    this.#session
      .start()
      .catch((error) => showNotification(`Your batches cannot be loaded: ${error.message}`));
  }

  async #create() {
    const form = byId("create");
    const values = Object.fromEntries(new FormData(form));
    const wrong = byId("create-wrong");
    wrong.textContent = "";
    const slots = Number(values["slots"]);
    const most = this.#config.limits.slots;
    if (!Number.isInteger(slots) || slots < 1 || slots > most) {
      wrong.textContent = `A batch has 1 to ${most} essays`;
      byId("slots").focus();
      return;
    }
    form.inert = true;
    try {
      await this.#session?.create({ slots, title: values["title"], course_code: values["course_code"] });
      form.reset();
      byId("picker").focus();
    } catch (error) {
      wrong.textContent = error instanceof ApiError ? error.message : String(error);
    } finally {
      form.inert = false;
    }
  }

  /** Files may be dropped anywhere on the page. */
  #takeDrops() {
    let depth = 0;
    const over = (/** @type {boolean} */ on) => document.body.classList.toggle("dropping", on);
    const carriesFiles = (/** @type {DragEvent} */ event) =>
      event.dataTransfer?.types.includes("Files") ?? false;
    addEventListener("dragenter", (event) => {
      if (carriesFiles(event)) over((depth += 1) > 0);
    });
    addEventListener("dragleave", (event) => {
      if (carriesFiles(event)) over((depth = Math.max(0, depth - 1)) > 0);
    });
    addEventListener("dragover", (event) => {
      if (carriesFiles(event)) event.preventDefault();
    });
    addEventListener("drop", (event) => {
      if (!event.dataTransfer || !carriesFiles(event)) return;
      event.preventDefault();
      depth = 0;
      over(false);
      const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
      const files = items
        .filter((item) => !item.webkitGetAsEntry()?.isDirectory)
        .map((item) => item.getAsFile());
      if (files.length < items.length) showNotification("Folders are left out; drop the files in them");
      this.#session?.upload(files.filter((file) => file !== null));
    });
  }
}

/** @param {string} user */
function avatar(user) {
  return h("span", { class: "avatar", "aria-hidden": "true" }, user[0]?.toUpperCase() ?? "");
}

async function start() {
  try {
    new Page(await settings());
  } catch (error) {
    const again = h("button", { type: "button", onclick: () => location.reload() }, "Try again");
    byId("banner").hidden = false;
    byId("banner").dataset["state"] = "stopped";
    byId("banner").replaceChildren(
      h("strong", {}, `${error instanceof Error ? error.message : error}.`),
      h("p", {}, again),
    );
  }
}

void start();
