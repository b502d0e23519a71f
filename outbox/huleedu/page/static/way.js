/** The way of one file through the system: who did what when, on one line of time. */

import { now, precise } from "./clock.js";
import { byId, h } from "./dom.js";
import { counted, duration, titled } from "./format.js";
import { DELIVERY } from "./states.js";

/**
 * @typedef {import("./uploads.js").Essay} Essay
 * @typedef {import("./api.js").Way} Way
 * @typedef {import("./api.js").Message} Message
 * @typedef {import("./api.js").Delivery} Delivery
 * @typedef {import("./api.js").Topics} Topics
 * @typedef {{who: string, what: string, how: string, from: number, to: number, open?: boolean}} Step
 */

const FIRST_MS = 200;
const LONGEST_MS = 3_000;

/** Shows the way of one file, until there is nothing more to come. */
export class WayPanel {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {Essay | undefined} */
  #essay;
  #api;
  #clock;
  #topics;

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./clock.js").Clock} clock
   * @param {Topics} topics
   */
  constructor(api, clock, topics) {
    this.#api = api;
    this.#clock = clock;
    this.#topics = topics;
  }

  /**
   * Shows the way of this file from now on: something has happened to it, or somebody wants to see it.
   *
   * @param {Essay} essay
   */
  follow(essay) {
    this.#essay = essay;
    this.#after(essay, FIRST_MS);
  }

  /** Shows none. */
  end() {
    this.#essay = undefined;
    clearTimeout(this.#timer);
    byId("way").hidden = true;
    byId("way-body").replaceChildren();
  }

  /**
   * Asks after so many milliseconds.
   *
   * @param {Essay} essay
   * @param {number} wait
   */
  #after(essay, wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#ask(essay, wait), wait);
  }

