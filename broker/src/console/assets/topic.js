// One topic: its partitions, its messages, its configs.

import { get, part, post, remove } from "./api.js";
import { configTable } from "./configs.js";
import { field, form, toast } from "./dialog.js";
import { h, fill, path } from "./dom.js";
import { bytes, count, plural } from "./format.js";
import { messages } from "./messages.js";
import { pager, table } from "./table.js";
import { troubled } from "./topics.js";

const TABS = [["partitions", "Partitions"], ["messages", "Messages"], ["configs", "Configs"]];

const tabPath = (name, word) => (word === "partitions" ? path("topics", name) : path("topics", name, word));

export function topic({ name, tab = "partitions", query, shell }) {
  const sub = h("div", { class: "sub" }, "\u00a0");
  const actions = h("div", { class: "tools" });
  const inner = { partitions: () => partitions(name, shell), messages: () => messages(name, query, shell), configs: () => configTable("topic", name, shell) }[tab]?.() ?? partitions(name, shell);
  let about = null;
  const element = h("div", {},
    h("div", { class: "head" }, h("div", { class: "grow" }, h("div", { class: "crumb" }, h("a", { href: "#/topics" }, "Topics")), h("h1", {}, name), sub), actions),
    h("div", { class: "tabs", role: "navigation", "aria-label": "About this topic" }, TABS.map(([word, title], index) => h("a", { href: tabPath(name, word), title: String(index + 1), "aria-current": word === tab ? "page" : null }, title))),
    inner.element);

  async function grow() {
    const done = await form({
      title: `More partitions for ${name}`,
      action: "Add partitions",
      fields: [field("Partitions in all", h("input", { type: "number", name: "count", min: about.partitions + 1, max: 100000, required: true, value: about.partitions + 1, autofocus: true }),
        `It has ${plural(about.partitions, "partition")} now. There is no way back, and keys may go to other partitions than before.`)],
      submit: ({ elements }) => post(`/topics/${part(name)}/partitions`, { count: Number(elements.count.value) }),
    });
    if (done) toast(`${name} has ${plural(done.partitions, "partition")}.`);
    shell.look();
  }

  async function drop() {
    const done = await form({
      title: `Delete ${name}?`,
      action: "Delete for ever",
      danger: true,
      fields: [h("p", {}, `All messages of ${plural(about.partitions, "partition")} are gone then. Type the name to go on.`), field("Name", h("input", { type: "text", name: "name", required: true, autocomplete: "off", autofocus: true }))],
      async submit({ elements }) {
        if (elements.name.value !== name) throw new Error("That is not its name.");
        return remove(`/topics/${part(name)}`);
      },
    });
    if (!done) return;
    toast(`Topic ${name} was deleted.`);
    location.hash = "#/topics";
  }

  return {
    title: name,
    element,
    get every_ms() {
      return inner.every_ms;
    },
    key(event) {
      const chosen = TABS[Number(event.key) - 1];
      if (!chosen) return inner.key?.(event) ?? false;
      location.hash = tabPath(name, chosen[0]);
      return true;
    },
    async update(asked, signal) {
      // Only the tab of partitions needs what brokers say of them.
      const wanted = tab === "partitions" ? asked : { size: 1 };
      about = await get(`/topics/${part(name)}`, wanted, signal);
      fill(sub, plural(about.partitions, "partition"), ` · ${plural(about.replication_factor, "replica")} each · `, troubled(about), about.internal ? [" ", h("span", { class: "tag" }, "internal")] : null);
      fill(actions,
        about.may.alter ? h("button", { class: "button", type: "button", onclick: grow }, "Add partitions") : null,
        about.may.delete && !about.internal ? h("button", { class: "button danger", type: "button", onclick: drop }, "Delete") : null);
      await inner.update(asked, signal, about);
    },
  };
}

