"""How long each page takes: the answers of the API that it waits for, and in the browser from the click to the drawn rows."""

import json
import time
import urllib.request

# Of so many looks the median counts.
LOOKS = 5
# A page is left for this one, and come to from it.
ELSEWHERE = "#/there-is-no-such-page"

# Follows a link to the address, as a click does; ends when the page has what it asked for and the browser has drawn it.
RENDERED = """
(target, shows) => new Promise((resolve, reject) => {
  const root = document.documentElement;
  const link = document.createElement("a");
  link.href = target;
  document.body.append(link);
  const give_up = setTimeout(() => reject(new Error(`${target} does not get ready`)), 20000);
  const observer = new MutationObserver(() => {
    observer.disconnect();
    // Behind the next frame everything is on the screen.
    requestAnimationFrame(() => setTimeout(() => {
      clearTimeout(give_up);
      link.remove();
      const taken = performance.now() - started;
      const is_there = document.querySelector(`main ${shows}`) !== null;
      if (is_there) resolve(taken);
      else reject(new Error(`${target} has no ${shows}`));
    }));
  });
  observer.observe(root, { attributes: true, attributeFilter: ["data-ready"] });
  const started = performance.now();
  link.click();
})
"""

# From the beginning of a reload until the page has what it asked for and is drawn, counted by the page itself.
OPENED = """
new MutationObserver((_, observer) => {
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => (window.opened_ms = performance.now())));
}).observe(document, { attributes: true, subtree: true, attributeFilter: ["data-ready"] });
"""


def median(values):
    return sorted(values)[len(values) // 2]


def of_api(base, path):
    taken = []
    for _ in range(LOOKS):
        started = time.monotonic()
        urllib.request.urlopen(f"{base}/api/v1/{path}").read()
        taken.append((time.monotonic() - started) * 1_000)
    return median(taken)


def rendered(browser, address, shows):
    taken = []
    for _ in range(LOOKS):
        browser.evaluate(f"location.hash = '{ELSEWHERE}'")
        browser.wait("document.querySelector('main .empty h1')", "the page was not left")
        taken.append(browser.evaluate(f"({RENDERED})({json.dumps('#/' + address)}, {json.dumps(shows)})"))
    return median(taken)


def opened(browser, address):
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=OPENED)["identifier"]
    browser.go(address)
    taken = []
    for _ in range(LOOKS):
        browser.wait("window.opened_ms", f"{address} does not open")
        browser.evaluate("delete window.opened_ms")
        browser.call("Page.reload")
        browser.wait("window.opened_ms", f"{address} does not open again")
        taken.append(browser.evaluate("window.opened_ms"))
    browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    return median(taken)


def measure(browser, base, pages, limit_ms):
    """Prints a table; fails when something takes longer than the limit, where there is one."""
    slow = []

    def judged(value, limit_ms=limit_ms):
        if limit_ms and value > limit_ms:
            slow.append(f"{name} {value:.0f} ms")
        return f"{value:8.1f}"

    print(f"{'page':28}  {'API ms':>8}  {'rendered ms':>11}  the slowest answer", flush=True)
    name = "the console, loaded again"
    loaded = opened(browser, f"{base}/console/#/")
    # Half of that is the browser's: it makes a document, compiles scripts and paints an empty frame before there is data.
    print(f"{name:28}  {'':8}  {judged(loaded, 2 * limit_ms):>11}", flush=True)
    for page in pages:
        name = page.name
        answers = {path: of_api(base, path) for path in page.asks}
        slowest = max(answers, key=answers.get)
        print(f"{name:28}  {judged(answers[slowest])}  {judged(rendered(browser, page.address, page.shows)):>11}  {slowest}", flush=True)
    if slow:
        raise SystemExit(f"longer than {limit_ms} ms: {', '.join(slow)}")
