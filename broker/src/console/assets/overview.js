// The cluster at a glance: figures, traffic, the map of brokers by rack, what is not well.

import { get } from "./api.js";
import { panel, summed } from "./chart.js";
import { breakable, h, fill, path } from "./dom.js";
import { bytes, bytesRate, compact, count, plural, rate } from "./format.js";

export function overview({ shell }) {
  const title = h("h1", {}, "Overview");
  const sub = h("div", { class: "sub" }, "\u00a0");
  const figures = h("div", { class: "figures" });
  const map = h("div", { class: "racks" }, h("div", { class: "loading" }, "Loading…"));
  const silent = h("span", { class: "end" });
  const charts = [panel("Produced", bytesRate, ""), panel("Consumed", bytesRate, "second"), panel("Requests", rate, "third")];
  const trouble = h("section", { class: "panel", hidden: true });
  const quorumState = h("span");
  const behind = ranking("Groups furthest behind", "#/groups?sort=lag&order=descending");
  const largest = ranking("Largest topics", "#/topics?sort=bytes&order=descending");
  const element = h("div", {},
    h("div", { class: "head" }, h("div", { class: "grow" }, title, sub)),
    h("section", { class: "panel", "aria-label": "Figures" }, figures),
    trouble,
    h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Throughput"), silent), h("div", { class: "traffic" }, charts.map((chart) => chart.element))),
    h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Brokers by rack"), h("span", { class: "end legend" }, quorumState, legend())), map),
    h("div", { class: "grid" }, behind.element, largest.element));

  let ranked_at = 0;

  /** What is said where somebody may not see everything is said of what they may see. */
  const seen = (all, some) => (shell.session()?.authorizer ? some : all);

  async function rank(signal) {
    const asked = (list, sort) => get(list, { sort, order: "descending", size: RANKS }, signal).catch(() => null);
    const [groups, topics] = await Promise.all([asked("/groups", "lag"), asked("/topics", "bytes"), shell.known().catch(() => null)]);
    if (signal.aborted) return;
    // Sizes come in behind: the first look may be without.
    if (groups && topics?.sizes_known) ranked_at = Date.now();
    // Lags of many groups are not sorted: what is shown then would be any.
    behind.update((groups?.sort === "lag" ? groups.groups : []).filter((group) => group.lag > 0).map((group) => [path("groups", group.id), group.id, group.lag, count(group.lag)]),
      groups === null ? "Not known." : groups.sort === "lag" ? seen("Nobody is behind.", "No group that you may see is behind.") : "Too many groups to sort them by lag.");
    largest.update((topics?.topics ?? []).filter((topic) => topic.bytes > 0).map((topic) => [path("topics", topic.name), topic.name, topic.bytes, bytes(topic.bytes)]),
      topics?.sizes_known ? seen("Nothing is written yet.", "No topic that you may see has anything written.") : "Not known yet.");
  }

  return {
    title: "Overview",
    element,
    every_ms: 2_000,
    async update(_query, signal) {
      // Lags take every coordinator's and leader's answer: they are asked for less often, and nothing else waits for them.
      const ranked = Date.now() - ranked_at > RANKED_EVERY_MS ? rank(signal) : null;
      const [cluster, quorum, traffic] = await Promise.all([
        get("/cluster", {}, signal),
        get("/quorum", {}, signal).catch(quiet),
        get("/traffic", {}, signal).catch(quiet),
      ]);
      fill(sub, "Cluster ", h("span", { class: "mono" }, cluster.cluster_id), ` · answered by node ${cluster.answering_node}`,
        cluster.trouble === null ? " · health and disks are not shown: they take the right to Describe the cluster" : "");
      // One that is cordoned serves like the others.
      const running = cluster.brokers.filter((one) => BROKER_STATES[one.state].serves).length;
      const sums = summed(traffic?.nodes ?? [], ["produced_bytes", "fetched_bytes", "requests", "produced_records"]);
      const now = (name) => sums[name]?.[sums[name].length - 1] ?? null;
      charts[0].update(sums.produced_bytes ?? []);
      charts[1].update(sums.fetched_bytes ?? []);
      charts[2].update(sums.requests ?? []);
      fill(silent, traffic === null ? "not shown: it takes the right to Describe the cluster" : traffic?.silent?.length > 0 ? `without ${plural(traffic.silent.length, "broker")} that did not answer` : now("produced_records") === null ? "" : `${compact(now("produced_records"))} records/s`);
      const problems = cluster.trouble;
      fill(figures,
        figure(`${running} / ${cluster.brokers.length}`, "brokers running", running < cluster.brokers.length ? "warn" : ""),
        figure(count(cluster.topics), "topics"),
        figure(count(cluster.partitions), "partitions"),
        problems ? [
          figure(many(problems.under_replicated.count), "under-replicated", problems.under_replicated.count > 0 ? "warn" : ""),
          figure(many(problems.under_min_isr.count), "under min ISR", problems.under_min_isr.count > 0 ? "bad" : ""),
          figure(many(problems.offline.count), "without a leader", problems.offline.count > 0 ? "bad" : ""),
        ] : null,
        figure(cluster.controller_id < 0 ? "none" : `node ${cluster.controller_id}`, "controller", cluster.controller_id < 0 ? "bad" : ""),
        traffic === null ? null : figure(compact((traffic?.nodes ?? []).reduce((sum, node) => sum + (node.connections ?? 0), 0)), "connections"));
      troubles(trouble, problems);
      fill(map, racks(cluster, quorum, traffic));
      fill(quorumState, quorum ? [h("b", {}, `quorum of ${quorum.voters.length}`), ` · term ${count(quorum.leader_epoch)} · committed to ${count(quorum.high_watermark)}`] : "");
      await ranked;
    },
  };
}

