// Messages of a topic: the newest, the oldest, from an offset or a time, with filters; one of them in full.

import { get, part } from "./api.js";
import { errorText, show } from "./dialog.js";
import { h, fill } from "./dom.js";
import { bytes, count, fromBase64, hex, plural, sentence, time } from "./format.js";
import { table } from "./table.js";

const FROM = [["newest", "newest"], ["oldest", "oldest"], ["offset", "from offset"], ["before", "before offset"], ["time", "from time"]];
/** A topic of more partitions is read one at a time; the server's limit. */
const AT_ONCE_MAX = 64;
const FILTERS = [["text", "as text"], ["hex", "as hex"], ["json", "JSON field"]];

export function messages(name, first, shell) {
  let current = first;
  let live = false;
  let failed = [];
  const field = (label, input) => h("label", { class: "field" }, label, input);
  const select = (options, value, label, onchange) => h("select", { "aria-label": label, onchange }, options.map(([word, text]) => h("option", { value: word, selected: word === value }, text)));
  // A list to choose from; where there are too many for that, or to be read at once, a number.
  let partition = h("select", { "aria-label": "Partition", onchange: apply }, h("option", { value: "" }, "all"));
  const partitionField = field("Partition", partition);
  const from = select(FROM, first.from ?? "newest", "From", () => {
    adapt();
    if (!["offset", "before", "time"].includes(from.value)) apply();
  });
  const offset = h("input", { type: "number", min: 0, "aria-label": "Offset", value: first.offset ?? "", placeholder: "0" });
  const at = h("input", { type: "datetime-local", step: 1, "aria-label": "Time", value: first.time ? local(Number(first.time)) : "" });
  const key = h("input", { type: "text", "aria-label": "Key contains", value: first.key ?? "", placeholder: "any", maxlength: 500 });
  const value = h("input", { type: "search", "aria-label": "Value contains", value: first.value ?? "", placeholder: "any  ( / )", maxlength: 500 });
  const header = h("input", { type: "text", "aria-label": "Header", value: first.header ?? "", placeholder: "name=value", maxlength: 500 });
  const as = select(FILTERS, first.as ?? "text", "How the filter is read", adapt);
  const limit = select([["20", "20"], ["50", "50"], ["100", "100"], ["500", "500"]], first.limit ?? "50", "How many", apply);
  const committed = h("input", { type: "checkbox", checked: first.isolation !== "uncommitted", onchange: apply });
  const follow = h("button", { class: "button", type: "button", title: "Look again and again (f)", "aria-pressed": "false", onclick: toggle }, "Follow");
  const status = h("span", { class: "end" });
  const foot = h("div");
  const problem = h("div", { class: "error", hidden: true });
  const offsetField = field("Offset", offset);
  const atField = field("Time", at);
  const bar = h("form", { class: "tools body", onsubmit: (event) => {
    event.preventDefault();
    apply();
  } }, partitionField, field("From", from), offsetField, atField, field("Key", key), field("Value", value), field("Header", header), field("Filter", as), field("Show", limit),
  h("label", { class: "check" }, committed, "committed only"), h("button", { class: "button first", type: "submit" }, "Read"), follow);

  const list = table({
    caption: "Messages",
    empty: () => (failed.length > 0 ? h("ul", { class: "plain" }, failed.slice(0, 10).map((text) => h("li", {}, sentence(text)))) : current.key || current.value || current.header ? "No message fits." : current.from && current.from !== "newest" ? "There is no message from there on." : "There are no messages yet."),
    open,
    columns: [
      { title: "Time", cell: (one) => when(one.timestamp_ms) },
      { title: "Partition", num: true, cell: (one) => String(one.partition) },
      { title: "Offset", num: true, cell: (one) => h("button", { class: "link", type: "button", title: "In full", onclick: () => open(one) }, count(one.offset)) },
      { title: "Key", kind: "cell", cell: (one) => preview(one.key) },
      { title: "Value", kind: "cell value", cell: (one) => (one.error ? h("span", { class: "tag bad" }, one.error) : preview(one.value)) },
      { title: "Size", num: true, minor: true, cell: (one) => h("span", { class: "soft" }, one.error ? "–" : bytes((one.key?.bytes ?? 0) + (one.value?.bytes ?? 0))) },
    ],
  });

  function choosePartitions(partitions, isMany) {
    if (isMany) {
      if (partition.max === String(partitions - 1)) return;
      partition = h("input", { type: "number", min: 0, max: partitions - 1, required: true, "aria-label": "Partition", title: `0 to ${count(partitions - 1)}`, onchange: apply });
    } else {
      if (partition.options?.length === partitions + 1) return;
      const number = (_, index) => h("option", { value: String(index) }, String(index));
      partition = h("select", { "aria-label": "Partition", onchange: apply }, h("option", { value: "" }, "all"), Array.from({ length: partitions }, number));
    }
    fill(partitionField, "Partition", partition);
  }

  function adapt() {
    offsetField.hidden = !["offset", "before"].includes(from.value);
    atField.hidden = from.value !== "time";
    if (from.value === "time" && at.value === "") at.value = local(Date.now() - 3_600_000);
    value.placeholder = as.value === "json" ? "user.id=42" : as.value === "hex" ? "de ad be ef" : "any  ( / )";
  }

  function apply() {
    const needsOffset = ["offset", "before"].includes(from.value);
    // An offset is one of a partition.
    if (needsOffset && partition.value === "") partition.value = "0";
    shell.go({
      partition: partition.value, from: from.value === "newest" ? "" : from.value, offset: needsOffset ? offset.value || "0" : "",
      time: from.value === "time" && at.value ? String(new Date(at.value).getTime()) : from.value === "time" ? String(Date.now() - 3_600_000) : "",
      key: key.value, value: value.value, header: header.value, as: as.value === "text" ? "" : as.value, limit: limit.value === "50" ? "" : limit.value, isolation: committed.checked ? "" : "uncommitted",
    });
  }

  function toggle() {
    live = !live;
    follow.classList.toggle("first", live);
    follow.setAttribute("aria-pressed", String(live));
    fill(follow, live ? "Following…" : "Follow");
    if (live && current.from) {
      from.value = "newest";
      adapt();
      apply();
    } else shell.look();
  }

  async function open(one) {
    const answer = await get(`/topics/${part(name)}/messages`, { partition: one.partition, from: "offset", offset: one.offset, limit: 1, bytes: 1_048_576, isolation: "uncommitted" });
    whole(name, answer.messages.find((found) => found.offset === one.offset) ?? one);
  }

  function step(title, changes, is) {
    return h("button", { class: "button small", type: "button", disabled: !is, onclick: () => {
      offset.value = changes.offset ?? "";
      from.value = changes.from;
      adapt();
      apply();
    } }, title);
  }

  const view = {
    element: h("div", {}, h("section", { class: "panel" }, bar), problem, h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Messages"), status), list.element, foot)),
    every_ms: 0,
    key(event) {
      if (event.key !== "f") return list.key(event);
      toggle();
      return true;
    },
    async update(query, signal, about) {
      current = query;
      const isMany = about.partitions > AT_ONCE_MAX;
      if (isMany && !query.partition) query = { ...query, partition: "0" };
      choosePartitions(about.partitions, isMany);
      if (document.activeElement !== partition) partition.value = query.partition ?? "";
      if (!about.may.read) {
        problem.hidden = false;
        fill(problem, "You may not read this topic: it takes the right to Read it.");
        fill(status, "");
        fill(foot);
        return;
      }
      let answer;
      try {
        answer = await get(`/topics/${part(name)}/messages`, query, signal);
        problem.hidden = true;
      } catch (error) {
        if (error.name === "AbortError" || error.status === 401 || error.status === 0) throw error;
        problem.hidden = false;
        fill(problem, errorText(error));
        return;
      }
      fill(status, `${plural(answer.messages.length, "message")} · ${plural(answer.scanned, "record")} looked at`,
        answer.exhausted ? [" · ", h("span", { class: "tag warn" }, "stopped at its limit: go on, or narrow it")] : "", answer.failures.length > 0 ? [" · ", h("span", { class: "tag bad", title: answer.failures.join("\n") }, `without ${plural(answer.failures.length, "partition")}`)] : "");
      failed = answer.failures;
      list.update(answer.messages);
      const heldBack = answer.positions.reduce((sum, one) => sum + one.held_back, 0);
      if (heldBack > 0) status.append(" · ", h("span", { class: "tag warn", title: "Without committed only they are shown" }, `${plural(heldBack, "offset")} behind an open transaction`));
      const place = answer.positions.length === 1 ? answer.positions[0] : null;
      const backward = ["newest", "before"].includes(query.from ?? "newest");
      fill(foot, place ? h("div", { class: "pager" }, place.end > place.start ? `partition ${place.partition} holds offsets ${count(place.start)} to ${count(place.end - 1)}` : `partition ${place.partition} is empty; the next offset is ${count(place.end)}`, h("div", { class: "end" },
        backward ? [step("« Newest", { from: "newest" }, query.from === "before"), step("Older ›", { from: "before", offset: String(place.next) }, place.next > place.start)]
          : [step("« Oldest", { from: "oldest" }, true), step("On ›", { from: "offset", offset: String(place.next) }, place.next < place.end)])) : null);
    },
  };
  // While following, the page looks again by itself.
  Object.defineProperty(view, "every_ms", { get: () => (live ? 1_500 : 0) });
  adapt();
  return view;
}

/** Day and time; a narrow window has room for the time. */
function when(ms) {
  const [day, clock] = time(ms).split(" ");
  return h("span", { class: "soft", title: time(ms) }, h("span", { class: "minor" }, day, " "), clock ?? "");
}

function local(ms) {
  const date = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString().slice(0, 19);
}

/** The beginning of a key or value, on one line. */
function preview(field) {
  if (field === null || field === undefined) return h("span", { class: "faint" }, "null");
  if (field.text !== undefined) return field.text === "" ? h("span", { class: "faint" }, "empty") : h("span", { title: field.text.slice(0, 300) }, field.text.slice(0, 400));
  const data = fromBase64(field.base64).slice(0, 64);
  return h("span", { class: "soft", title: "not text" }, [...data].map((byte) => byte.toString(16).padStart(2, "0")).join(" "));
}

/** A message in full. */
function whole(topic, one) {
  const headers = (one.headers ?? []).map(([key, value]) => h("tr", {}, h("td", { class: "mono wide" }, preview(key)), h("td", { class: "mono wide" }, preview(value))));
  show(`${topic} · partition ${one.partition} · offset ${count(one.offset)}`, [
    h("dl", { class: "facts" }, h("dt", {}, "Time"), h("dd", {}, `${time(one.timestamp_ms)} (${one.timestamp_ms})`), one.transactional ? [h("dt", {}, "Written"), h("dd", {}, "in a transaction")] : null),
    one.error ? h("div", { class: "error" }, one.error) : [content("Key", one.key), content("Value", one.value)],
    headers.length > 0 ? h("div", {}, h("h2", {}, one.headers_in_all > headers.length ? `First ${headers.length} of ${plural(one.headers_in_all, "header")}` : plural(headers.length, "header")), h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, headers)))) : null,
  ]);
}

