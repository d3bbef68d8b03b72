// Properties: what holds, from where, and changing it. Those that differ from the default come first.

import { get, part, put } from "./api.js";
import { field, form, show, toast } from "./dialog.js";
import { breakable, h, fill, path } from "./dom.js";
import { bytes, duration, plural } from "./format.js";
import { pager, table } from "./table.js";

const SOURCE = { topic: "accent", broker: "accent", cluster: "accent", group: "accent", static: "good" };
const SAID = { default: "default", static: "property file", cluster: "cluster", broker: "this broker", topic: "this topic", group: "this group" };

/** The greatest number of a type: Kafka's way to say that there is no limit. */
const NO_LIMIT = ["9223372036854775807", "2147483647"];

/** What a value says in a unit that people read; nothing, where the value says it. */
function hint(config, value = config.value) {
  if (config.sensitive || !/^\d+$/.test(value ?? "")) return "";
  if (NO_LIMIT.includes(value)) return "the greatest there is";
  const number = Number(value);
  if (/\.ms$/.test(config.name) && number >= 1_000) return duration(number);
  return /(\.|^)bytes(\.|$)|buffer\.size$/.test(config.name) && number >= 1_024 ? bytes(number).replace(/\.0+ /, " ") : "";
}

/** Rows of a page: a broker has some hundred configs, and drawing all of them takes longer than anything else. */
const PAGE_SIZE = 50;

