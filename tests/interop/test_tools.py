"""Kafka's own command line tools, unchanged, on these nodes."""
import re
import uuid

import pytest

from clients import ClientError, java, librdkafka
from records import assert_same, bulk


def tool(cluster, name, *arguments):
    return java.run(name, "--bootstrap-server", cluster.bootstrap, *arguments)


def topics(cluster, *arguments):
    return tool(cluster, "org.apache.kafka.tools.TopicCommand", *arguments)


def configs(cluster, topic, *arguments):
    return tool(cluster, "kafka.admin.ConfigCommand", "--entity-type", "topics", "--entity-name", topic, *arguments)


def partition_lines(described):
    return re.findall(r"Partition: (\d+)\s+Leader: (\d+)\s+Replicas: (\S+)\s+Isr: (\S+)", described)


def test_kafka_topics_creates_describes_lists_alters_and_deletes(one):
    name = f"tool-{uuid.uuid4().hex[:8]}"
    assert f"Created topic {name}." in topics(
        one, "--create", "--topic", name, "--partitions", 2, "--replication-factor", 1, "--config", "retention.ms=3600000"
    )
    described = topics(one, "--describe", "--topic", name)
    assert re.search(r"PartitionCount: 2\s+ReplicationFactor: 1\s+Configs: .*retention\.ms=3600000", described), described
    assert re.search(r"TopicId: [\w-]{22}\s", described), described
    assert partition_lines(described) == [("0", "1", "1", "1"), ("1", "1", "1", "1")]
    assert name in topics(one, "--list").split()
    topics(one, "--alter", "--topic", name, "--partitions", 5)
    assert len(partition_lines(topics(one, "--describe", "--topic", name))) == 5
    topics(one, "--delete", "--topic", name)
    assert name not in topics(one, "--list").split()


def test_kafka_topics_places_replicas_on_three_nodes(three):
    name = f"tool-{uuid.uuid4().hex[:8]}"
    topics(three, "--create", "--topic", name, "--partitions", 3, "--replication-factor", 3)
    three.await_isr(name, 3)
    lines = partition_lines(topics(three, "--describe", "--topic", name))
    assert len(lines) == 3
    assert all(sorted(replicas.split(",")) == ["1", "2", "3"] for _, _, replicas, _ in lines)
    assert {leader for _, leader, _, _ in lines} == {"1", "2", "3"}, "leaders are spread over the nodes"


def test_kafka_topics_reports_refusals(one):
    with pytest.raises(ClientError, match="already exists"):
        topics(one, "--create", "--topic", one.topic("twice"))
    with pytest.raises(ClientError, match="does not exist as expected"):
        topics(one, "--describe", "--topic", "no-such-topic")
    with pytest.raises(ClientError, match="InvalidReplicationFactorException"):
        topics(one, "--create", "--topic", "too-many", "--replication-factor", 3)


def test_kafka_configs_describes_and_alters_a_topic(one):
    name = one.topic("configs", **{"max.message.bytes": 2000000})
    assert "max.message.bytes=2000000" in configs(one, name, "--describe")
    configs(one, name, "--alter", "--add-config", "retention.ms=7200000,cleanup.policy=[compact,delete]")
    described = configs(one, name, "--describe")
    assert "retention.ms=7200000" in described and "cleanup.policy=compact,delete" in described
    configs(one, name, "--alter", "--delete-config", "retention.ms")
    described = configs(one, name, "--describe")
    assert "retention.ms" not in described and "max.message.bytes=2000000" in described
    everything = configs(one, name, "--describe", "--all")
    assert re.search(r"^\s*retention\.ms=604800000 ", everything, re.MULTILINE), everything
    assert re.search(r"^\s*segment\.bytes=1073741824 ", everything, re.MULTILINE), everything


def test_kafka_configs_describes_a_broker(one):
    command = "kafka.admin.ConfigCommand"
    described = tool(one, command, "--entity-type", "brokers", "--entity-name", "1", "--describe", "--all")
    assert re.search(r"^\s*node\.id=1 ", described, re.MULTILINE), described


def test_kafka_get_offsets(one):
    name = one.topic("offsets")
    librdkafka.produce(one.bootstrap, name, bulk("offsets", 25), "zstd")
    get_offsets = "org.apache.kafka.tools.GetOffsetShell"
    assert tool(one, get_offsets, "--topic", name).split() == [f"{name}:0:25"]
    assert tool(one, get_offsets, "--topic", name, "--time", "earliest").split() == [f"{name}:0:0"]
    assert tool(one, get_offsets, "--topic", name, "--time", "max-timestamp").startswith(f"{name}:0:")


def test_kafka_delete_records_moves_the_log_start(one, tmp_path):
    name = one.topic("deleted")
    written = bulk("deleted", 20)
    librdkafka.produce(one.bootstrap, name, written, "none")
    request = tmp_path / "offsets.json"
    request.write_text('{"version":1,"partitions":[{"topic":"%s","partition":0,"offset":12}]}' % name)
    # a refusal is only printed, with a good exit status
    printed = tool(one, "org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", request)
    assert f"partition: {name}-0\tlow_watermark: 12" in printed, printed
    assert_same(librdkafka.consume(one.bootstrap, name, 8), written[12:])


def test_broker_api_versions_lists_what_clients_need(three):
    printed = tool(three, "org.apache.kafka.tools.BrokerApiVersionsCommand")
    assert len(re.findall(r"^127\.0\.0\.1:\d+ \(id: [123] ", printed, re.MULTILINE)) == 3
    for api in ["Produce(0)", "Fetch(1)", "ListOffsets(2)", "Metadata(3)", "OffsetCommit(8)", "FindCoordinator(10)"]:
        line = re.search(rf"^\s+{re.escape(api)}: (.*)$", printed, re.MULTILINE)
        assert line, f"{api} is not served:\n{printed}"
        assert "UNSUPPORTED" not in line[1], f"{api}: {line[1]}"
