/** Elements. What comes from outside is only ever text in them. */

/**
 * @typedef {Node | string | null | undefined} Child
 * @typedef {Record<string, string | number | boolean | null | undefined | ((event: Event) => void)>} Properties
 */

/**
 * Makes an element. A property that starts with `on` is a listener, all others are attributes.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} [properties]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, String(value));
  }
  element.append(...present(children));
  return element;
}

/**
 * Leaves out the children that are not there.
 *
 * @param {Child[]} children
 */
export function present(children) {
  return children.filter((child) => child !== null && child !== undefined);
}

/**
 * Finds the element with this id. The page has it, and it is of this kind.
 *
 * @template {HTMLElement} [Kind=HTMLElement]
 * @param {string} id
 * @param {new () => Kind} [kind]
 * @returns {Kind}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof (kind ?? HTMLElement))) throw new Error(`there is no such #${id}`);
  return /** @type {Kind} */ (element);
}

/**
 * Changes what is in an element, and leaves the focus at the place where it was in it.
 *
 * @param {HTMLElement} container
 * @param {() => void} change
 */
export function keepingFocus(container, change) {
  const places = [];
  let element = container.contains(document.activeElement) ? document.activeElement : null;
  for (; element && element !== container; element = element.parentElement)
    places.unshift([...(element.parentElement?.children ?? [])].indexOf(element));
  change();
  if (places.length === 0 || container.contains(document.activeElement)) return;
  /** @type {Element | undefined} */
  let now = container;
  for (const place of places) now = now?.children[place];
  if (now instanceof HTMLElement) now.focus({ preventScroll: true });
}

/**
 * Makes text that is read out, and not shown.
 *
 * @param {string} text
 */
export function spoken(text) {
  return h("span", { class: "spoken" }, text);
}
