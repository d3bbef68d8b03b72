// Groups: the list, and one with its members and how far it is behind.

import { get, part, remove } from "./api.js";
import { form, toast } from "./dialog.js";
import { breakable, debounced, h, fill, path } from "./dom.js";
import { count, plural } from "./format.js";
import { meter } from "./overview.js";
import { pager, table } from "./table.js";
import { nothing } from "./topics.js";

const KIND = { stable: "good", empty: "", dead: "bad", notready: "warn", preparingrebalance: "warn", completingrebalance: "warn", assigning: "warn", reconciling: "warn" };
/** Words as the protocol has them, and as people read them. */
const words = (text) => (text === "" ? "unknown" : text.replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase());
const STATES = ["Stable", "Empty", "PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling", "NotReady", "Dead"];
const TYPES = ["classic", "consumer", "share", "streams"];

function state(text) {
  return h("span", { class: `tag ${KIND[text.toLowerCase()] ?? ""}` }, words(text));
}

function lag(number) {
  return number === null || number === undefined ? "–" : h("span", { class: number === 0 ? "faint" : "" }, count(number));
}

export function groups({ query: first, shell }) {
  let page = null;
  let current = first;
  const sub = h("div", { class: "sub" }, "\u00a0");
  const change = (changes) => shell.go({ ...current, page: "", ...changes });
  const search = h("input", { type: "search", placeholder: "Search groups  ( / )", "aria-label": "Search groups", value: first.search ?? "", maxlength: 249,
    oninput: debounced(180, () => change({ search: search.value.trim() })) });
  const choice = (label, all, names, key) => {
    const select = h("select", { "aria-label": label, onchange: () => change({ [key]: select.value }) },
      ["", ...names].map((value) => h("option", { value, selected: value === (first[key] ?? "") }, value === "" ? all : words(value))));
    return select;
  };
  const types = choice("Type", "every type", TYPES, "type");
  const states = choice("State", "every state", STATES, "state");
  const foot = h("div");
  const list = table({
    caption: "Groups",
    empty: () => nothing("group", Boolean(current.search || current.state || current.type), shell),
    open: (group) => (location.hash = path("groups", group.id)),
    columns: [
      { title: "Group", sort: "name", kind: "name", cell: (group) => h("a", { href: path("groups", group.id), title: group.id }, breakable(group.id)) },
      { title: "State", sort: "state", cell: (group) => state(group.state) },
      { title: "Type", sort: "type", minor: true, cell: (group) => h("span", { class: "soft" }, group.type) },
      { title: "Members", sort: "members", first: "descending", num: true, cell: (group) => count(group.members) },
      { title: "Topics", num: true, minor: true, cell: (group) => count(group.topics) },
      { title: "Lag", sort: "lag", first: "descending", num: true, cell: (group) => lag(group.lag) },
      { title: "Coordinator", num: true, minor: true, cell: (group) => h("a", { href: path("brokers", String(group.coordinator)) }, String(group.coordinator)) },
    ],
  });
  const go = (number) => shell.go({ ...current, page: number > 1 ? String(number) : "" });
  return {
    title: "Groups",
    element: h("div", {},
      h("div", { class: "head" }, h("div", { class: "grow" }, h("h1", {}, "Groups"), sub), h("div", { class: "tools" }, search, types, states)),
      h("section", { class: "panel" }, list.element, foot)),
    every_ms: 4_000,
    key(event) {
      if (event.key === "n" && page && page.page < page.pages) go(page.page + 1);
      else if (event.key === "p" && page && page.page > 1) go(page.page - 1);
      else return list.key(event);
      return true;
    },
    async update(query, signal) {
      current = query;
      const [answer] = await Promise.all([get("/groups", query, signal), shell.known()]);
      page = answer.page;
      const wanted = query.sort ?? "name";
      fill(sub, plural(page.total, "group"), query.search ? ` with “${query.search}”` : "",
        answer.silent.length > 0 ? ` · without those of ${plural(answer.silent.length, "broker")} that did not answer` : "",
        answer.sort === wanted ? "" : ` · too many to sort by ${wanted}: search first`);
      list.update(answer.groups, { sort: answer.sort, order: query.order ?? "ascending", change: (sort, order) => change({ sort, order }) });
      fill(foot, pager(page, go));
    },
  };
}

