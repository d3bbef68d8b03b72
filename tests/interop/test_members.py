"""Members that come and go, with every protocol and assignor that clients have: who owns what, and that each record is read."""
import re
import threading
import time
import uuid

import confluent_kafka
import pytest

from clients import java
from programs import eventually

ASSIGNORS = {
    "range": "org.apache.kafka.clients.consumer.RangeAssignor",
    "round-robin": "org.apache.kafka.clients.consumer.RoundRobinAssignor",
    "sticky": "org.apache.kafka.clients.consumer.StickyAssignor",
    "cooperative": "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
}
# A killed member is to be missed soon.
CLASSIC = ["session.timeout.ms=6000", "heartbeat.interval.ms=500"]
KINDS = {name: [*CLASSIC, f"partition.assignment.strategy={place}"] for name, place in ASSIGNORS.items()} | {
    "uniform": ["group.protocol=consumer", "group.remote.assignor=uniform"],
    "server-range": ["group.protocol=consumer", "group.remote.assignor=range"],
}
PARTITIONS = 6


def played(cluster, scenario, kind):
    """Plays a scenario of ../java/Members.java; what it found wrong is in the ClientError."""
    topic = cluster.topic(f"members-{scenario}", partitions=PARTITIONS)
    printed = java.run("Members", cluster.bootstrap, topic, f"{topic}-group", scenario, *KINDS[kind])
    written, read, more = map(int, re.search(r"written (\d+) read (\d+) more than once (\d+)", printed).groups())
    assert 0 < read <= written
    # each member commits before it gives a partition away, but one that is fenced cannot
    assert more == 0 or scenario == "fenced", printed


@pytest.mark.parametrize("kind", KINDS)
def test_members_come_and_go(quick, kind):
    played(quick, "come-and-go", kind)


@pytest.mark.parametrize("kind", ["range", "cooperative", "uniform"])
def test_static_members_keep_their_place(quick, kind):
    played(quick, "static", kind)


@pytest.mark.parametrize("kind", ["range", "uniform"])
def test_two_members_with_one_instance_id(quick, kind):
    played(quick, "fenced", kind)


@pytest.mark.parametrize("kind", ["range", "cooperative"])
def test_a_live_group_changes_its_protocol_and_goes_back(quick, kind):
    played(quick, "upgrade", kind)


@pytest.mark.parametrize("kind", ["range", "uniform"])
def test_a_subscription_by_a_regular_expression(quick, kind):
    played(quick, "pattern", kind)


def test_nodes_elect_one_by_a_group_of_their_own_kind(quick):
    assert "elections were right" in java.run("Election", quick.bootstrap, f"election-{uuid.uuid4().hex[:8]}")


class Member(threading.Thread):
    """A consumer of librdkafka that polls in the background."""

    def __init__(self, cluster, topic, group, seen, **settings):
        super().__init__(daemon=True)
        self.consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": cluster.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, **settings}
        )
        self.seen, self.owned, self.ending, self.failure = seen, set(), False, None
        self.consumer.subscribe([topic], on_assign=self.assign, on_revoke=self.revoke, on_lost=self.revoke)
        self.start()

    def assign(self, _consumer, partitions):
        self.owned |= {partition.partition for partition in partitions}

    def revoke(self, _consumer, partitions):
        self.owned -= {partition.partition for partition in partitions}

    def run(self):
        while not self.ending:
            for message in self.consumer.consume(100, 0.1):
                if message.error() is None:
                    self.seen.append((message.partition(), message.offset()))
                    self.consumer.commit(message, asynchronous=False)
                elif message.error().fatal():
                    self.failure = message.error()
                    return

    def end(self):
        self.ending = True
        self.join()
        self.consumer.close()


@pytest.mark.parametrize("settings", [
    {"group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 6000},
    {"group.protocol": "classic", "partition.assignment.strategy": "roundrobin", "session.timeout.ms": 6000},
    {"group.protocol": "consumer"},
    {"group.protocol": "consumer", "group.remote.assignor": "range"},
], ids=["cooperative", "round-robin", "uniform", "server-range"])
def test_librdkafkas_members_come_and_go(quick, settings):
    topic = quick.topic("librdkafka", partitions=PARTITIONS)
    producer, seen, members = confluent_kafka.Producer({"bootstrap.servers": quick.bootstrap}), [], []

    def write(first):
        for number in range(first, first + 60):
            producer.produce(topic, str(number).encode(), partition=number % PARTITIONS)
        assert producer.flush(20) == 0
        eventually(30, f"{first + 60} records are read", lambda: len(set(seen)) == first + 60)

    def shared():
        def check():
            owned = [member.owned for member in members]
            return sorted(sum(map(list, owned), [])) == list(range(PARTITIONS)) and all(len(of) == PARTITIONS // len(members) for of in owned)

        eventually(30, f"shared by {len(members)}", check)

    try:
        for count in range(3):
            members.append(Member(quick, topic, f"{topic}-group", seen, **settings))
            shared()
            write(60 * count)
        members.pop(0).end()
        # two left, three each
        shared()
        write(180)
        assert len(seen) == len(set(seen)), "nothing was read twice"
        assert [member.failure for member in members] == [None, None]
    finally:
        for member in members:
            member.end()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_static_member_of_librdkafka_keeps_its_place(quick, protocol):
    topic, seen = quick.topic("static", partitions=PARTITIONS), []
    settings = {"group.protocol": protocol}
    one = Member(quick, topic, f"{topic}-group", seen, **settings, **{"group.instance.id": "a"})
    two = Member(quick, topic, f"{topic}-group", seen, **settings, **{"group.instance.id": "b"})
    try:
        eventually(30, "three each", lambda: len(one.owned) == len(two.owned) == 3 and not one.owned & two.owned)
        before, others = set(two.owned), set(one.owned)
        two.end()
        two = Member(quick, topic, f"{topic}-group", seen, **settings, **{"group.instance.id": "b"})
        eventually(30, "its partitions again", lambda: two.owned == before)
        time.sleep(1)
        assert one.owned == others
    finally:
        one.end()
        two.end()