  /**
   * Asks for the way of a file, and again later if it is not over.
   *
   * @param {Essay} essay
   * @param {number} wait how long was waited for this time
   */
  async #ask(essay, wait) {
    const longer = Math.min(wait * 1.5, LONGEST_MS);
    const asked = now();
    try {
      const way = await this.#api.way(essay.id);
      this.#clock.compare(asked, now(), way.now);
      if (essay !== this.#essay) return;
      this.#show(essay, way);
      if (unfinished(essay, way)) this.#after(essay, longer);
    } catch {
      if (essay === this.#essay) this.#after(essay, longer);
    }
  }

  /**
   * Shows what is known of the way.
   *
   * @param {Essay} essay
   * @param {Way} way
   */
  #show(essay, way) {
    const steps = stepsOf(essay, way, this.#clock, this.#topics);
    byId("way").hidden = steps.length === 0;
    const first = steps[0];
    if (!first) return;
    const begin = Math.min(...steps.map((step) => step.from));
    const end = Math.max(begin + 1, ...steps.map((step) => step.to));
    const shown = byId("way-body").querySelector("ol");
    const list = h("ol", { class: "steps" }, ...steps.map((step) => line(step, begin, end)));
    if (!shown) list.classList.add("fresh");
    byId("way-body").replaceChildren(
      h("p", { class: "subject" }, essay.name),
      ...this.#figures(essay, way),
      list,
      axis(end - begin),
      h("p", { class: "hint" }, this.#footnote(way, essay)),
    );
  }

  /**
   * Makes the two times that matter, where this browser heard of the slot over the socket.
   *
   * @param {Essay} essay
   * @param {Way} way
   */
  #figures(essay, way) {
    const assigned = way.messages.find((message) => message.type === this.#topics.slot_assigned);
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
   * Says how the times were measured, and how exactly.
   *
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
 * Tells whether there is more to come.
 *
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
 * Makes a step of each thing that happened, by the database's clock.
 *
 * @param {Essay} essay
 * @param {Way} way
 * @param {import("./clock.js").Clock} clock
 * @param {Topics} topics
 */
function stepsOf(essay, way, clock, topics) {
  /** @type {Step[]} */
  const steps = [];
  const answered = precise(way.now);
  for (const [index, message] of way.messages.entries()) {
    const written = precise(message.written_at);
    const committed = precise(message.committed_at ?? message.written_at);
    const sent = index === 0 && essay.beganAt !== undefined ? clock.there(essay.beganAt) : written;
    const { who, what, told } = meaning(message, essay, topics);
    steps.push({ who, what, how: "with its message", from: Math.min(sent, written), to: committed });
    for (const delivery of message.deliveries) {
      steps.push(deliveryStep(delivery, told[delivery.sink] ?? "it", committed, answered));
    }
    if (message.type === topics.slot_assigned && essay.heardAt !== undefined) {
      const by = essay.heard === "asked" ? "by asking" : "over the WebSocket";
      const heard = Math.max(clock.there(essay.heardAt), committed);
      steps.push({ who: "browser", what: "This browser heard of it", how: by, from: committed, to: heard });
    }
  }
  return steps;
}

/**
 * Says whose transaction wrote a message, and what each sink is told by it.
 *
 * @param {Message} message
 * @param {Essay} essay
 * @param {Topics} topics
 * @returns {{who: string, what: string, told: Record<string, string>}}
 */
function meaning({ type }, essay, topics) {
  switch (type) {
    case topics.slot_assigned: {
      const what = `ELS assigned slot ${Number(essay.slot ?? 0) + 1}`;
      return { who: "els", what, told: { kafka: "the assignment", redis: "the notification" } };
    }
    case topics.excess_content:
      return {
        who: "els",
        what: "ELS found no slot left",
        told: { kafka: "the notice", redis: "the notification" },
      };
    case topics.content_provisioned:
      return { who: "page", what: "The file was stored", told: { kafka: "the upload" } };
    default:
      return { who: "page", what: type, told: {} };
  }
}

/**
 * Makes the step of a delivery: it is there, or it is not there yet and why.
 *
 * @param {Delivery} delivery
 * @param {string} what the sink is told
 * @param {number} committed
 * @param {number} answered when this was known
 * @returns {Step}
 */
function deliveryStep(delivery, what, committed, answered) {
  const { sink, state, attempts } = delivery;
  const open = delivery.settled_at === null;
  const to = delivery.settled_at === null ? answered : precise(delivery.settled_at);
  if (state === "delivered")
    return { who: sink, what: `${titled(sink)} has ${what}`, how: place(delivery), from: committed, to };
  const failures = state === "retrying" ? `, ${counted(attempts, "time")} so far` : "";
  const how = `${DELIVERY[state] ?? state}${failures}`;
  return { who: sink, what: `${titled(sink)} is to get ${what}`, how, from: committed, to, open };
}

/**
 * Says where in the sink a delivery is.
 *
 * @param {Delivery} delivery
 */
function place({ partition, offset, receivers }) {
  if (partition !== null && offset !== null) return `partition ${partition}, offset ${offset}`;
  if (receivers === 0) return "nobody was listening";
  return receivers === null ? "" : counted(receivers, "subscriber");
}

/**
 * Makes the line of a step, between the beginning and the end of the whole way.
 *
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
    { "data-who": step.who, "data-state": step.open ? "open" : "over" },
    h("span", { class: "what" }, step.what, h("small", {}, step.how)),
    h("span", { class: "when" }, until),
    h("span", { class: "track", "aria-hidden": "true" }, bar),
  );
}

/**
 * Makes the axis of time below the steps.
 *
 * @param {number} length in milliseconds
 */
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

/**
 * Returns the next number that is 1, 2 or 5 times a power of ten.
 *
 * @param {number} value
 */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * /** @type {number} */ ([1, 2, 5, 10].find((times) => power * times >= value) ?? 10);
}

/**
 * Makes a number that is to be seen from afar.
 *
 * @param {string} value
 * @param {string} label
 */
function figure(value, label) {
  return h("p", { class: "figure" }, h("strong", {}, value), h("span", {}, label));
}