/** A part that may be refused or away: the rest is shown all the same. */
export function quiet(error) {
  if (error.name === "AbortError") throw error;
  return null;
}

/** How many names a ranking has, and how old it may be. */
const RANKS = 5;
const RANKED_EVERY_MS = 10_000;

/** A short list of what has most of something: name, meter, number. */
function ranking(title, all) {
  const body = h("div", { class: "body ranks" }, h("div", { class: "loading" }, "Loading…"));
  return {
    element: h("section", { class: "panel span-6" }, h("header", {}, h("h2", {}, title), h("a", { class: "end", href: all }, "All")), body),
    update(rows, otherwise) {
      const most = Math.max(1, ...rows.map(([, , value]) => value));
      fill(body, rows.length === 0 ? h("div", { class: "soft" }, otherwise)
        : rows.map(([target, name, value, shown]) => [h("a", { href: target, title: name }, breakable(name)), meter(value, most), h("span", { class: "num" }, shown)]));
    },
  };
}

// The server names at most a thousand.
const many = (number) => (number >= 1_000 ? "1,000+" : count(number));

function figure(value, label, kind) {
  return h("div", { class: `figure ${kind ?? ""}` }, h("b", {}, value), h("span", {}, label));
}

function troubles(element, trouble) {
  const kinds = trouble ? [["Without a leader", trouble.offline, "bad"], ["Under min ISR", trouble.under_min_isr, "bad"], ["Under-replicated", trouble.under_replicated, "warn"]] : [];
  const shown = kinds.filter(([, found]) => found.count > 0);
  element.hidden = shown.length === 0;
  fill(element, h("header", {}, h("h2", {}, "Needs attention"), h("a", { class: "end", href: "#/topics?filter=trouble" }, "All topics concerned")),
    h("div", { class: "body" }, shown.map(([label, found, kind]) => h("p", {}, h("span", { class: `tag ${kind}` }, `${label} ${many(found.count)}`), " ",
      found.first.slice(0, 12).map((one) => [h("a", { href: path("topics", one.topic) }, `${one.topic}-${one.partition}`), " "]), found.count > 12 ? "…" : ""))));
}