function content(title, field) {
  if (field === null || field === undefined) return h("div", {}, h("h2", {}, title), h("p", { class: "faint" }, title === "Value" ? "null: a tombstone where the topic is compacted" : "null"));
  const data = field.text === undefined ? fromBase64(field.base64) : new TextEncoder().encode(field.text);
  const body = h("pre", { class: "body", tabindex: 0 });
  const ways = { Text: () => fill(body, field.text ?? new TextDecoder().decode(data)), Hex: () => fill(body, hex(data.slice(0, 65_536))) };
  const document = parsed(field);
  if (document !== undefined) ways.JSON = () => fill(body, coloured(document));
  const buttons = Object.keys(ways).map((way) => h("button", { class: "button small", type: "button", onclick: (event) => use(way, event.currentTarget) }, way));
  function use(way, button) {
    buttons.forEach((other) => other.classList.toggle("first", other === button));
    body.classList.toggle("raw", way === "Hex");
    ways[way]();
  }
  const preferred = document !== undefined ? "JSON" : field.text !== undefined ? "Text" : "Hex";
  use(preferred, buttons[Object.keys(ways).indexOf(preferred)]);
  return h("div", {}, h("div", { class: "head tight" }, h("h2", {}, title), h("span", { class: "soft" }, bytes(field.bytes), field.cut ? " · its beginning" : ""), h("span", { class: "grow" }), h("div", { class: "tools" }, buttons)), body);
}

function parsed(field) {
  if (field.text === undefined || field.cut || !/^\s*[[{"]/.test(field.text)) return undefined;
  try {
    // Numbers beyond 2^53 would be shown as others: such a document stays text.
    const document = JSON.parse(field.text);
    return /\d{16,}/.test(field.text) ? undefined : document;
  } catch {
    return undefined;
  }
}

/** A JSON document, indented, with a colour for each kind. */
function coloured(document) {
  const text = JSON.stringify(document, null, 2);
  const parts = [];
  const token = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null)/g;
  let end = 0;
  for (const match of text.matchAll(token)) {
    parts.push(text.slice(end, match.index));
    if (match[1]) parts.push(h("span", { class: match[2] ? "json-key" : "json-text" }, match[1]), match[2] ?? "");
    else parts.push(h("span", { class: match[3] ? "json-number" : "json-word" }, match[0]));
    end = match.index + match[0].length;
  }
  parts.push(text.slice(end));
  return parts;
}
