// The list of topics: searched, sorted and cut into pages by the server.

import { get, post } from "./api.js";
import { field, form, pairs, toast } from "./dialog.js";
import { breakable, debounced, h, fill, path } from "./dom.js";
import { bytes, count, plural } from "./format.js";
import { pager, table } from "./table.js";

export function topics({ query: first, shell }) {
  let page = null;
  const sub = h("div", { class: "sub" }, "\u00a0");
  const change = (changes) => shell.go({ ...current, page: "", ...changes });
  let current = first;
  const search = h("input", { type: "search", placeholder: "Search topics  ( / )", "aria-label": "Search topics", value: first.search ?? "", maxlength: 249,
    oninput: debounced(180, () => change({ search: search.value.trim() })) });
  const trouble = h("input", { type: "checkbox", checked: first.filter === "trouble", onchange: () => change({ filter: trouble.checked ? "trouble" : "" }) });
  const internal = h("input", { type: "checkbox", checked: first.internal === "true", onchange: () => change({ internal: internal.checked ? "true" : "" }) });
  const create = h("button", { class: "button first", type: "button", title: "Create a topic (c)", onclick: () => createTopic(shell) }, "Create topic");
  const foot = h("div");
  const list = table({
    caption: "Topics",
    empty: () => nothing("topic", filtered(), shell),
    open: (topic) => (location.hash = path("topics", topic.name)),
    columns: [
      { title: "Topic", sort: "name", kind: "name", cell: (topic) => [h("a", { href: path("topics", topic.name), title: topic.name }, breakable(topic.name)), topic.internal ? [" ", h("span", { class: "tag" }, "internal")] : null] },
      { title: "Partitions", sort: "partitions", first: "descending", num: true, cell: (topic) => count(topic.partitions) },
      { title: "Replicas", sort: "replication", first: "descending", num: true, minor: true, cell: (topic) => count(topic.replication_factor) },
      { title: "Size", sort: "bytes", first: "descending", num: true, minor: true, cell: (topic) => bytes(topic.bytes) },
      { title: "Health", sort: "trouble", first: "descending", kind: "tags", cell: troubled },
    ],
  });
  const filtered = () => Boolean(current.search || current.filter);
  let looks = 0;
  const go = (number) => shell.go({ ...current, page: number > 1 ? String(number) : "" });

  return {
    title: "Topics",
    element: h("div", {},
      h("div", { class: "head" }, h("div", { class: "grow" }, h("h1", {}, "Topics"), sub),
        h("div", { class: "tools" }, search, h("label", { class: "check" }, trouble, "not well"), h("label", { class: "check" }, internal, "internal"), create)),
      h("section", { class: "panel" }, list.element, foot)),
    // Sizes come in behind: the first look may be without.
    get every_ms() {
      return looks > 0 && looks < 6 ? 400 : 5_000;
    },
    key(event) {
      if (event.key === "c") createTopic(shell);
      else if (event.key === "n" && page && page.page < page.pages) go(page.page + 1);
      else if (event.key === "p" && page && page.page > 1) go(page.page - 1);
      else return list.key(event);
      return true;
    },
    async update(query, signal) {
      current = query;
      const [answer] = await Promise.all([get("/topics", query, signal), shell.known()]);
      page = answer.page;
      looks = answer.sizes_known ? 0 : looks + 1;
      fill(sub, plural(page.total, "topic"), query.search ? ` with “${query.search}”` : "");
      list.update(answer.topics, { sort: query.sort ?? "name", order: query.order ?? "ascending", change: (sort, order) => change({ sort, order }) });
      fill(foot, pager(page, go));
    },
  };
}

/** Why a list is empty. What somebody may not see is left out of it, so that is said too. */
export function nothing(what, filtered, shell) {
  const session = shell.session();
  const who = session?.signed_in ? session.principal : "Without signing in you";
  return [h("p", {}, filtered ? `No ${what} fits.` : session?.authorizer ? `There are no ${what}s to show.` : `There are no ${what}s yet.`),
    session?.authorizer ? h("p", { class: "faint" }, `${who} may see only those that rules allow to Describe.`) : null];
}

/** What is not well with a topic. */
export function troubled(topic) {
  const tags = [[topic.offline, "offline", "bad"], [topic.under_min_isr, "under min ISR", "bad"], [topic.under_replicated, "under-replicated", "warn"]].filter(([number]) => number > 0);
  return tags.length === 0 ? h("span", { class: "soft" }, h("span", { class: "dot good" }), "\u00a0in sync") : tags.map(([number, label, kind]) => [h("span", { class: `tag ${kind}` }, `${count(number)} ${label}`), " "]);
}

export async function createTopic(shell) {
  const input = (name, properties) => h("input", { name, ...properties });
  const done = await form({
    title: "Create a topic",
    action: "Create",
    fields: [
      field("Name", input("name", { type: "text", required: true, autofocus: true, maxlength: 249, pattern: "[a-zA-Z0-9._\\-]+", title: "Letters, digits, dot, underscore and dash" })),
      h("div", { class: "pair" },
        field("Partitions", input("partitions", { type: "number", min: 1, max: 100000, placeholder: "num.partitions" })),
        field("Replicas of each", input("replicas", { type: "number", min: 1, max: 100, placeholder: "default.replication.factor" }))),
      field("Configs", h("textarea", { name: "configs", spellcheck: "false", placeholder: "cleanup.policy=compact\nretention.ms=86400000" }), "One name=value a line; what is not given has the broker's default."),
    ],
    async submit({ elements }) {
      const number = (text) => (text === "" ? undefined : Number(text));
      return post("/topics", {
        name: elements.name.value.trim(), partitions: number(elements.partitions.value), replication_factor: number(elements.replicas.value), configs: pairs(elements.configs.value),
      });
    },
  });
  if (!done) return;
  toast(`Topic ${done.name} was created.`);
  location.hash = path("topics", done.name);
  shell.look();
}
