#!/usr/bin/env python3
"""Whether the console tells the truth: records of every kind, groups of every type and 1,000 partitions, written by real clients,
against what the API answers, what the page shows, and what the `ottla` command says. Nothing else uses the cluster meanwhile."""

import argparse
import base64
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from confluent_kafka import Consumer, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient, NewTopic

from audit import audit
from browser import Browser

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
LARGE_BYTES = 1_000_000
# More of them than one request reads.
LARGE = 90
MANY = 1_000


class Truth:
    def __init__(self, given):
        self.given = given
        self.base = given.address.rstrip("/")
        self.admin = AdminClient({"bootstrap.servers": given.bootstrap})

    def api(self, path, **query):
        search = f"?{urllib.parse.urlencode(query)}" if query else ""
        return json.load(urllib.request.urlopen(f"{self.base}/api/v1/{path}{search}"))

    def status(self, path):
        try:
            return urllib.request.urlopen(f"{self.base}/api/v1/{path}").status
        except urllib.error.HTTPError as error:
            return error.code

    def ottla(self, *arguments):
        command = [self.given.ottla, "--server", self.given.server, "-o", "json", *arguments]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    def create(self, name, partitions, replicas=3, **config):
        config = {key.replace("_", "."): value for key, value in config.items()}
        self.admin.create_topics([NewTopic(name, partitions, replicas, config=config)], operation_timeout=60)[name].result()

    def messages(self, topic, **query):
        return self.api(f"topics/{topic}/messages", **query)

    def offsets(self, topic, **query):
        return [one["offset"] for one in self.messages(topic, **query)["messages"]]

    def records(self):
        """Binary, null, empty, hostile; every compression; transactions that were committed, aborted, and that are open."""
        self.create("kinds", 1)
        written = [
            (b"\x00\xff\xfe", bytes(range(256)), [("bin", b"\xff\x00")]), (None, None, []), (b"", b"", [("empty", b""), ("null", None)]),
            (MARKUP.encode(), MARKUP.encode(), [(MARKUP, MARKUP.encode())]), ("käy".encode(), "wörth".encode(), [("trace", b"a1"), ("trace", b"b2")]),
        ]
        for compression in ("none", "gzip", "snappy", "lz4", "zstd"):
            producer = Producer({"bootstrap.servers": self.given.bootstrap, "compression.type": compression, "linger.ms": 50})
            for key, value, headers in written:
                producer.produce("kinds", key=key, value=value, headers=headers)
            producer.flush(30)
        found = self.messages("kinds", **{"from": "oldest", "limit": 500})["messages"]
        same([one["offset"] for one in found], list(range(25)), "offsets of every kind")
        for one, (key, value, headers) in zip(found, written * 5):
            same((plain(one["key"]), plain(one["value"])), (key, value), f"record {one['offset']}")
            same([(plain(name).decode(), plain(content)) for name, content in one["headers"]], headers, f"headers of record {one['offset']}")
        same(self.offsets("kinds", header="trace=b2", limit=3), [24, 19, 14], "a header's value")
        same(self.offsets("kinds", header="null", limit=2), [22, 17], "a header's name")
        same(self.offsets("kinds", key="00ff", **{"as": "hex", "limit": 2}), [20, 15], "a key by its bytes")
        same(self.offsets("kinds", value="wörth", limit=1), [24], "letters beyond ASCII")
        first_ms = found[0]["timestamp_ms"]
        same(self.offsets("kinds", **{"from": "time", "time": first_ms, "limit": 1}), [0], "from a time")
        same(self.offsets("kinds", **{"from": "time", "time": found[-1]["timestamp_ms"] + 60_000}), [], "from a time to come")

        def transaction(name, ends):
            producer = Producer({"bootstrap.servers": self.given.bootstrap, "transactional.id": name})
            producer.init_transactions(30)
            producer.begin_transaction()
            for number in range(3):
                producer.produce("kinds", key=name, value=str(number))
            producer.flush(30)
            ends(producer)
            return producer

        transaction("aborted", lambda producer: producer.abort_transaction(30))
        transaction("committed", lambda producer: producer.commit_transaction(30))
        # The answer to an end may come in front of its markers.
        held_back = lambda: self.messages("kinds", limit=1)["positions"][0]["held_back"]
        until(lambda: held_back() == 0, "ended transactions hold nothing back")
        keys = lambda **query: [plain(one["key"]) for one in self.messages("kinds", limit=6, **query)["messages"]]
        same(keys()[:3], [b"committed"] * 3, "committed records")
        same(b"aborted" in keys(), False, "aborted records among committed ones")
        same(keys(isolation="uncommitted"), [b"committed"] * 3 + [b"aborted"] * 3, "all records")
        opened = transaction("open", lambda _: None)
        answer = self.messages("kinds", limit=3)
        same([plain(one["key"]) for one in answer["messages"]], [b"committed"] * 3, "what an open transaction leaves")
        same((answer["positions"][0]["held_back"], answer["exhausted"]), (3, False), "what an open transaction holds back")
        same(keys(isolation="uncommitted")[:3], [b"open"] * 3, "records of an open transaction")
        opened.abort_transaction(30)
        until(lambda: held_back() == 0, "an ended transaction holds nothing back")
        position = self.messages("kinds", partition=0, **{"from": "before", "offset": 10, "limit": 2})
        same([one["offset"] for one in position["messages"]], [9, 8], "in front of an offset")
        same((position["positions"][0]["start"], position["positions"][0]["end"] > 30), (0, True), "where the log lies")

    def large(self):
        """Records of a megabyte: the newest come first, as many as one request reads, without a gap."""
        self.create("large", 1)
        producer = Producer({"bootstrap.servers": self.given.bootstrap, "message.max.bytes": 1_048_588, "linger.ms": 0})
        for number in range(LARGE):
            producer.produce("large", key=str(number), value=f"{number:06}" + "x" * (LARGE_BYTES - 6))
            producer.flush(30)
        for isolation in ("committed", "uncommitted"):
            answer = self.messages("large", limit=80, isolation=isolation)
            found = [one["offset"] for one in answer["messages"]]
            same(found, list(range(LARGE - 1, LARGE - 1 - len(found), -1)), "the newest large records")
            same((len(found) >= 10, answer["exhausted"]), (True, True), f"{len(found)} large records")
            again = self.messages("large", partition=0, **{"from": "before", "offset": answer["positions"][0]["next"], "limit": 5})
            same(again["messages"][0]["offset"], found[-1] - 1, "where to go on")
        whole = self.messages("large", partition=0, **{"from": "offset", "offset": 7, "limit": 1, "bytes": 1_048_576})["messages"][0]
        same((whole["value"]["bytes"], whole["value"]["cut"], len(whole["value"]["text"])), (LARGE_BYTES, False, LARGE_BYTES), "a large record in full")

    def many(self):
        """1,000 partitions: pages of them, one of them read, all of them not."""
        self.create("many", MANY, 1)
        until(lambda: self.api("topics/many", page=20)["items"][-1]["end_offset"] == 0, "the last of 1,000 partitions has a leader")
        page = self.api("topics/many", page=20)
        same(([one["partition"] for one in page["items"]], page["page"]["total"]), (list(range(950, 1_000)), MANY), "the last page")
        producer = Producer({"bootstrap.servers": self.given.bootstrap})
        producer.produce("many", value="x", partition=999)
        producer.flush(30)
        same(len(self.messages("many", partition=999)["messages"]), 1, "the last partition")
        same((self.status("topics/many/messages"), self.status("topics/many/messages?partition=1000")), (400, 404), "too many, and none")

    def as_the_command(self):
        """The API and the `ottla` command agree on topics and groups, to the byte."""
        for topic in ("kinds", "large", "orders"):
            told = self.ottla("topic", "describe", topic)["topics"][0]["partitions"]
            shown = self.api(f"topics/{topic}")["items"]
            for one, other in zip(told, shown):
                leaders = next(replica["bytes"] for replica in other["replicas"] if replica["broker"] == other["leader"])
                same((other["partition"], other["leader"], other["leader_epoch"], [replica["broker"] for replica in other["replicas"]], sorted(other["isr"]),
                      other["start_offset"], other["end_offset"], other["bytes"], leaders),
                     (one["partition"], one["leader"], one["leader_epoch"], one["replicas"], sorted(one["isr"]),
                      one["start_offset"], one["end_offset"], one["size_bytes"], one["size_bytes"]), f"{topic}-{one['partition']}")
        for group in self.api("groups")["groups"]:
            told = self.ottla("group", "describe", group["id"])["groups"][0]
            shown = self.api(f"groups/{group['id']}", size=200)
            same((shown["type"], shown["state"], shown["lag"], len(shown["members"]), group["lag"]), (told["type"], told["state"], told["lag"], len(told["members"]), told["lag"]), f"group {group['id']}")
            rows = lambda found, offset, end: sorted((one["topic"], one["partition"], one[offset], one[end], one["lag"]) for one in found)
            key = lambda row: tuple(str(part) for part in row)
            if told["type"] != "share":
                same(sorted(rows(shown["offsets"], "committed", "end"), key=key), sorted(rows(told["partitions"], "offset", "end_offset"), key=key), f"offsets of {group['id']}")

    def groups(self):
        """A group of every protocol; partitions without a commit are told of."""
        self.create("grouped", 3)
        producer = Producer({"bootstrap.servers": self.given.bootstrap})
        for number in range(30):
            producer.produce("grouped", value=str(number), partition=number % 3)
        producer.flush(30)
        for protocol in ("classic", "consumer"):
            consumer = Consumer({"bootstrap.servers": self.given.bootstrap, "group.id": f"of-{protocol}", "client.id": protocol, "group.protocol": protocol,
                                 "enable.auto.commit": False, "auto.offset.reset": "earliest"})
            consumer.subscribe(["grouped"])
            message = None
            until(lambda: (message := consumer.poll(0.2)) is not None and not message.error() and consumer.commit(message=message, asynchronous=False), f"a {protocol} group reads")
            shown = self.api(f"groups/of-{protocol}")
            same((shown["type"], shown["state"], shown["committed_in"], len(shown["offsets"])), (protocol, "Stable", 1, 3), f"a {protocol} group")
            same(sorted(str(one["committed"]) for one in shown["offsets"])[1:], ["None", "None"], "partitions that are read without a commit")
            same({one["member"] for one in shown["offsets"]}, {protocol}, "who reads them")
            self.as_the_command()
            consumer.close()
        subprocess.run([self.given.ottla, "--server", self.given.server, "config", "set", "--group", "shared", "share.auto.offset.reset=earliest"], check=True, capture_output=True)
        with ShareConsumer({"bootstrap.servers": self.given.bootstrap, "group.id": "shared", "client.id": "sharer"}) as consumer:
            consumer.subscribe(["grouped"])
            until(lambda: consumer.poll(0.5), "a share group reads")
            shown = self.api("groups/shared")
            same((shown["type"], shown["state"], [one["client_id"] for one in shown["members"]]), ("share", "Stable", ["sharer"]), "a share group")
            same(({one["member"] for one in shown["offsets"]}, len(shown["offsets"])), ({"sharer"}, 3), "what a share group reads")
            until(lambda: consumer.poll(0.2) is None or self.api("groups/shared")["lag"] == 0, "a share group comes to the end")
        until(lambda: self.api("groups/shared")["state"] == "Empty", "a share group without members")
        listed = next(one for one in self.api("groups", type="share")["groups"])
        same((listed["id"], listed["members"], listed["topics"]), ("shared", 0, 1), "a share group in the list")

    def page(self):
        """What is hostile or huge is shown, stays text and breaks nothing."""
        browser = Browser()
        try:
            browser.look(1440, 900, "light")
            for topic, query in (("kinds", "?isolation=uncommitted&limit=500"), ("large", ""), ("many", "?partition=999")):
                browser.open(f"{self.base}/console/#/topics/{topic}/messages{query}")
                browser.wait("document.querySelectorAll('tbody tr .link').length > 0", f"messages of {topic} are not shown")
                rows = min(browser.evaluate("document.querySelectorAll('tbody tr').length"), 12)
                for row in range(rows):
                    browser.evaluate(f"document.querySelectorAll('tbody tr .link')[{row}].click()")
                    browser.wait("document.querySelector('dialog[open] .facts')", "a message does not open")
                    for way in range(browser.evaluate("document.querySelectorAll('dialog .tools button').length")):
                        browser.evaluate(f"document.querySelectorAll('dialog .tools button')[{way}].click()")
                    audit(browser, f"a message of {topic}")
                    browser.key("Escape")
                    browser.wait("!document.querySelector('dialog')", "a message does not close")
                same(browser.evaluate("document.querySelectorAll('main img, main script, dialog img').length"), 0, "elements out of messages")
                audit(browser, f"messages of {topic}")
            same(browser.evaluate("document.querySelector('main input[aria-label=Partition]').max"), "999", "the choice of 1,000 partitions")
            for page in ("groups/shared", "groups/of-consumer", "groups?type=share", "topics/many?page=20", "topics/large"):
                browser.open(f"{self.base}/console/#/{page}")
                audit(browser, page)
            same(browser.complaints, [], "what the page complains of")
        finally:
            browser.close()


def plain(field):
    if field is None:
        return None
    return field["text"].encode() if "text" in field else base64.b64decode(field["base64"])


def same(found, wanted, what):
    if found != wanted:
        raise SystemExit(f"{what}: {found!r} instead of {wanted!r}")


def until(condition, what):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within a minute")
        time.sleep(0.1)


def main():
    arguments = argparse.ArgumentParser()
    for name in ("address", "bootstrap", "server", "ottla"):
        arguments.add_argument(f"--{name}", required=True)
    truth = Truth(arguments.parse_args())
    for check in (truth.records, truth.large, truth.many, truth.groups, truth.as_the_command, truth.page):
        check()
        print(f"{check.__name__.replace('_', ' ')}: {check.__doc__.strip().splitlines()[0]}", flush=True)


if __name__ == "__main__":
    main()
