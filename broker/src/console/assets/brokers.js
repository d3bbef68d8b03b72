// Brokers: all of them, and one with its disks and properties.

import { get, part } from "./api.js";
import { BROKER_STATES, bar, full, percent, quiet } from "./overview.js";
import { configTable } from "./configs.js";
import { h, fill, path } from "./dom.js";
import { bytes, bytesRate, count, plural, rate, time } from "./format.js";
import { panel } from "./chart.js";
import { table } from "./table.js";

function state(broker) {
  const { kind, word } = BROKER_STATES[broker.state];
  return h("span", { class: `tag ${kind}` }, word);
}

function diskUse({ disks }) {
  if (!disks || !(disks.total_bytes > 0)) return "–";
  const share = 1 - disks.free_bytes / disks.total_bytes;
  const told = `${bytes(disks.log_bytes)} of logs in ${plural(disks.directories, "directory", "directories")} · ${bytes(disks.free_bytes)} free of ${bytes(disks.total_bytes)}`;
  return h("span", { title: told }, disks.failed > 0 ? h("span", { class: "tag bad" }, `${disks.failed} failed`) : null, " ", h("span", { class: full(share) ? `tag ${full(share)}` : "" }, percent(share)));
}

export function brokers() {
  const list = table({
    caption: "Brokers",
    open: (broker) => (location.hash = path("brokers", String(broker.id))),
    columns: [
      { title: "Broker", kind: "name", cell: (broker) => h("a", { href: path("brokers", String(broker.id)) }, `broker ${broker.id}`) },
      { title: "State", cell: state },
      { title: "Role", cell: (broker) => (broker.role ? h("span", { class: `tag ${broker.role === "controller" ? "accent" : ""}` }, broker.role) : h("span", { class: "faint" }, "broker")) },
      { title: "Rack", minor: true, cell: (broker) => broker.rack || "–" },
      { title: "Address", minor: true, kind: "mono", cell: (broker) => broker.listeners.map((listener) => `${listener.host}:${listener.port}`).join(", ") },
      { title: "Leaders", num: true, minor: true, cell: (broker) => count(broker.leaders) },
      { title: "Replicas", num: true, minor: true, cell: (broker) => count(broker.replicas) },
      { title: "Disk used", num: true, cell: diskUse },
      { title: "In", num: true, minor: true, cell: (broker) => bytesRate(broker.traffic?.produced_bytes.at(-1)) },
      { title: "Out", num: true, minor: true, cell: (broker) => bytesRate(broker.traffic?.fetched_bytes.at(-1)) },
      { title: "Requests", num: true, minor: true, cell: (broker) => rate(broker.traffic?.requests.at(-1)) },
      { title: "Version", minor: true, cell: (broker) => broker.version },
    ],
  });
  const voters = table({
    caption: "Controllers",
    columns: [
      { title: "Node", kind: "name", cell: (voter) => `node ${voter.node_id}` },
      { title: "Role", cell: (voter) => (voter.role === "leader" ? h("span", { class: "tag accent" }, "leader") : voter.role) },
      { title: "Address", minor: true, kind: "mono", cell: (voter) => voter.endpoint || "–" },
      { title: "Log end", num: true, cell: (voter) => count(voter.log_end_offset) },
      { title: "Behind", num: true, cell: (voter) => (voter.lag > 0 ? h("span", { class: "tag warn" }, count(voter.lag)) : "0") },
      { title: "Caught up at", minor: true, cell: (voter) => (voter.last_caught_up_ms > 0 ? time(voter.last_caught_up_ms) : "–") },
    ],
  });
  const end = h("span", { class: "end" });
  const quorumPanel = h("section", { class: "panel", hidden: true }, h("header", {}, h("h2", {}, "Controller quorum"), end), voters.element);
  return {
    title: "Brokers",
    element: h("div", {}, h("div", { class: "head" }, h("h1", {}, "Brokers")), h("section", { class: "panel" }, list.element), quorumPanel),
    every_ms: 3_000,
    key: (event) => list.key(event),
    async update(_query, signal) {
      const [cluster, quorum, traffic] = await Promise.all([get("/cluster", {}, signal), get("/quorum", {}, signal).catch(quiet), get("/traffic", {}, signal).catch(quiet)]);
      const voting = new Set((quorum?.voters ?? []).map((voter) => voter.node_id));
      list.update(cluster.brokers.map((broker) => ({
        ...broker,
        role: broker.id === cluster.controller_id ? "controller" : voting.has(broker.id) ? "voter" : null,
        traffic: traffic?.nodes.find((node) => node.id === broker.id),
      })));
      quorumPanel.hidden = !quorum;
      if (!quorum) return;
      fill(end, `term ${count(quorum.leader_epoch)} · committed to ${count(quorum.high_watermark)}`);
      const member = (role) => (voter) => ({ ...voter, role: voter.node_id === quorum.leader_id ? "leader" : role });
      voters.update([...quorum.voters.map(member("voter")), ...quorum.observers.map(member("observer"))]);
    },
  };
}

