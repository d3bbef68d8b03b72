// Lines of the last minutes, drawn as SVG.

import { h, s, fill } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 74;
// As many as a node keeps: a shorter history stands at the right, where now is.
const STEPS = 150;

/** A chart of values at equal steps; `max` of the scale is at least `least`. */
export function sparkline(values, { kind = "", label = "", least = 1 } = {}) {
  const top = Math.max(least, ...values) * 1.08;
  const step = WIDTH / (STEPS - 1);
  const first = STEPS - values.length;
  const points = values.map((value, index) => [(first + index) * step, HEIGHT - 2 - (value / top) * (HEIGHT - 8)]);
  const line = points.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
  const chart = s("svg", { class: `chart ${kind}`, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT - 1.5, y2: HEIGHT - 1.5 }));
  if (points.length > 1) {
    chart.append(
      s("polygon", { class: "area", points: `${(first * step).toFixed(1)},${HEIGHT - 2} ${line} ${WIDTH},${HEIGHT - 2}` }),
      s("polyline", { class: "trace", points: line }),
    );
  }
  return chart;
}

/** One labelled chart: what it is now, the line, the greatest. */
export function panel(title, shown, kind) {
  const now = h("b", {}, "–");
  const peak = h("span", { class: "soft" });
  const place = h("div", {}, sparkline([], { kind, label: title }));
  const element = h("div", {}, h("div", { class: "now" }, h("span", { class: "soft" }, title), now), place,
    h("div", { class: "now faint" }, h("span", {}, "last 5 minutes"), peak));
  return {
    element,
    update(values) {
      const last = values.length > 0 ? values[values.length - 1] : null;
      fill(now, shown(last));
      fill(peak, values.length > 0 ? `peak ${shown(Math.max(...values))}` : "");
      fill(place, sparkline(values, { kind, label: `${title}: now ${shown(last)}` }));
    },
  };
}

/** Adds what brokers told, by time: `{at_ms, produced_bytes, …}` with an array a value. */
export function summed(nodes, names) {
  const times = new Map();
  for (const node of nodes) {
    node.at_ms.forEach((at_ms, index) => {
      const sums = times.get(at_ms) ?? Object.fromEntries(names.map((name) => [name, 0]).concat([["nodes", 0]]));
      for (const name of names) sums[name] += node[name][index];
      sums.nodes += 1;
      times.set(at_ms, sums);
    });
  }
  const sorted = [...times.entries()].sort(([one], [other]) => one - other);
  // The newest step counts when every broker has told it: half a sum would look like a fall.
  const most = nodes.filter((node) => node.at_ms.length > 0).length;
  while (sorted.length > 0 && sorted[sorted.length - 1][1].nodes < most) sorted.pop();
  const last = sorted.slice(-STEPS);
  return Object.fromEntries(names.map((name) => [name, last.map(([, sums]) => sums[name])]));
}
