// Dialogs: a form with fields, a question before what cannot be undone, and short words about what was done.

import { h, fill } from "./dom.js";
import { sentence } from "./format.js";

/** Says something for a moment. */
export function toast(text) {
  const element = h("div", { class: "toast" }, text);
  document.getElementById("toasts").append(element);
  setTimeout(() => element.remove(), 4_000);
}

/** What an error says. */
export function errorText(error) {
  return [error.message, error.hint].filter(Boolean).map(sentence).join(" ");
}

/** Opens a form. `submit` gets the form's element and may throw: the dialog then stays and says why. */
export function form({ title, fields, action, danger = false, submit, broad = false }) {
  return new Promise((resolve) => {
    const error = h("div", { class: "error", role: "alert", hidden: true });
    const button = h("button", { class: `button first${danger ? " danger" : ""}`, type: "submit" }, action);
    const cancel = h("button", { class: "button", type: "button", onclick: () => dialog.close() }, "Cancel");
    const element = h("form", {
      method: "dialog",
      async onsubmit(event) {
        event.preventDefault();
        button.disabled = true;
        error.hidden = true;
        try {
          done = (await submit(element)) ?? true;
          dialog.close();
        } catch (problem) {
          error.hidden = false;
          fill(error, errorText(problem));
        } finally {
          button.disabled = false;
        }
      },
    },
    h("div", { class: "top" }, h("h2", {}, title)),
    h("div", { class: "middle" }, fields, error),
    h("div", { class: "bottom" }, cancel, button));
    let done = null;
    const dialog = open(element, broad, () => resolve(done));
  });
}

/** Shows something to be looked at. */
export function show(title, content, { broad = true, actions = [] } = {}) {
  const close = h("button", { class: "button", type: "button", autofocus: true, onclick: () => dialog.close() }, "Close");
  const inner = h("div", { class: "inner" }, h("div", { class: "top" }, h("h2", {}, title)), h("div", { class: "middle" }, content),
    h("div", { class: "bottom" }, actions, close));
  const dialog = open(inner, broad, () => {});
  return dialog;
}

function open(content, broad, closed) {
  const dialog = h("dialog", { class: broad ? "broad" : "" }, content);
  dialog.addEventListener("close", () => {
    dialog.remove();
    closed();
  });
  // A click on what is behind it closes it.
  dialog.addEventListener("mousedown", (event) => {
    if (event.target === dialog) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A labelled field. */
export function field(label, input, note) {
  return h("label", { class: "field" }, label, input, note ? h("span", { class: "faint" }, note) : null);
}

/** `name=value` lines as an object; throws at a line that is neither. */
export function pairs(text) {
  const found = {};
  for (const line of text.split("\n").map((line) => line.trim()).filter((line) => line !== "")) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`"${line}" is not name=value.`);
    found[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return found;
}