function partitions(name, shell) {
  const foot = h("div");
  const overridden = h("div", { class: "body" });
  let current = {};
  let page = null;
  const trouble = h("input", { type: "checkbox", onchange: () => shell.go({ ...current, page: "", filter: trouble.checked ? "trouble" : "" }) });
  const summary = h("span", { class: "end" });
  const go = (number) => shell.go({ ...current, page: number > 1 ? String(number) : "" });
  const list = table({
    caption: "Partitions",
    empty: () => (trouble.checked ? "Every partition has a leader, and all of its replicas are in sync." : "No partitions."),
    open: (one) => (location.hash = `${path("topics", name, "messages")}?partition=${one.partition}`),
    columns: [
      { title: "Partition", cell: (one) => h("a", { href: `${path("topics", name, "messages")}?partition=${one.partition}`, title: "Its messages" }, String(one.partition)) },
      { title: "Leader", cell: (one) => (one.leader === null ? h("span", { class: "tag bad" }, "none") : [h("a", { href: path("brokers", String(one.leader)) }, String(one.leader)), one.leader === one.preferred ? "" : [" ", h("span", { class: "faint minor", title: `preferred: ${one.preferred}` }, "not preferred")]]) },
      { title: "Replicas", kind: "tags", cell: (one) => [replicas(one), one.isr.length < one.replicas.length ? h("span", { class: `tag aside ${one.leader === null ? "bad" : "warn"}` }, `${one.isr.length} of ${one.replicas.length} in sync`) : null] },
      { title: "First offset", num: true, minor: true, cell: (one) => count(one.start_offset) },
      { title: "Next offset", num: true, minor: true, cell: (one) => count(one.end_offset) },
      { title: "Records", num: true, cell: (one) => count(one.end_offset === null || one.start_offset === null ? null : one.end_offset - one.start_offset) },
      { title: "Size", num: true, cell: (one) => bytes(one.bytes) },
      { title: "Epoch", num: true, minor: true, cell: (one) => count(one.leader_epoch) },
    ],
  });
  return {
    element: h("div", {}, h("section", { class: "panel" },
      h("header", {}, h("h2", {}, "Partitions"), h("label", { class: "check" }, trouble, "not well"), summary), list.element, foot),
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Configs of its own"), h("a", { class: "end", href: path("topics", name, "configs") }, "All configs")), overridden)),
    every_ms: 4_000,
    key(event) {
      if (event.key === "n" && page && page.page < page.pages) go(page.page + 1);
      else if (event.key === "p" && page && page.page > 1) go(page.page - 1);
      else return list.key(event);
      return true;
    },
    async update(query, _signal, about) {
      current = query;
      page = about.page;
      trouble.checked = query.filter === "trouble";
      fill(summary, h("span", { class: "legend" }, h("span", {}, h("span", { class: "replica leader" }, "1"), "leader"), h("span", {}, h("span", { class: "replica" }, "2"), "in sync"), h("span", {}, h("span", { class: "replica out" }, "3"), "out of sync or down")));
      list.update(about.items.map((one) => ({ ...one, rowClass: one.leader === null ? "bad" : one.isr.length < one.replicas.length ? "warn" : null })));
      fill(foot, pager(page, go));
      const own = Object.entries(about.overridden ?? {});
      fill(overridden, about.overridden === null ? h("span", { class: "soft" }, "You may not see them: it takes DescribeConfigs of the topic.") : own.length === 0 ? h("span", { class: "soft" }, "None: everything is as the brokers have it.")
        : h("dl", { class: "facts" }, own.map(([key, value]) => [h("dt", {}, key), h("dd", { class: "mono" }, value)])));
    },
  };
}

/** Replicas in their order: filled is the leader, green in sync, dashed out of sync. */
function replicas(one) {
  const moving = (id) => (one.adding.includes(id) ? " · being added" : one.removing.includes(id) ? " · being removed" : "");
  return h("span", { class: "replicas" }, one.replicas.map((replica) => h("span", {
    class: `replica${replica.broker === one.leader ? " leader" : ""}${replica.in_sync && replica.alive ? "" : " out"}`,
    title: `broker ${replica.broker}${replica.alive ? "" : " is down"}: ${replica.broker === one.leader ? "leader" : replica.in_sync ? (replica.alive ? "in sync" : "was in sync") : "not in sync"}${moving(replica.broker)}${replica.bytes === null ? "" : ` · ${bytes(replica.bytes)}`}`,
  }, String(replica.broker))));
}
