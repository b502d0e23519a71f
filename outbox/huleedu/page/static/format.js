/** Numbers and times as people read them. */

const SIZES = ["B", "kB", "MB"];

/**
 * Says a number of bytes: `1.5 kB`.
 *
 * @param {number} bytes
 */
export function size(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 1_000 && unit < SIZES.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  return `${value.toFixed(value < 10 && value % 1 ? 1 : 0)} ${SIZES[unit]}`;
}

/**
 * Says how long something took: `8.3 ms`, `1.5 s`.
 *
 * @param {number} milliseconds
 */
export function duration(milliseconds) {
  const value = Math.abs(milliseconds);
  if (value < 10) return `${milliseconds.toFixed(1)} ms`;
  if (value < 1_000) return `${milliseconds.toFixed(0)} ms`;
  if (value < 60_000) return `${(milliseconds / 1_000).toFixed(1)} s`;
  return `${(milliseconds / 60_000).toFixed(0)} min`;
}

/**
 * Says a time of day, as people here write it.
 *
 * @param {string | number} moment
 */
export function clockTime(moment) {
  return new Date(moment).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

/**
 * Says how many there are: `1 slot`, `2 slots`.
 *
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/**
 * Writes a name that is in lower case, with dashes, as a name: `Mary Ann`.
 *
 * @param {string} name
 */
export function titled(name) {
  return name.replace(/(^|-)./g, (letters) => letters.replace("-", " ").toUpperCase());
}