/** The configs of one resource, as a part of a page. */
export function configTable(scope, name, shell) {
  let all = [];
  let mayAlter = false;
  let page = 1;
  let pages = 1;
  const foot = h("div");
  const go = (number) => {
    page = number;
    draw();
  };
  const search = h("input", { type: "search", placeholder: "Search configs  ( / )", "aria-label": "Search configs", oninput: () => go(1) });
  const changed = h("input", { type: "checkbox", onchange: () => go(1) });
  const end = h("span", { class: "end" });
  const unknown = h("div", { class: "body soft", hidden: true }, "The broker does not answer, so what its property file says is not known: these are the configs that were set while brokers run.");
  const list = table({
    caption: "Configs",
    empty: () => (all.length === 0 ? "None." : "No config fits."),
    open: (config) => (mayAlter && !config.read_only ? edit(config) : about(config)),
    columns: [
      { title: "Name", kind: "name", cell: (config) => h("button", { class: "link", type: "button", title: config.documentation, onclick: () => about(config) }, breakable(config.name)) },
      { title: "Value", kind: "wide mono", cell: (config) => (config.sensitive ? h("span", { class: "faint" }, "secret") : config.value === null || config.value === "" ? h("span", { class: "faint" }, "–") : [config.value, hint(config) === "" ? null : h("span", { class: "hint" }, hint(config))]) },
      { title: "From", minor: true, cell: (config) => h("span", { class: `tag ${SOURCE[config.source] ?? ""}` }, SAID[config.source] ?? config.source) },
      { title: "Type", minor: true, cell: (config) => h("span", { class: "faint" }, config.type) },
      { title: "", num: true, cell: (config) => (mayAlter && !config.read_only ? h("button", { class: "button small", type: "button", onclick: () => edit(config) }, "Edit") : h("span", { class: "faint" }, config.read_only ? "read-only" : "")) },
    ],
  });

  function draw() {
    const word = search.value.trim().toLowerCase();
    const fits = all.filter((config) => (word === "" || config.name.toLowerCase().includes(word) || (config.documentation ?? "").toLowerCase().includes(word)) && (!changed.checked || config.source !== "default"));
    pages = Math.max(1, Math.ceil(fits.length / PAGE_SIZE));
    page = Math.min(page, pages);
    const visible = fits.slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE);
    list.update(visible.map((config) => ({ ...config, may_alter: mayAlter })));
    fill(foot, pager({ page, pages, size: PAGE_SIZE, total: fits.length }, go));
    fill(end, `${plural(all.filter((config) => config.source !== "default").length, "differs", "differ")} from the default`);
  }

  /** What a config is, for whoever only wants to know. */
  function about(config) {
    const may = mayAlter && !config.read_only;
    const rows = [["Value", told(config.value, config)], ["From", SAID[config.source] ?? config.source], ["Default", told(config.default, config)], ["Type", config.type], ["Valid", config.valid],
      ["Changes", config.read_only ? "with the property file and a restart" : mayAlter ? "while brokers run" : "while brokers run, by those with AlterConfigs"]];
    const dialog = show(config.name, [h("p", {}, config.documentation || "It has no description."),
      h("dl", { class: "facts" }, rows.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))],
    { broad: false, actions: may ? [h("button", { class: "button first", type: "button", onclick: () => {
      dialog.close();
      edit(config);
    } }, "Edit")] : [] });
  }

  const told = (value, config) => [h("span", { class: "mono" }, shown(value, config)), hint(config, value) === "" ? null : h("span", { class: "hint" }, hint(config, value))];
  const shown = (value, config) => (config.sensitive ? "secret" : value === null || value === undefined || value === "" ? "–" : value);

  async function edit(config) {
    if (!mayAlter || config.read_only) return;
    const isOwn = config.source === scope;
    const values = { boolean: ["true", "false"] }[config.type];
    const value = config.sensitive ? "" : config.value ?? "";
    const input = values ? h("select", { name: "value" }, values.map((text) => h("option", { value: text, selected: text === value }, text)))
      : h("input", { type: "text", name: "value", value, autofocus: true, spellcheck: "false" });
    const reset = h("input", { type: "checkbox", name: "reset", onchange: () => (input.disabled = reset.checked) });
    const done = await form({
      title: config.name,
      action: "Apply",
      fields: [
        h("p", { class: "soft" }, config.documentation),
        field(`Value (${config.type})`, input, [config.valid ? `Valid: ${config.valid}. ` : "", config.sensitive ? "" : `Default: ${shown(config.default, config)}. `, `Now from: ${SAID[config.source] ?? config.source}.`]),
        isOwn ? h("label", { class: "check" }, reset, "Remove it: what the level above says holds then") : null,
      ],
      submit: ({ elements }) => put(`/configs/${part(scope)}/${part(name)}`, reset.checked ? { unset: [config.name] } : { set: { [config.name]: elements.value.value } }),
    });
    if (done) toast(`${config.name} was ${reset.checked ? "removed" : "set"}.`);
    if (done) shell.look();
  }

  return {
    element: h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Configs"), h("div", { class: "tools" }, search, h("label", { class: "check" }, changed, "changed only")), end), unknown, list.element, foot),
    every_ms: 0,
    key(event) {
      if (event.key === "n" && page < pages) go(page + 1);
      else if (event.key === "p" && page > 1) go(page - 1);
      else return list.key(event);
      return true;
    },
    async update(_query, signal) {
      const answer = await get(`/configs/${part(scope)}/${part(name)}`, {}, signal);
      all = answer.configs;
      unknown.hidden = answer.answered;
      mayAlter = answer.may_alter;
      draw();
    },
  };
}

/** The page: the defaults of the cluster, and the way to those of brokers. */
export function configs({ scope = "cluster", name = "default", shell }) {
  const inner = configTable(scope, name, shell);
  const tabs = h("div", { class: "tabs", role: "navigation", "aria-label": "Whose configs" });
  return {
    title: "Configs",
    element: h("div", {}, h("div", { class: "head" }, h("div", { class: "grow" }, h("h1", {}, "Configs"), h("div", { class: "sub" }, "What all brokers have unless one has its own, as far as it can be changed while they run; configs of a topic stand with the topic."))), tabs, inner.element),
    every_ms: 0,
    key: (event) => inner.key(event),
    async update(query, signal) {
      const cluster = await get("/cluster", {}, signal);
      const tab = (title, target, is) => h("a", { href: target, "aria-current": is ? "page" : null }, title);
      fill(tabs, tab("All brokers", "#/configs", scope === "cluster"), cluster.brokers.map((broker) => tab(`Broker ${broker.id}`, path("configs", "broker", String(broker.id)), scope === "broker" && name === String(broker.id))));
      await inner.update(query, signal);
    },
  };
}
