/** The upload page: who it is, which batch is made, which files are chosen or dropped. */

import { ApiError, config } from "./api.js";
import { byId, h } from "./dom.js";
import { size, titled } from "./format.js";
import { showNotice } from "./notices.js";
import { Session } from "./session.js";
import { loading } from "./trouble.js";

/** @typedef {import("./api.js").Config} Config */

/** The whole page, once its server has said what there is. */
class Page {
  /** @type {Session | undefined} */
  #session;
  #config;
  #users = byId("users", HTMLSelectElement);
  #batches = byId("batches", HTMLSelectElement);
  #form = byId("create", HTMLFormElement);
  #slots = byId("slots", HTMLInputElement);
  #picker = byId("picker", HTMLInputElement);

  /** @param {Config} config */
  constructor(config) {
    this.#config = config;
    this.#offerUsers();
    this.#slots.max = String(config.limits.slots);
    byId("drop-hint").textContent =
      `Plain text, up to ${size(config.limits.file_bytes)} each. Any number at once.`;
    this.#listen();
    this.#takeDrops();
    const user = sessionStorage.getItem("user");
    if (user !== null && config.users.includes(user)) this.#signIn(user);
    else byId("login").hidden = false;
  }

  /** Shows whom somebody may be: as buttons at first, later in a list. */
  #offerUsers() {
    const { users } = this.#config;
    const button = (/** @type {string} */ user) =>
      h(
        "button",
        { type: "button", "data-user": user, onclick: () => this.#signIn(user) },
        avatar(user),
        titled(user),
      );
    byId("people").replaceChildren(...users.map((user) => h("li", {}, button(user))));
    this.#users.replaceChildren(...users.map((user) => h("option", { value: user }, titled(user))));
  }

  /** Does what is asked for by the lists, the form and the choice of files. */
  #listen() {
    this.#users.addEventListener("change", () => this.#signIn(this.#users.value));
    this.#batches.addEventListener("change", () => void this.#session?.open(this.#batches.value));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#create();
    });
    this.#picker.addEventListener("change", () => {
      this.#session?.upload([...(this.#picker.files ?? [])]);
      this.#picker.value = "";
    });
  }

  /**
   * Lets somebody use the window.
   *
   * @param {string} user
   */
  #signIn(user) {
    const chosen = byId("login").contains(document.activeElement);
    this.#session?.end();
    // Of this window alone, so that two windows may be two users.
    sessionStorage.setItem("user", user);
    byId("login").hidden = true;
    byId("who").hidden = byId("columns").hidden = false;
    this.#users.value = user;
    document.title = `${titled(user)} – Essay upload`;
    this.#session = new Session(user, this.#config);
    void this.#session.start();
    // What had the focus is gone.
    if (chosen) byId("batch-title").focus();
  }

  /** Makes the batch that the form describes, or says what is wrong with it. */
  async #create() {
    const values = Object.fromEntries(new FormData(this.#form));
    const wrong = byId("create-wrong");
    wrong.textContent = "";
    this.#slots.removeAttribute("aria-invalid");
    const slots = Number(values["slots"]);
    const most = this.#config.limits.slots;
    if (!Number.isInteger(slots) || slots < 1 || slots > most) {
      wrong.textContent = `A batch has 1 to ${most} essays`;
      this.#slots.setAttribute("aria-invalid", "true");
      this.#slots.focus();
      return;
    }
    this.#form.inert = true;
    try {
      await this.#session?.create({ slots, title: values["title"], course_code: values["course_code"] });
      this.#form.reset();
    } catch (error) {
      wrong.textContent = error instanceof ApiError ? error.message : String(error);
    }
    this.#form.inert = false;
    if (wrong.textContent) this.#form.querySelector("button")?.focus();
    else this.#picker.focus();
  }

  /** Takes files that are dropped anywhere on the page. */
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
      if (files.length < items.length) showNotice("Folders are left out; drop the files in them");
      this.#session?.upload(files.filter((file) => file !== null));
    });
  }
}

/**
 * Makes what stands for somebody's face.
 *
 * @param {string} user
 */
function avatar(user) {
  return h("span", { class: "avatar", "aria-hidden": "true" }, user[0]?.toUpperCase() ?? "");
}

byId("loading").remove();
void loading("The page", async () => {
  new Page(await config());
});