export function group({ id, shell }) {
  let page = null;
  let current = {};
  const sub = h("div", { class: "sub" }, "\u00a0");
  const actions = h("div", { class: "tools" });
  const figures = h("div", { class: "figures" });
  const foot = h("div");
  const go = (number) => shell.go({ ...current, page: number > 1 ? String(number) : "" });
  const members = table({
    caption: "Members",
    empty: "It has no members.",
    columns: [
      { title: "Client", kind: "name", cell: (member) => [h("span", {}, breakable(member.client_id || "–")), h("div", { class: "hint mono", title: "The member's id" }, member.id)] },
      { title: "Host", minor: true, kind: "mono", cell: (member) => member.host },
      { title: "Instance", minor: true, cell: (member) => member.instance_id ?? h("span", { class: "faint" }, "–") },
      { title: "Epoch", num: true, minor: true, cell: (member) => count(member.epoch) },
      { title: "Partitions", kind: "wide", cell: (member) => (member.assigned.length === 0 ? h("span", { class: "faint" }, "none") : member.assigned.map((one) => [h("a", { href: path("topics", one.topic) }, one.topic), h("span", { class: "soft" }, ` ${ranges(one.partitions)}  `)])) },
    ],
  });
  let most = 1;
  const committed = { title: "Committed", num: true, minor: true,
    cell: (one) => (one.committed === null ? h("span", { class: "faint", title: "Where it begins is said by auto.offset.reset" }, "nothing yet") : count(one.committed)) };
  const offsets = table({
    caption: "Offsets",
    empty: "It has committed nothing and reads nothing.",
    columns: [
      { title: "Topic", kind: "name", cell: (one) => h("a", { href: path("topics", one.topic) }, breakable(one.topic)) },
      { title: "Partition", num: true, cell: (one) => h("a", { href: `${path("topics", one.topic, "messages")}?partition=${one.partition}${one.committed === null ? "" : `&from=offset&offset=${one.committed}`}`, title: "Messages from here on" }, String(one.partition)) },
      committed,
      { title: "End", num: true, minor: true, cell: (one) => count(one.end) },
      { title: "Lag", num: true, cell: (one) => lag(one.lag) },
      { title: "", minor: true, cell: (one) => h("div", { class: "lagbar" }, meter(one.lag ?? 0, most)) },
      { title: "Read by", minor: true, cell: (one) => one.member ?? h("span", { class: "faint" }, "nobody") },
    ],
  });

  async function drop() {
    const done = await form({
      title: `Delete group ${id}?`, action: "Delete", danger: true,
      fields: [h("p", {}, "Its committed offsets are gone then: whoever comes back with this name begins where auto.offset.reset says.")],
      submit: () => remove(`/groups/${part(id)}`),
    });
    if (!done) return;
    toast(`Group ${id} was deleted.`);
    location.hash = "#/groups";
  }

  return {
    title: id,
    element: h("div", {},
      h("div", { class: "head" }, h("div", { class: "grow" }, h("div", { class: "crumb" }, h("a", { href: "#/groups" }, "Groups")), h("h1", {}, id), sub), actions),
      h("section", { class: "panel", "aria-label": "Figures" }, figures),
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Members")), members.element),
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Offsets")), offsets.element, foot)),
    every_ms: 3_000,
    key(event) {
      if (event.key === "n" && page && page.page < page.pages) go(page.page + 1);
      else if (event.key === "p" && page && page.page > 1) go(page.page - 1);
      else return offsets.key(event);
      return true;
    },
    async update(query, signal) {
      current = query;
      const group = await get(`/groups/${part(id)}`, query, signal);
      page = group.page;
      fill(sub, state(group.state), ` ${group.type} group`, group.assignor ? ` · ${group.assignor}` : "", " · coordinated by ", h("a", { href: path("brokers", String(group.coordinator)) }, `broker ${group.coordinator}`));
      const figure = (value, label) => h("div", { class: "figure" }, h("b", {}, value), h("span", {}, label));
      fill(figures, figure(count(group.lag), "records behind"), figure(group.members === null ? "–" : count(group.members.length), "members"), figure(count(group.committed_in), group.type === "share" ? "partitions begun" : "partitions committed"), figure(count(page.total - (group.committed_in ?? 0)), "read without a commit"));
      fill(actions, group.may_delete && group.members?.length === 0 ? h("button", { class: "button danger", type: "button", onclick: drop }, "Delete") : null);
      committed.title = group.type === "share" ? "Begins at" : "Committed";
      members.update(group.members ?? []);
      most = Math.max(1, ...group.offsets.map((one) => one.lag ?? 0));
      offsets.update(group.offsets);
      fill(foot, page.pages > 1 ? pager(page, go) : null);
    },
  };
}

/** `0–3, 5`. */
function ranges(numbers) {
  const sorted = [...numbers].sort((one, other) => one - other);
  const found = [];
  for (const number of sorted) {
    const last = found[found.length - 1];
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return found.map(([from, to]) => (from === to ? String(from) : `${from}–${to}`)).join(", ");
}
