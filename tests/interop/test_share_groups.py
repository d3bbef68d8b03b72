"""Share groups (KIP-932) with Kafka's own share consumer and tools."""
import re
import uuid

import pytest

from clients import java, librdkafka
from records import bulk

CONSUMER = "org.apache.kafka.tools.consumer.ConsoleShareConsumer"
GROUPS = "org.apache.kafka.tools.consumer.group.ShareGroupCommand"
COUNT = 40


def tool(cluster, name, *arguments):
    return java.run(name, "--bootstrap-server", cluster.bootstrap, *arguments)


def consume(cluster, topic, group, count, *arguments):
    """The values that a share consumer reads until it has so many."""
    arguments = ["--topic", topic, "--group", group, "--max-messages", count, "--timeout-ms", 60000, *arguments]
    return tool(cluster, CONSUMER, *arguments).splitlines()


def places(cluster, group):
    """Start offset and lag of each partition that the group has read."""
    described = tool(cluster, GROUPS, "--describe", "--group", group)
    return re.findall(rf"^{re.escape(group)}\s+\S+\s+(\d+)\s+(\S+)\s+(\S+)", described, re.MULTILINE)


@pytest.fixture
def work(one):
    """A topic with records, and a group that reads it from its beginning."""
    topic, group = one.topic("share"), f"share-{uuid.uuid4().hex[:8]}"
    config = ["--alter", "--add-config", "share.auto.offset.reset=earliest"]
    tool(one, "kafka.admin.ConfigCommand", "--entity-type", "groups", "--entity-name", group, *config)
    librdkafka.produce(one.bootstrap, topic, bulk("share", COUNT), "none")
    return topic, group


def test_a_share_group_reads_all_and_is_shown_reset_and_deleted(one, work):
    topic, group = work
    assert len(consume(one, topic, group, COUNT)) == COUNT
    assert group in tool(one, GROUPS, "--list").split()
    assert places(one, group) == [("0", str(COUNT), "0")]
    assert re.search(rf"{group}\s.*\sEmpty\s+0", tool(one, GROUPS, "--describe", "--group", group, "--state"))
    reset = tool(one, GROUPS, "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
    assert re.search(rf"{group}\s+{topic}\s+0\s+0", reset), reset
    assert places(one, group) == [("0", "0", str(COUNT))]
    assert len(consume(one, topic, group, COUNT, "--reject")) == COUNT
    assert places(one, group) == [("0", str(COUNT), "0")]
    assert "Successful" in tool(one, GROUPS, "--delete-offsets", "--group", group, "--topic", topic)
    assert places(one, group) == []
    tool(one, GROUPS, "--delete", "--group", group)
    assert group not in tool(one, GROUPS, "--list").split()


def test_released_records_are_read_again_until_they_were_delivered_five_times(one, work):
    topic, group = work
    read = consume(one, topic, group, 5 * COUNT, "--release")
    assert sorted(read) == sorted(5 * list(dict.fromkeys(read))), "each as often as any other"
    assert places(one, group) == [("0", str(COUNT), "0")]


def test_a_group_of_another_kind_is_not_a_share_group(one, work):
    topic, group = work
    java.consume_group(one.bootstrap, topic, group, COUNT)
    assert places(one, group) == []
    assert group not in tool(one, GROUPS, "--list").split()
