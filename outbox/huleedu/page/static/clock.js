/** This browser's clock against the database's, so that what both measured can stand on one line. */

/** Returns milliseconds since the epoch by this browser's clock, finer than `Date.now()`. */
export function now() {
  return performance.timeOrigin + performance.now();
}

/**
 * Compares the clocks whenever an answer says what time it is there. The quickest answer tells most: what was
 * read then lies within half of the time it took.
 */
export class Clock {
  /** How far the database's clock is ahead, in milliseconds. */
  offset = 0;
  /** By how much that may be wrong. */
  uncertainty = Infinity;

  /**
   * Learns from one answer.
   *
   * @param {number} asked when the question left
   * @param {number} answered when the answer was there
   * @param {string} there the database's time in between
   */
  compare(asked, answered, there) {
    const uncertainty = (answered - asked) / 2;
    if (uncertainty >= this.uncertainty) return;
    this.uncertainty = uncertainty;
    this.offset = precise(there) - (asked + answered) / 2;
  }

  /**
   * Returns what the database's clock said at a moment of this browser.
   *
   * @param {number} moment
   */
  there(moment) {
    return moment + this.offset;
  }
}

/**
 * Returns milliseconds since the epoch, with the microseconds that `Date` drops.
 *
 * @param {string} moment
 */
export function precise(moment) {
  const fraction = /\.(\d+)/.exec(moment)?.[1] ?? "0";
  const whole = Date.parse(moment.replace(/\.\d+/, ""));
  return whole + Number(`0.${fraction}`) * 1_000;
}
