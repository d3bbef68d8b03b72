// The JSON API of this server. A login is kept as long as the tab: it goes along as a header, so another site cannot make the
// browser send it.

const KEY = "ottla-login";

/** What the server refused, in its words. */
export class ApiError extends Error {
  constructor(status, error) {
    super(error.message || `the server answered ${status}`);
    this.status = status;
    this.code = error.code ?? "";
    this.hint = error.hint ?? "";
  }
}

/** Keeps a login; without one, forgets it. */
export function keepLogin(user, password) {
  if (user === undefined) {
    sessionStorage.removeItem(KEY);
    return;
  }
  const bytes = new TextEncoder().encode(`${user}:${password}`);
  sessionStorage.setItem(KEY, btoa(String.fromCharCode(...bytes)));
}

async function call(method, path, { query, body, signal } = {}) {
  const headers = { "x-ottla-console": "1" };
  const login = sessionStorage.getItem(KEY);
  if (login) headers.authorization = `Basic ${login}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== null && value !== "") search.set(name, String(value));
  }
  const address = "../api/v1" + path + (search.size > 0 ? `?${search}` : "");
  let response;
  try {
    response = await fetch(address, {
      method, headers, signal, credentials: "omit", body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "This node does not answer.", hint: "It is tried again; another node's console may help." });
  }
  let answer = {};
  try {
    answer = await response.json();
  } catch {
    // An answer that is no JSON has a status all the same.
  }
  if (!response.ok) throw new ApiError(response.status, answer.error ?? {});
  return answer;
}

export const get = (path, query, signal) => call("GET", path, { query, signal });
export const post = (path, body) => call("POST", path, { body });
export const put = (path, body) => call("PUT", path, { body });
export const remove = (path) => call("DELETE", path);

/** A part of a path. */
export const part = encodeURIComponent;