function racks(cluster, quorum, traffic) {
  const byRack = new Map();
  for (const broker of cluster.brokers) {
    const rack = broker.rack || "";
    byRack.set(rack, [...(byRack.get(rack) ?? []), broker]);
  }
  const voters = new Map((quorum?.voters ?? []).map((voter) => [voter.node_id, voter]));
  const shown = [...byRack.entries()].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true }));
  const scale = {
    leaders: Math.max(1, ...cluster.brokers.map((broker) => broker.leaders)),
    replicas: Math.max(1, ...cluster.brokers.map((broker) => broker.replicas)),
  };
  const racks = shown.map(([rack, brokers]) => h("div", { class: "rack" }, h("h3", {}, rack === "" ? "no rack" : rack),
    brokers.map((broker) => node(broker, cluster, voters.get(broker.id), traffic?.nodes?.find((one) => one.id === broker.id), scale))));
  const alone = [...voters.values()].filter((voter) => !cluster.brokers.some((broker) => broker.id === voter.node_id));
  if (alone.length > 0) {
    racks.push(h("div", { class: "rack" }, h("h3", {}, "controllers only"), alone.map((voter) => h("div", { class: "node" },
      h("div", { class: "title" }, h("span", { class: "dot good" }), h("span", { class: "grow" }, `node ${voter.node_id}`), voter.node_id === cluster.controller_id ? h("span", { class: "tag accent" }, "controller") : null),
      h("div", { class: "soft" }, voter.endpoint)))));
  }
  return racks;
}

/** How a broker is called and coloured by its state; a cordoned one takes no further replicas. */
export const BROKER_STATES = {
  running: { kind: "good", word: "running", serves: true },
  cordoned: { kind: "warn", word: "cordoned", serves: true },
  stopping: { kind: "warn", word: "stopping", serves: false },
  fenced: { kind: "bad", word: "down", serves: false },
};

function node(broker, cluster, voter, traffic, scale) {
  const state = BROKER_STATES[broker.state];
  const listener = broker.listeners[0];
  const last = (values) => values?.[values.length - 1];
  const role = broker.id === cluster.controller_id ? "controller" : voter ? (voter.lag > 0 ? `voter, ${count(voter.lag)} behind` : "voter") : null;
  const disks = broker.disks;
  const used = disks?.total_bytes > 0 ? 1 - disks.free_bytes / disks.total_bytes : null;
  return h("a", { class: "node", href: path("brokers", String(broker.id)) },
    h("div", { class: "title" }, h("span", { class: `dot ${state.kind}` }), h("span", { class: "grow" }, `broker ${broker.id}`),
      broker.state === "running" ? null : h("span", { class: `tag ${state.kind}` }, state.word),
      role ? h("span", { class: `tag ${role === "controller" ? "accent" : ""}` }, role) : null),
    h("div", { class: "soft" }, listener ? `${listener.host}:${listener.port}` : "no listener",
      traffic ? ` · in ${bytesRate(last(traffic.produced_bytes) ?? 0)} · out ${bytesRate(last(traffic.fetched_bytes) ?? 0)}` : ""),
    h("div", { class: "bars" }, bar("leaders", broker.leaders, scale.leaders), bar("replicas", broker.replicas, scale.replicas),
      used === null ? null : bar("disk used", used, 1, percent(used), full(used))));
}

export const percent = (share) => `${Math.round(share * 100)} %`;

/** How a disk is that is used so far. */
export const full = (share) => (share > 0.9 ? "bad" : share > 0.8 ? "warn" : "");

/** How much of the most something is. */
export function meter(value, most, kind = "") {
  const fillIn = h("i");
  fillIn.style.width = `${most > 0 ? Math.min(100, (value / most) * 100) : 0}%`;
  return h("span", { class: `meter ${kind}`, "aria-hidden": "true" }, fillIn);
}

/** A labelled meter. */
export function bar(label, value, most, shown = count(value), kind = "") {
  return h("div", {}, h("span", {}, label), meter(value, most, kind), h("span", { class: "num" }, shown));
}

function legend() {
  return [["good", "running"], ["warn", "stopping or cordoned"], ["bad", "down"]].map(([kind, text]) => h("span", {}, h("span", { class: `dot ${kind}` }), text));
}
