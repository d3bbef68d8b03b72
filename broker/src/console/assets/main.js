// The frame around the pages: the address, the bar, the keyboard, and looking again.

import { get, keepLogin, ApiError } from "./api.js";
import { field, form, show, toast, errorText } from "./dialog.js";
import { h, fill, isTyping } from "./dom.js";
import { count, plural, sentence } from "./format.js";
import { overview } from "./overview.js";
import { topics } from "./topics.js";
import { topic } from "./topic.js";
import { groups, group } from "./groups.js";
import { brokers, broker } from "./brokers.js";
import { configs } from "./configs.js";

/** Pages by their path; a colon takes a part of it. */
const PAGES = [
  [[], overview],
  [["topics"], topics],
  [["topics", ":name"], topic],
  [["topics", ":name", ":tab"], topic],
  [["groups"], groups],
  [["groups", ":id"], group],
  [["brokers"], brokers],
  [["brokers", ":id"], broker],
  [["configs"], configs],
  [["configs", ":scope", ":name"], configs],
];

const NAVIGATION = [["Overview", "", "o"], ["Topics", "topics", "t"], ["Groups", "groups", "g"], ["Brokers", "brokers", "b"], ["Configs", "configs", "c"]];

const main = document.getElementById("main");
const notice = document.getElementById("notice");
const state = { page: null, session: null, number: 0, timer: 0, abort: new AbortController() };

/** What pages get beside their address. */
const shell = {
  session: () => state.session,
  known: () => known(),
  /** Another address of the same page: filters, page numbers. Empty values are left out. */
  go(query, { push = false } = {}) {
    const { parts } = address();
    const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== false));
    const target = `#/${parts.map(encodeURIComponent).join("/")}${search.size > 0 ? `?${search}` : ""}`;
    if (push) location.hash = target;
    else {
      history.replaceState(null, "", target);
      state.page?.query && (state.page.query = Object.fromEntries(search));
      look();
    }
  },
  look: () => look(),
};