export function broker({ id, shell }) {
  const sub = h("div", { class: "sub" });
  const title = h("h1", {}, `Broker ${id}`);
  const facts = h("dl", { class: "facts" });
  const disks = h("div", { class: "body" }, h("div", { class: "loading" }, "Loading…"));
  const charts = [panel("Produced", bytesRate, ""), panel("Consumed", bytesRate, "second"), panel("Requests", rate, "third")];
  const configs = configTable("broker", id, shell);
  return {
    title: `Broker ${id}`,
    element: h("div", {},
      h("div", { class: "head" }, h("div", { class: "grow" }, h("div", { class: "crumb" }, h("a", { href: "#/brokers" }, "Brokers")), title, sub)),
      h("section", { class: "panel" }, h("header", {}, h("h2", {}, "Throughput")), h("div", { class: "traffic" }, charts.map((chart) => chart.element))),
      h("div", { class: "grid" },
        h("section", { class: "panel span-4" }, h("header", {}, h("h2", {}, "Node")), h("div", { class: "body" }, facts)),
        h("section", { class: "panel span-8" }, h("header", {}, h("h2", {}, "Disks")), disks)),
      configs.element),
    every_ms: 3_000,
    key: (event) => configs.key(event),
    async update(query, signal) {
      const [broker, traffic] = await Promise.all([get(`/brokers/${part(id)}`, {}, signal), get("/traffic", {}, signal).catch(quiet), configs.update(query, signal)]);
      fill(sub, state(broker), " ", broker.is_controller ? h("span", { class: "tag accent" }, "controller") : "");
      const own = traffic?.nodes.find((node) => node.id === broker.id);
      charts[0].update(own?.produced_bytes ?? []);
      charts[1].update(own?.fetched_bytes ?? []);
      charts[2].update(own?.requests ?? []);
      fill(facts, [["Rack", broker.rack || "–"], ["Version", broker.version], ["Epoch", count(broker.epoch)], ["Leaders", count(broker.leaders)], ["Replicas", count(broker.replicas)],
        ...broker.listeners.map((listener) => [listener.name, `${listener.host}:${listener.port} (${listener.security_protocol})`]), ["gRPC", broker.grpc_endpoint || "–"]]
        .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
      fill(disks, broker.log_directories === null ? h("div", { class: "soft" }, broker.log_directories_error) : broker.log_directories.map(disk));
    },
  };
}

function disk(directory) {
  const used = directory.total_bytes > 0 ? directory.total_bytes - directory.free_bytes : 0;
  const share = directory.total_bytes > 0 ? used / directory.total_bytes : 0;
  return h("div", {}, h("p", {}, h("span", { class: "mono" }, directory.path), " ",
    directory.error ? h("span", { class: "tag bad" }, directory.error) : directory.cordoned ? h("span", { class: "tag warn" }, "cordoned") : ""),
  h("div", { class: "bars" }, bar("disk used", used, directory.total_bytes, percent(share), full(share))),
  h("p", { class: "soft" }, `${bytes(directory.log_bytes)} in ${count(directory.replicas)} logs · ${bytes(directory.free_bytes)} free of ${bytes(directory.total_bytes)}`));
}
