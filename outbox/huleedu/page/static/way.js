/** The way of one file through the system: who did what when, on one line of time. */

import { precise } from "./clock.js";
import { byId, h } from "./dom.js";
import { counted, duration, titled } from "./format.js";

/**
 * @typedef {import("./uploads.js").Essay} Essay
 * @typedef {{sink: string, destination: string, state: string, attempts: number, settled_at: string | null,
 *   partition: number | null, offset: number | null, receivers: number | null}} Delivery
 * @typedef {{message_id: string, type: string, written_at: string, committed_at: string | null,
 *   deliveries: Delivery[]}} Message
 * @typedef {{now: string, name: string | null, messages: Message[]}} Way
 * @typedef {{who: string, what: string, how: string, from: number, to: number, open?: boolean}} Step
 */

const FIRST_MS = 200;
const LONGEST_MS = 3_000;
const SLOT_ASSIGNED = "huleedu.els.essay.slot.assigned.v1";
const EXCESS = "huleedu.els.excess.content.provisioned.v1";

const STATES = /** @type {Record<string, string>} */ ({
  ready: "not sent yet",
  scheduled: "waits for its time",
  held: "waits behind an earlier one",
  parked: "was given up for now; a person decides",
  expired: "came too late to be worth telling",
  skipped: "was skipped by a person",
});

/** Follows one file until there is nothing more to come. */
export class WayPanel {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {Essay | undefined} */
  #essay;
  #api;
  #clock;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./clock.js").Clock} clock
   */
  constructor(api, clock) {
    this.#api = api;
    this.#clock = clock;
  }

  /** @param {Essay} essay something happened to it */
  follow(essay) {
    this.#essay = essay;
    this.#after(essay, FIRST_MS);
  }

  end() {
    this.#essay = undefined;
    clearTimeout(this.#timer);
    byId("way").hidden = true;
  }

  /**
   * @param {Essay} essay
   * @param {number} wait
   */
  #after(essay, wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#ask(essay, wait), wait);
  }

