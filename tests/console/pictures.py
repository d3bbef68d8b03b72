#!/usr/bin/env python3
"""Opens every page of the console in a real Chromium: light and dark, wide and narrow; takes pictures, uses the keyboard, does what
people do, and fails at any error that a page tells of, at anything wider than its window, at markup out of messages."""

import argparse
import json
import pathlib
import time
import urllib.parse
import urllib.request

import states
from audit import audit
from browser import Browser
from pages import pages
from seed import HOSTILE, names
from times import measure

WIDE = (1440, 900)
NARROW = (390, 844)


class Run:
    def __init__(self, given):
        self.base = given.address.rstrip("/")
        self.pictures = pathlib.Path(given.pictures)
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.browser = Browser()
        self.only = given.only
        self.topic = names(1)[0]

    def page(self, address):
        self.browser.open(f"{self.base}/console/#/{address}")

    def picture(self, name, whole=True):
        self.browser.screenshot(self.pictures / f"{name}.png", whole)

    def check(self, what):
        complaints, self.browser.complaints = self.browser.complaints, []
        if complaints:
            raise SystemExit(f"{what}: {complaints}")
        notice = self.browser.evaluate("document.getElementById('notice').hidden ? '' : document.getElementById('notice').innerText")
        if notice:
            raise SystemExit(f"{what}: {notice}")
        audit(self.browser, what)

    def answer(self, path):
        return json.load(urllib.request.urlopen(f"{self.base}/api/v1/{path}"))

    def pages(self):
        group = self.answer("groups?sort=members&order=descending&size=1")["groups"][0]["id"]
        many = self.answer("topics?sort=partitions&order=descending&size=1")["topics"][0]
        is_many = many["partitions"] >= 100
        return pages(self.topic, group, many["name"] if is_many else "", many["partitions"])

    def every_page(self):
        for page in self.pages():
            if not page.pictured or (self.only and page.name not in self.only):
                continue
            for scheme in ("light", "dark"):
                for size, (width, height) in (("wide", WIDE), ("narrow", NARROW)):
                    self.browser.look(width, height, scheme)
                    self.page(page.address)
                    self.picture(f"{page.name}-{scheme}-{size}", whole=False)
                    self.check(f"{page.name} {scheme} {size}")
                    if not self.browser.evaluate(f"document.querySelector({json.dumps('main ' + page.shows)}) !== null"):
                        raise SystemExit(f"{page.name} shows nothing")
            print(f"page {page.name}: four pictures", flush=True)

    def dialogs(self):
        browser = self.browser
        browser.look(*WIDE, "light")
        self.page(f"topics/{urllib.parse.quote(self.topic, safe='')}/messages?value=amount&limit=20")
        browser.key("j")
        browser.key("Enter")
        browser.wait("document.querySelector('dialog[open] .json-key')", "a message does not open")
        self.picture("message-light-wide", whole=False)
        browser.look(*WIDE, "dark")
        time.sleep(0.1)
        self.picture("message-dark-wide", whole=False)
        browser.key("Escape")
        browser.wait("!document.querySelector('dialog[open]')", "Escape does not close a dialog")
        browser.look(*WIDE, "light")
        browser.key("?")
        browser.wait("document.querySelector('dialog[open] kbd')", "? does not open the keys")
        self.picture("keys-light-wide", whole=False)
        browser.key("Escape")
        self.check("dialogs")

    def what_is_not_there(self):
        """Addresses of nothing say so; the way past the bar leads to the content."""
        browser = self.browser
        for width, height in (WIDE, NARROW):
            browser.look(width, height, "light")
            browser.open(f"{self.base}/console/#/topics/no.such.topic")
            browser.wait("document.getElementById('notice').innerText.includes('does not exist')", "a topic that is not there is not told of")
            audit(browser, "no such topic")
        self.picture("no-such-topic-light-narrow", whole=False)
        browser.look(*WIDE, "dark")
        browser.go(f"{self.base}/console/#/nowhere")
        browser.wait("document.querySelector('main h1')?.innerText === 'There is no such page'", "an address of nothing shows something")
        self.picture("no-such-page-dark-wide", whole=False)
        self.page("topics?search=nothing.is.called.so")
        browser.wait("document.querySelector('td.empty')?.innerText.includes('No topic fits')", "an empty list says nothing")
        self.picture("empty-dark-wide", whole=False)
        browser.evaluate("document.getElementById('skip').click()")
        if not browser.evaluate("document.activeElement === document.getElementById('main') && location.hash.startsWith('#/topics')"):
            raise SystemExit("the way past the bar leads elsewhere")
        # What was refused is told of in the console's log too.
        browser.complaints = [text for text in browser.complaints if "404" not in text]
        self.check("what is not there")

    def markup(self):
        """A key, value and header that are markup are shown as text."""
        self.page(f"topics/{urllib.parse.quote(self.topic, safe='')}/messages?key={urllib.parse.quote('onerror')}")
        self.browser.wait(f"document.querySelector('main').innerText.includes({json.dumps(HOSTILE)})", "the hostile message is not shown")
        self.browser.key("j")
        self.browser.key("Enter")
        self.browser.wait("document.querySelector('dialog[open] pre')", "the hostile message does not open")
        strange = self.browser.evaluate("document.querySelectorAll('main img, dialog img, main script, dialog script').length")
        if strange:
            raise SystemExit("a message became markup")
        self.picture("hostile-light-wide", whole=False)
        self.browser.key("Escape")
        self.page(f"topics?search={urllib.parse.quote(HOSTILE)}")
        if self.browser.evaluate("document.querySelectorAll('main img').length"):
            raise SystemExit("a search became markup")
        self.check("markup")

    def keyboard(self):
        browser = self.browser
        self.page("")
        for keys, fragment in (("gt", "#/topics"), ("gg", "#/groups"), ("gb", "#/brokers"), ("gc", "#/configs"), ("go", "#/")):
            for key in keys:
                browser.key(key)
            browser.wait(f"location.hash === '{fragment}'", f"{keys} does not lead to {fragment}")
        browser.key("g")
        browser.key("t")
        browser.wait("document.querySelectorAll('tbody tr').length > 10", "no topics")
        browser.key("/")
        browser.wait("document.activeElement.type === 'search'", "/ does not go to the search")
        for letter in "fraud":
            browser.key(letter)
        browser.wait("[...document.querySelectorAll('tbody .name')].every((one) => one.innerText.includes('fraud'))", "the search does not search")
        browser.key("Escape")
        browser.key("j")
        browser.key("j")
        browser.wait("document.querySelectorAll('tr.selected').length === 1", "j does not select")
        browser.key("Enter")
        browser.wait("location.hash.startsWith('#/topics/fraud')", "Enter does not open")
        before = browser.evaluate("getComputedStyle(document.body).color")
        browser.key("d")
        if before == browser.evaluate("getComputedStyle(document.body).color"):
            raise SystemExit("d does not change light and dark")
        browser.evaluate("localStorage.clear()")
        self.check("keyboard")

    def changes(self):
        """Creates a topic, gives it a config and partitions, and deletes it, by the forms."""
        browser = self.browser
        browser.look(*WIDE, "light")
        self.page("topics")
        browser.key("c")
        browser.wait("document.querySelector('dialog[open] input[name=name]')", "c does not open the form")
        fill = "(name, text) => { const input = document.querySelector(`dialog [name=${name}]`); input.value = text; input.dispatchEvent(new Event('input')); }"
        browser.evaluate(f"(({fill})('name', 'console.test'), ({fill})('partitions', '2'), ({fill})('configs', 'retention.ms=1000\\nno such line'))")
        submit = "document.querySelector('dialog form').requestSubmit()"
        browser.evaluate(submit)
        browser.wait("document.querySelector('dialog .error')?.innerText.includes('no such line')", "a wrong line is not refused")
        self.picture("create-light-wide", whole=False)
        browser.evaluate(f"({fill})('configs', 'retention.ms=1000')")
        browser.evaluate(submit)
        browser.wait("location.hash === '#/topics/console.test' && document.querySelector('main').innerText.includes('retention.ms')", "the topic is not created")
        self.press("Add partitions")
        browser.evaluate(f"({fill})('count', '4')")
        browser.evaluate(submit)
        browser.wait("document.querySelector('.sub').innerText.includes('4 partitions')", "no partitions are added")
        self.page("topics/console.test/configs")
        browser.wait("document.querySelectorAll('tbody tr').length > 10", "no configs")
        row = "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].innerText === 'retention.ms')"
        browser.evaluate(f"{row}.querySelector('button').click()")
        browser.wait("document.querySelector('dialog[open] .facts').innerText.includes('604800000')", "a config does not tell its default")
        self.picture("config-light-wide", whole=False)
        browser.evaluate("document.querySelector('dialog .button.first').click()")
        browser.wait("document.querySelector('dialog[open] [name=value]')", "a config is not edited")
        browser.evaluate(f"({fill})('value', '2000')")
        self.picture("edit-light-wide", whole=False)
        browser.evaluate(submit)
        browser.wait(f"{row}.cells[1].innerText.includes('2000')", "the config is not changed")
        self.press("Delete")
        browser.evaluate(f"({fill})('name', 'console.tes')")
        browser.evaluate(submit)
        browser.wait("document.querySelector('dialog .error')?.innerText.includes('not its name')", "a wrong name deletes")
        browser.evaluate(f"({fill})('name', 'console.test')")
        browser.evaluate(submit)
        browser.wait("location.hash === '#/topics'", "the topic is not deleted")
        self.check("changes")

    def press(self, text):
        button = f"[...document.querySelectorAll('main button')].find((one) => one.innerText === {json.dumps(text)})"
        self.browser.wait(button, f"no button {text}")
        self.browser.evaluate(f"{button}.click()")

    def times(self, limit_ms):
        self.browser.look(*WIDE, "light")
        measure(self.browser, self.base, self.pages(), limit_ms)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--address", default="")
    arguments.add_argument("--login", help="the address of a node whose listeners ask for SASL, with bob and bob-secret; nothing else is done")
    arguments.add_argument("--rights", help="the address of a node with an authorizer, and with alice whom no rule gives anything; nothing else is done")
    arguments.add_argument("--trouble", help="the address of a cluster of three whose broker 3 is down; nothing else is done")
    arguments.add_argument("--pictures", required=True)
    arguments.add_argument("--only", nargs="*", help="pages to take pictures of, and nothing else")
    arguments.add_argument("--times", action="store_true", help="measure answers and pages, and nothing else")
    arguments.add_argument("--limit-ms", type=int, default=0, help="fail when an answer or a page takes longer")
    given = arguments.parse_args()
    run = Run(given)
    try:
        if given.login:
            states.login(run, given.login.rstrip("/"))
            return
        if given.rights:
            states.without_rights(run, given.rights.rstrip("/"))
            return
        if given.trouble:
            states.trouble(run, given.trouble.rstrip("/"))
            return
        if given.times:
            run.times(given.limit_ms)
            return
        run.every_page()
        if not given.only:
            run.dialogs()
            run.what_is_not_there()
            run.markup()
            run.keyboard()
            run.changes()
            run.times(given.limit_ms)
    finally:
        run.browser.close()
    print(f"pictures are in {run.pictures}")


if __name__ == "__main__":
    main()
