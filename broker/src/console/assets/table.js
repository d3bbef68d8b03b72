// Tables: columns that sort on the server, rows that the keyboard walks, pages.

import { h, fill } from "./dom.js";
import { count } from "./format.js";

/** A table. Columns: {title, sort, num, cell(row)}; `open(row)` is what Enter and a click on the row's link do; `empty` is a text, or
    makes one. */
export function table({ columns, open, caption, empty = "Nothing here." }) {
  const head = h("tr");
  const body = h("tbody");
  const element = h("div", { class: "scroll" }, h("table", { "aria-label": caption }, h("thead", {}, head), body));
  let rows = [];
  let selected = -1;
  let shown = "";

  function mark(scroll = true) {
    [...body.children].forEach((row, index) => row.classList.toggle("selected", index === selected));
    if (scroll) body.children[selected]?.scrollIntoView({ block: "nearest" });
  }

  /** The way back to the link or button that has the focus, in rows that are made anew. */
  function focused() {
    const active = document.activeElement;
    for (const part of [head, body]) {
      if (!part.contains(active)) continue;
      const at = [...part.querySelectorAll("a, button")].indexOf(active);
      return () => part.querySelectorAll("a, button")[at]?.focus({ preventScroll: true });
    }
    return null;
  }

  return {
    element,
    /** Shows rows; `sorting` is {sort, order, change(sort, order)}. */
    update(items, sorting) {
      // What is as it was stays; what somebody is about to copy stays too.
      const state = JSON.stringify([items, sorting?.sort, sorting?.order]);
      const selection = getSelection();
      if ((state === shown && items.length > 0) || (!selection.isCollapsed && body.contains(selection.anchorNode))) return;
      shown = state;
      rows = items;
      const focus = focused();
      fill(head, columns.map((column) => heading(column, sorting)));
      const cells = (row) => columns.map((column) => h("td", { class: classes(column, column.kind) }, column.cell(row)));
      fill(body, rows.length > 0 ? rows.map((row) => h("tr", { class: row.rowClass }, cells(row)))
        : h("tr", {}, h("td", { class: "empty", colspan: columns.length }, typeof empty === "function" ? empty() : empty)));
      if (selected >= rows.length) selected = rows.length - 1;
      if (selected >= 0) mark(false);
      focus?.();
    },
    /** j, k, Enter. */
    key(event) {
      if (event.key === "j" || event.key === "ArrowDown") selected = Math.min(selected + 1, rows.length - 1);
      else if (event.key === "k" || event.key === "ArrowUp") selected = Math.max(selected - 1, 0);
      else if ((event.key === "Enter" || event.key === "o") && rows[selected] && open && document.activeElement?.tagName !== "BUTTON" && document.activeElement?.tagName !== "A") open(rows[selected]);
      else if (event.key === "Escape" && selected >= 0) selected = -1;
      else return false;
      mark();
      return true;
    },
  };
}

/** Minor columns are left out of a narrow window. */
function classes(column, kind = "") {
  return [column.num ? "num" : "", column.minor ? "minor" : "", kind].join(" ").trim() || null;
}

function heading(column, sorting) {
  if (!column.sort || !sorting) return h("th", { class: classes(column), scope: "col" }, column.title);
  const is = sorting.sort === column.sort;
  const next = is ? (sorting.order === "ascending" ? "descending" : "ascending") : column.first ?? "ascending";
  return h("th", { class: classes(column), scope: "col", "aria-sort": is ? sorting.order : null },
    h("button", { type: "button", onclick: () => sorting.change(column.sort, next) }, column.title, is ? h("span", { "aria-hidden": "true" }, sorting.order === "ascending" ? "↑" : "↓") : ""));
}

/** What stands under a list: which part is shown, and the way to the others. */
export function pager(page, go) {
  const first = (page.page - 1) * page.size + 1;
  const last = Math.min(page.page * page.size, page.total);
  const step = (label, title, number) => h("button", {
    class: "button small", type: "button", title, disabled: number < 1 || number > page.pages || number === page.page, onclick: () => go(number),
  }, label);
  if (page.total === 0) return null;
  return h("div", { class: "pager" }, `${count(first)}–${count(last)} of ${count(page.total)}`,
    page.pages <= 1 ? null : h("div", { class: "end" }, step("«", "First page", 1), step("‹ Previous", "Previous page (p)", page.page - 1),
      `${count(page.page)} / ${count(page.pages)}`, step("Next ›", "Next page (n)", page.page + 1), step("»", "Last page", page.pages)));
}
