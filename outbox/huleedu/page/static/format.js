/** Numbers and times as people read them. */

const SIZES = ["B", "kB", "MB"];

/** @param {number} bytes */
export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1_000 && unit < SIZES.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  return `${value.toFixed(value < 10 && value % 1 ? 1 : 0)} ${SIZES[unit]}`;
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  const value = Math.abs(milliseconds);
  if (value < 10) return `${milliseconds.toFixed(1)} ms`;
  if (value < 1_000) return `${milliseconds.toFixed(0)} ms`;
  if (value < 60_000) return `${(milliseconds / 1_000).toFixed(1)} s`;
  return `${(milliseconds / 60_000).toFixed(0)} min`;
}

/** @param {string | number} moment */
export function clockTime(moment) {
  return new Date(moment).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/** @param {string} name lower-case, with dashes */
export function titled(name) {
  return name.replace(/(^|-)./g, (letters) => letters.replace("-", " ").toUpperCase());
}