  /**
   * @param {Essay} essay
   * @param {number} wait
   */
  async #ask(essay, wait) {
    const longer = Math.min(wait * 1.5, LONGEST_MS);
    const asked = performance.timeOrigin + performance.now();
    try {
      const way = /** @type {Way} */ (await this.#api.way(essay.id));
      this.#clock.compare(asked, performance.timeOrigin + performance.now(), way.now);
      if (essay !== this.#essay) return;
      this.#show(essay, way);
      if (unfinished(essay, way)) this.#after(essay, longer);
    } catch {
      if (essay === this.#essay) this.#after(essay, longer);
    }
  }

  /**
   * @param {Essay} essay
   * @param {Way} way
   */
  #show(essay, way) {
    const steps = stepsOf(essay, way, this.#clock);
    byId("way").hidden = steps.length === 0;
    const first = steps[0];
    if (!first) return;
    const begin = Math.min(...steps.map((step) => step.from));
    const end = Math.max(begin + 1, ...steps.map((step) => step.to));
    const open = byId("way-body").querySelector("ol");
    const list = h("ol", { class: "steps" }, ...steps.map((step) => line(step, begin, end)));
    if (!open) list.classList.add("fresh");
    byId("way-body").replaceChildren(
      h("p", { class: "subject" }, essay.name),
      ...this.#figures(essay, way),
      list,
      axis(end - begin),
      h("p", { class: "hint" }, this.#footnote(way, essay)),
    );
  }

  /**
   * @param {Essay} essay
   * @param {Way} way
   */
  #figures(essay, way) {
    const assigned = way.messages.find((message) => message.type === SLOT_ASSIGNED);
    if (!assigned || essay.heardAt === undefined || essay.heard !== "told") return [];
    const heard = this.#clock.there(essay.heardAt);
    const commit = precise(assigned.committed_at ?? assigned.written_at);
    const figures = [figure(duration(Math.max(0, heard - commit)), "from ELS's commit to this browser")];
    if (essay.beganAt !== undefined) {
      figures.push(
        figure(duration(essay.heardAt - essay.beganAt), "from the upload to its slot on this page"),
      );
    }
    return [h("div", { class: "figures" }, ...figures)];
  }

  /**
   * @param {Way} way
   * @param {Essay} essay
   */
  #footnote(way, essay) {
    const lines = ["Kafka and Redis: until the relay had recorded that they have it."];
    if (!way.messages.every((message) => message.committed_at)) {
      lines.push("This database keeps no times of commits, so a message counts from when it was written.");
    }
    if (essay.beganAt !== undefined || essay.heardAt !== undefined) {
      const within = duration(this.#clock.uncertainty);
      lines.push(`The clocks of browser and database are compared to within ${within}.`);
    }
    return lines.join(" ");
  }
}

/**
 * @param {Essay} essay
 * @param {Way} way
 */
function unfinished(essay, way) {
  const settled = way.messages.every((message) =>
    message.deliveries.every((delivery) => delivery.settled_at),
  );
  return !settled || way.messages.length < 2 || essay.state === "stored";
}

/**
 * @param {Essay} essay
 * @param {Way} way
 * @param {import("./clock.js").Clock} clock
 */
function stepsOf(essay, way, clock) {
  /** @type {Step[]} */
  const steps = [];
  const now = precise(way.now);
  for (const [index, message] of way.messages.entries()) {
    const written = precise(message.written_at);
    const committed = precise(message.committed_at ?? message.written_at);
    const sent = index === 0 && essay.beganAt !== undefined ? clock.there(essay.beganAt) : written;
    const { who, what, how, ...said } = meaning(message, essay);
    steps.push({ who, what, how, from: Math.min(sent, written), to: committed });
    for (const delivery of message.deliveries) {
      const { [delivery.sink]: about = "it" } = /** @type {Record<string, string>} */ (said);
      steps.push(deliveryStep(delivery, about, committed, now));
    }
    if (message.type === SLOT_ASSIGNED && essay.heardAt !== undefined) {
      const by = essay.heard === "asked" ? "by asking" : "over the WebSocket";
      const heard = Math.max(clock.there(essay.heardAt), committed);
      steps.push({ who: "browser", what: "This browser heard of it", how: by, from: committed, to: heard });
    }
  }
  return steps;
}

/**
 * Whose transaction it was, and what each sink is told with it.
 *
 * @param {Message} message
 * @param {Essay} essay
 */
function meaning({ type }, essay) {
  const how = "with its message";
  if (type === SLOT_ASSIGNED) {
    const what = `ELS assigned slot ${Number(essay.slot ?? 0) + 1}`;
    return { who: "els", what, how, kafka: "the assignment", redis: "the notification" };
  }
  if (type === EXCESS) return { who: "els", what: "ELS found no slot left", how, kafka: "the notice" };
  return { who: "page", what: "The file was stored", how, kafka: "the upload" };
}

/**
 * @param {Delivery} delivery
 * @param {string} said
 * @param {number} committed
 * @param {number} now
 * @returns {Step}
 */
function deliveryStep(delivery, said, committed, now) {
  const { sink, state } = delivery;
  const name = titled(sink);
  const to = delivery.settled_at === null ? now : precise(delivery.settled_at);
  if (state === "delivered")
    return { who: sink, what: `${name} has ${said}`, how: place(delivery), from: committed, to };
  const how =
    state === "retrying"
      ? `failed ${counted(delivery.attempts, "time")}, is tried again`
      : (STATES[state] ?? state);
  return {
    who: sink,
    what: `${name} is to get ${said}`,
    how,
    from: committed,
    to,
    open: delivery.settled_at === null,
  };
}

/** @param {Delivery} delivery */
function place({ partition, offset, receivers }) {
  if (partition !== null && offset !== null) return `partition ${partition}, offset ${offset}`;
  if (receivers === 0) return "nobody was listening";
  return receivers === null ? "" : counted(receivers, "subscriber");
}

/**
 * @param {Step} step
 * @param {number} begin
 * @param {number} end
 */
function line(step, begin, end) {
  const percent = (/** @type {number} */ moment) => `${((moment - begin) / (end - begin)) * 100}%`;
  const bar = h("span", { class: "bar" });
  bar.style.setProperty("--from", percent(step.from));
  bar.style.setProperty("--to", percent(step.to));
  const until = step.open ? "…" : `+${duration(step.to - begin)}`;
  return h(
    "li",
    { "data-who": step.who, class: step.open ? "open" : "" },
    h("span", { class: "what" }, step.what, h("small", {}, step.how)),
    h("span", { class: "when" }, until),
    h("span", { class: "track", "aria-hidden": "true" }, bar),
  );
}

/** @param {number} length */
function axis(length) {
  const step = nice(length / 4);
  const marks = [];
  for (let at = 0; at <= length * 0.93; at += step) {
    const mark = h("span", {}, duration(at).replace(/^0\.0 ms$/, "0"));
    mark.style.setProperty("--at", `${(at / length) * 100}%`);
    marks.push(mark);
  }
  return h("div", { class: "axis", "aria-hidden": "true" }, ...marks);
}

/** @param {number} value the next of 1, 2 and 5 times a power of ten */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * /** @type {number} */ ([1, 2, 5, 10].find((times) => power * times >= value) ?? 10);
}

/**
 * @param {string} value
 * @param {string} label
 */
function figure(value, label) {
  return h("p", { class: "figure" }, h("strong", {}, value), h("span", {}, label));
}
