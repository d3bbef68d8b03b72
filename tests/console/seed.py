#!/usr/bin/env python3
"""Fills a cluster for the console's pictures: 200 topics with messages of several kinds, 20 groups, some with members, most behind."""

import argparse
import json
import random
import signal
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

AREAS = ["orders", "payments", "inventory", "shipping", "customers", "clicks", "search", "billing", "fraud", "notifications"]
KINDS = ["events", "changes", "commands", "snapshots", "dead-letters", "audit", "metrics", "requests", "replies", "archive",
         "events.eu", "events.us", "changes.eu", "changes.us", "retry.1m", "retry.10m", "enriched", "raw", "daily", "hourly"]
# A name that means nothing here, and values that would do harm to a page that took them as markup.
HOSTILE = "<img src=x onerror=alert(1)>"


def names(count):
    return [f"{area}.{kind}" for kind in KINDS for area in AREAS][:count]


def value(random_, area):
    order = random_.randrange(10_000, 99_999)
    return json.dumps({"order": order, "area": area, "customer": {"id": random_.randrange(5_000), "tier": random_.choice(["gold", "silver", "bronze"])},
                       "amount": round(random_.uniform(1, 900), 2), "currency": random_.choice(["EUR", "USD", "SEK"]), "open": random_.random() < 0.3})


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bootstrap", required=True)
    arguments.add_argument("--topics", type=int, default=200)
    arguments.add_argument("--groups", type=int, default=20)
    arguments.add_argument("--bulk", type=int, default=0, help="so many further partitions, in topics of 100 with one replica each")
    arguments.add_argument("--stay", action="store_true", help="go on writing and reading until SIGTERM")
    given = arguments.parse_args()
    random_ = random.Random(7)
    admin = AdminClient({"bootstrap.servers": given.bootstrap})
    topics = names(given.topics)
    new = []
    for index, name in enumerate(topics):
        config = {"cleanup.policy": "compact"} if "snapshots" in name else {"retention.ms": "86400000"} if "metrics" in name else {}
        new.append(NewTopic(name, [1, 3, 6, 12][index % 4] if index else 6, 3, config=config))
    for start in range(0, len(new), 50):
        for name, done in admin.create_topics(new[start:start + 50], operation_timeout=60).items():
            try:
                done.result()
            except Exception as error:
                if "already exists" not in str(error).lower():
                    raise
    bulk = [NewTopic(f"bulk.{number:04}", 100, 1) for number in range(given.bulk // 100)]
    for start in range(0, len(bulk), 10):
        for done in admin.create_topics(bulk[start:start + 10], operation_timeout=120, request_timeout=120).values():
            done.result()
    producer = Producer({"bootstrap.servers": given.bootstrap, "linger.ms": 20, "compression.type": "lz4"})
    for index, name in enumerate(topics):
        for number in range(random_.randrange(20, 160) if index < 60 else 5):
            producer.produce(name, key=f"customer-{random_.randrange(5000)}", value=value(random_, name.split(".")[0]),
                             headers=[("trace-id", f"{random_.getrandbits(64):016x}"), ("content-type", "application/json")])
        producer.poll(0)
    producer.produce(topics[0], key=HOSTILE, value=f"<script>alert(1)</script>{HOSTILE}", headers=[(HOSTILE, HOSTILE)])
    producer.produce(topics[0], key=bytes(range(0, 8)), value=bytes([0xFF, 0xFE, 0, 1, 2, 250] * 20))
    producer.produce(topics[0], key="tombstone", value=None)
    producer.produce(topics[0], key="long", value="lorem ipsum " * 4_000)
    producer.flush(60)
    members = []
    for number in range(given.groups):
        topic = topics[number * 3 % len(topics)]
        group = f"{AREAS[number % len(AREAS)]}-{['indexer', 'mailer', 'warehouse', 'dashboard'][number % 4]}-{number:02}"
        consumer = Consumer({"bootstrap.servers": given.bootstrap, "group.id": group, "client.id": f"{group}-a", "enable.auto.commit": False,
                             "auto.offset.reset": "earliest", "group.protocol": "consumer" if number % 3 == 0 else "classic"})
        if number % 5 == 4:
            # No members: only what it once committed.
            consumer.commit(offsets=[TopicPartition(topic, 0, number)], asynchronous=False)
            consumer.close()
        else:
            consumer.subscribe([topic, topics[(number * 3 + 1) % len(topics)]])
            members.append(consumer)
    deadline = time.monotonic() + 60
    waiting = list(members)
    while waiting and time.monotonic() < deadline:
        for consumer in list(waiting):
            message = consumer.poll(0.05)
            if message is not None and not message.error():
                consumer.commit(message=message, asynchronous=False)
                waiting.remove(consumer)
    print(f"seeded {len(topics)} topics, {given.groups} groups, {len(members) - len(waiting)} with members", flush=True)
    stopping = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    started = time.monotonic()
    while given.stay and not stopping:
        # A load that comes and goes, so that lines are lines.
        wave = 1.5 + random_.random() + (1.2 if int(time.monotonic() - started) % 40 < 18 else 0)
        for _ in range(int(40 * wave)):
            name = topics[random_.randrange(30)]
            producer.produce(name, key=f"customer-{random_.randrange(5000)}", value=value(random_, name.split(".")[0]))
        producer.poll(0)
        for consumer in members:
            for message in consumer.consume(20, 0.01):
                if not message.error() and random_.random() < 0.4:
                    consumer.commit(message=message, asynchronous=True)
        time.sleep(0.1)
    for consumer in members:
        consumer.close()
    producer.flush(10)


if __name__ == "__main__":
    main()
