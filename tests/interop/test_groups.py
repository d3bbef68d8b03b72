"""Groups: what is committed is where the next member goes on, whichever client it is."""
import uuid

import pytest

from clients import java, kafka_python, kcat, librdkafka, node
from conftest import CLIENTS
from records import assert_same, bulk

COUNT = 10
# Clients without the group protocol of KIP-848, and why; all others are tested with it.
NO_CONSUMER_PROTOCOL = {
    kcat: "the packaged one has librdkafka 2.0, which is older than the protocol",
    kafka_python: "has the classic protocol alone",
    node: "kafkajs has the classic protocol alone",
}


def group_name(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.NAME)
def test_second_run_of_a_group_continues_where_the_first_ended(one, client):
    topic, group = one.topic("group"), group_name(client.NAME)
    written = bulk("group", 3 * COUNT)
    librdkafka.produce(one.bootstrap, topic, written, "none")
    assert_same(client.consume_group(one.bootstrap, topic, group, COUNT), written[:COUNT])
    assert_same(client.consume_group(one.bootstrap, topic, group, 2 * COUNT), written[COUNT:])


def test_a_group_is_handed_from_client_to_client(one):
    topic, group = one.topic("relay"), group_name("relay")
    runners = [*CLIENTS, *reversed(CLIENTS)]
    written = bulk("relay", COUNT * len(runners))
    librdkafka.produce(one.bootstrap, topic, written, "gzip")
    for leg, client in enumerate(runners):
        part = written[leg * COUNT : (leg + 1) * COUNT]
        assert_same(client.consume_group(one.bootstrap, topic, group, COUNT), part)


@pytest.mark.parametrize("client", [c for c in CLIENTS if c not in NO_CONSUMER_PROTOCOL], ids=lambda client: client.NAME)
def test_second_run_continues_with_the_consumer_protocol(one, client):
    topic, group = one.topic("consumer"), group_name("consumer")
    written = bulk("consumer", 2 * COUNT)
    librdkafka.produce(one.bootstrap, topic, written, "none")
    for part in (written[:COUNT], written[COUNT:]):
        assert_same(client.consume_group(one.bootstrap, topic, group, COUNT, protocol="consumer"), part)
    listed = java.run("org.apache.kafka.tools.GroupsCommand", "--bootstrap-server", one.bootstrap, "--list")
    # GROUP TYPE PROTOCOL: the group was one of the newer protocol
    assert [group, "Consumer", "consumer"] in [line.split() for line in listed.splitlines()]


def test_kafka_consumer_groups_tells_of_a_group(one):
    topic, group = one.topic("described"), group_name("described")
    librdkafka.produce(one.bootstrap, topic, bulk("described", COUNT), "none")
    librdkafka.consume_group(one.bootstrap, topic, group, COUNT - 3)

    def tool(*arguments):
        command = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
        return java.run(command, "--bootstrap-server", one.bootstrap, *arguments)

    assert group in tool("--list").split()
    rows = [line.split() for line in tool("--describe", "--group", group).splitlines()]
    # GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …
    assert [row[1:6] for row in rows if row[:1] == [group]] == [[topic, "0", str(COUNT - 3), str(COUNT), "3"]]
    tool("--group", group, "--topic", topic, "--reset-offsets", "--to-earliest", "--execute")
    assert len(librdkafka.consume_group(one.bootstrap, topic, group, COUNT)) == COUNT
    assert "successful" in tool("--delete", "--group", group)
    assert group not in tool("--list").split()
