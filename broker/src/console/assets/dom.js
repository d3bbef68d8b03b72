// Elements. Whatever comes from the cluster goes in as text, never as markup.

/** An element: `h("td", {class: "num", onclick: f}, "text", other)`. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  set(element, properties);
  append(element, children);
  return element;
}

const SVG = document.querySelector("svg").namespaceURI;

/** An element of a drawing. */
export function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== undefined && value !== null) element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

function set(element, properties) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Puts children in the place of those that are there. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** A link to a page of the console; parts of the path are encoded. */
export function path(...parts) {
  return "#/" + parts.map((part) => encodeURIComponent(part)).join("/");
}

/** A name that may be broken behind its dots and dashes where there is no room. */
export function breakable(name) {
  return name.split(/(?<=[._-])/).flatMap((piece, index) => (index === 0 ? [piece] : [h("wbr"), piece]));
}

/** Whether somebody is typing. */
export function isTyping() {
  const active = document.activeElement;
  return active instanceof HTMLInputElement || active instanceof HTMLTextAreaElement || active instanceof HTMLSelectElement;
}

/** Calls once the calls have ceased for a while. */
export function debounced(wait_ms, call) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), wait_ms);
  };
}