function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  let parts = [];
  try {
    parts = path.split("/").filter((part) => part !== "").map(decodeURIComponent);
  } catch {
    // A % without digits behind it: no page has that address.
    parts = ["?"];
  }
  return { parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

function found(parts) {
  for (const [pattern, page] of PAGES) {
    if (pattern.length !== parts.length) continue;
    const given = {};
    const fits = pattern.every((word, index) => (word.startsWith(":") ? ((given[word.slice(1)] = parts[index]), true) : word === parts[index]));
    if (fits) return [page, given];
  }
  return null;
}

/** Opens the page of the address. */
async function open() {
  clearTimeout(state.timer);
  state.abort.abort();
  document.querySelectorAll("dialog").forEach((dialog) => dialog.close());
  const { parts, query } = address();
  fill(document.getElementById("nav"), NAVIGATION.map(([title, word, key]) => h("a", {
    href: `#/${word}`, title: `g ${key}`, "aria-current": (parts[0] ?? "") === word ? "page" : null,
  }, title)));
  const match = found(parts);
  if (!match) {
    state.page = null;
    fill(main, h("div", { class: "empty" }, h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/" }, "To the overview"))));
    return;
  }
  state.page = match[0]({ ...match[1], query, shell });
  state.page.query = query;
  document.title = `${state.page.title} · Ottla`;
  fill(main, state.page.element);
  state.page.is_shown = false;
  scrollTo(0, 0);
  // Whoever came by a link reads on here, not at a link that is gone.
  if (!main.contains(document.activeElement)) main.focus({ preventScroll: true });
  await look();
}

/** Has the page look again, now and after its pause. */
async function look() {
  clearTimeout(state.timer);
  state.abort.abort();
  state.abort = new AbortController();
  const page = state.page;
  const number = ++state.number;
  if (!page) return;
  try {
    // Neither waits for the other.
    await Promise.all([known(), page.update(page.query, state.abort.signal)]);
    if (number === state.number) notice.hidden = true;
    page.is_shown = true;
    if (page === state.page && !main.contains(page.element)) fill(main, page.element);
  } catch (error) {
    if (error.name === "AbortError" || number !== state.number) return;
    // Whoever does not want to sign in is not asked again and again.
    if (!(await tell(error))) return;
  }
  if (number === state.number && page.every_ms) state.timer = setTimeout(() => (document.hidden ? wait() : look()), page.every_ms);
  document.documentElement.dataset.ready = String(number);
}

function wait() {
  document.addEventListener("visibilitychange", () => look(), { once: true });
}

async function tell(error) {
  if (error instanceof ApiError && error.status === 401 && (await signIn())) return true;
  if (!(error instanceof ApiError)) console.error(error);
  const may = error.status === 401 || (error.status === 403 && state.session?.login_offered && !state.session.signed_in);
  notice.hidden = false;
  fill(notice, h("b", {}, sentence(error.message)), " ", h("span", { class: "soft" }, sentence(error.hint), error.code ? ` (${error.code})` : ""),
    may ? [" ", h("button", { class: "button small", type: "button", onclick: signIn }, "Sign in")] : null);
  // A frame with nothing in it would look like something without anything in it.
  if (state.page && !state.page.is_shown && [403, 404].includes(error.status)) {
    fill(main, h("div", { class: "empty" }, h("h1", {}, state.page.title), h("p", {}, error.status === 404 ? "It is not there." : "It is not shown to you."), h("p", {}, h("a", { href: "#/" }, "To the overview"))));
  } else if (main.querySelector(".loading")) fill(main.querySelector(".loading"), "This could not be loaded.");
  return error.status !== 401;
}

let asking = null;

/** Who asks, once that is known. */
function known() {
  if (state.session) return Promise.resolve(state.session);
  asking ??= session().finally(() => (asking = null));
  return asking;
}

async function session() {
  state.session = await get("/session");
  const user = document.getElementById("user");
  user.hidden = !state.session.login_offered;
  fill(user, state.session.signed_in ? state.session.principal.replace(/^User:/, "") : "Sign in");
  user.title = state.session.signed_in ? "Sign out" : "Sign in with a user of the Kafka listeners";
  return state.session;
}

let signingIn = null;

async function signIn() {
  signingIn ??= form({
    title: "Sign in",
    action: "Sign in",
    fields: [
      h("p", { class: "soft" }, "With a user of the Kafka listeners: SCRAM or PLAIN."),
      field("User", h("input", { type: "text", name: "user", autocomplete: "username", required: true, autofocus: true })),
      field("Password", h("input", { type: "password", name: "password", autocomplete: "current-password", required: true })),
    ],
    async submit(element) {
      keepLogin(element.elements.user.value, element.elements.password.value);
      try {
        await session();
      } catch (error) {
        keepLogin();
        throw error;
      }
    },
  });
  const done = await signingIn;
  signingIn = null;
  if (done) look();
  return Boolean(done);
}

document.getElementById("user").addEventListener("click", () => {
  if (!state.session?.signed_in) return signIn();
  keepLogin();
  state.session = null;
  toast("Signed out.");
  return open();
});

/** Light, dark, or as the system has it. */
function theme(wanted) {
  if (wanted) document.documentElement.dataset.theme = wanted;
  localStorage.setItem("ottla-theme", wanted);
}

function toggleTheme() {
  const isDark = document.documentElement.dataset.theme === "dark" || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  theme(isDark ? "light" : "dark");
}

// An address of this page alone: what stands behind # is the router's.
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("theme").addEventListener("click", toggleTheme);
document.getElementById("help").addEventListener("click", help);

function help() {
  const keys = [["/", "search"], ["g o", "overview"], ["g t", "topics"], ["g g", "groups"], ["g b", "brokers"], ["g c", "configs"], ["j k", "down and up a list"],
    ["Enter", "open"], ["n p", "next and previous page"], ["Esc", "close, or let go of the list"], ["1 2 3", "partitions, messages and configs of a topic"], ["f", "follow the newest messages"], ["c", "create a topic"], ["r", "look again"], ["d", "light or dark"], ["?", "this"]];
  show("Keyboard", h("div", { class: "keys" }, keys.map(([key, what]) => [h("span", {}, key.split(" ").map((one) => [h("kbd", {}, one), " "])), h("span", {}, what)])), { broad: false });
}

let leader = 0;

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (isTyping()) {
    if (event.key === "Escape") document.activeElement.blur();
    return;
  }
  if (Date.now() - leader < 1_200) {
    leader = 0;
    const target = NAVIGATION.find(([, , key]) => key === event.key);
    if (target) {
      location.hash = `#/${target[1]}`;
      event.preventDefault();
    }
    return;
  }
  if (state.page?.key?.(event)) event.preventDefault();
  else if (event.key === "g") leader = Date.now();
  else if (event.key === "/") {
    const search = main.querySelector("input[type=search]");
    if (search) search.focus();
    else location.hash = "#/topics";
    event.preventDefault();
  } else if (event.key === "?") help();
  else if (event.key === "d") toggleTheme();
  else if (event.key === "r") look();
});

const CONCERNED = "#/topics?filter=trouble";

/** The health in the bar, whatever the page. */
async function health() {
  const element = document.getElementById("health");
  try {
    const cluster = await get("/cluster");
    const down = cluster.brokers.filter((broker) => broker.state === "fenced").length;
    const { offline, under_min_isr, under_replicated } = cluster.trouble ?? {};
    const [kind, text, target] = offline?.count > 0 ? ["bad", `${plural(offline.count, "partition")} offline`, CONCERNED]
      : under_min_isr?.count > 0 ? ["bad", `${count(under_min_isr.count)} under min ISR`, CONCERNED]
      : cluster.controller_id < 0 ? ["bad", "no controller"]
      : down > 0 ? ["warn", `${down} of ${plural(cluster.brokers.length, "broker")} down`, "#/brokers"]
      : under_replicated?.count > 0 ? ["warn", `${count(under_replicated.count)} under-replicated`, CONCERNED]
      // How partitions are takes a right: without it there is no saying that all is well.
      : cluster.trouble === null ? ["", `${plural(cluster.brokers.length, "broker")} up`]
      : ["good", "healthy"];
    fill(element, h("span", { class: `dot ${kind}` }), target ? h("a", { href: target }, text) : h("span", {}, text));
    element.title = `Cluster ${cluster.cluster_id}`;
  } catch (error) {
    fill(element, h("span", { class: "dot" }), h("span", {}, error.status === 401 ? "" : "unknown"));
    element.title = errorText(error);
  }
  setTimeout(health, document.hidden ? 30_000 : 5_000);
}

const kept = localStorage.getItem("ottla-theme");
if (kept === "light" || kept === "dark") theme(kept);
addEventListener("hashchange", open);
await open();
health();
