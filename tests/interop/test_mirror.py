"""MirrorMaker 2 from Apache Kafka 4.3 into these nodes and back: records, configs of topics, offsets of groups."""
import uuid

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

import servers
from clients import librdkafka
from programs import Program, eventually
from records import assert_same, bulk, mixed

# MirrorMaker starts two Connect herders, each with three internal topics.
MIRROR_SECONDS_MAX = 120


@pytest.fixture(scope="module")
def kafka(pytestconfig):
    """A node of Apache Kafka, from the same jars as the tools."""
    with servers.Cluster("kafka", 1, None, **{"auto.create.topics.enable": "false", "offsets.topic.num.partitions": 1}) as cluster:
        yield cluster


def admin_of(cluster):
    """A new client; it must be held until its requests have ended."""
    return AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})


def created(cluster, name, **config):
    admin = admin_of(cluster)
    admin.create_topics([NewTopic(name, 1, 1, config=config)])[name].result(30)
    return name


def config_of(cluster, topic, name):
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    admin = admin_of(cluster)
    return admin.describe_configs([resource])[resource].result(20)[name].value


def committed(cluster, group, topic):
    asked = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])]
    admin = admin_of(cluster)
    told = admin.list_consumer_group_offsets(asked)[group].result(20)
    return told.topic_partitions[0].offset


def exists(cluster, topic):
    return topic in admin_of(cluster).list_topics(timeout=10).topics


def mirror(directory, left, right):
    properties = {
        "clusters": "left,right",
        "left.bootstrap.servers": left.bootstrap,
        "right.bootstrap.servers": right.bootstrap,
        "left->right.enabled": "true",
        "right->left.enabled": "true",
        "left->right.topics": "out-.*",
        "right->left.topics": "back-.*",
        "groups": "mirrored-.*",
        "replication.factor": 1,
        "checkpoints.topic.replication.factor": 1,
        "heartbeats.topic.replication.factor": 1,
        "offset-syncs.topic.replication.factor": 1,
        "offset.storage.replication.factor": 1,
        "status.storage.replication.factor": 1,
        "config.storage.replication.factor": 1,
        "sync.group.offsets.enabled": "true",
        "sync.group.offsets.interval.seconds": 1,
        "emit.checkpoints.interval.seconds": 1,
        "refresh.topics.interval.seconds": 2,
        "refresh.groups.interval.seconds": 1,
        "sync.topic.configs.interval.seconds": 2,
        # every record's offset is translated, not one in a hundred
        "offset.lag.max": 0,
        "offset.flush.interval.ms": 500,
        "plugin.discovery": "service_load",
    }
    file = directory / "mirror.properties"
    file.write_text("".join(f"{name} = {value}\n" for name, value in properties.items()))
    return Program(directory / "mirror.log", "org.apache.kafka.connect.mirror.MirrorMaker", file)


@pytest.mark.timeout(400)
def test_mirrormaker_copies_from_kafka_and_back(one, kafka, tmp_path):
    tag = uuid.uuid4().hex[:8]
    out = created(kafka, f"out-{tag}", **{"retention.ms": "7200000", "max.message.bytes": "2000000"})
    back = created(one, f"back-{tag}", **{"retention.ms": "3600000", "cleanup.policy": "compact"})
    keyed = [record for record in mixed("back") if record.key is not None]
    written = {out: mixed("out"), back: keyed}
    # (where it is written, where it arrives, as what)
    legs = {out: (kafka, one, f"left.{out}"), back: (one, kafka, f"right.{back}")}
    for topic, (origin, _, _) in legs.items():
        librdkafka.produce(origin.bootstrap, topic, written[topic], "zstd")
        # a group in the middle of the topic
        librdkafka.consume_group(origin.bootstrap, topic, f"mirrored-{topic}", 120)
    with mirror(tmp_path, kafka, one):
        for topic, (_, target, copy) in legs.items():
            eventually(MIRROR_SECONDS_MAX, f"{copy} is created", lambda target=target, copy=copy: exists(target, copy))
            assert_same(librdkafka.consume(target.bootstrap, copy, len(written[topic])), written[topic])
        # what comes while the mirror runs
        for topic, (origin, target, copy) in legs.items():
            more = bulk("more", 300)
            librdkafka.produce(origin.bootstrap, topic, more, "gzip")
            written[topic] = written[topic] + more
            assert_same(librdkafka.consume(target.bootstrap, copy, len(written[topic])), written[topic])
        assert config_of(one, f"left.{out}", "retention.ms") == "7200000"
        assert config_of(one, f"left.{out}", "max.message.bytes") == "2000000"
        assert config_of(kafka, f"right.{back}", "retention.ms") == "3600000"
        assert config_of(kafka, f"right.{back}", "cleanup.policy") == "compact"
        for topic, (origin, target, copy) in legs.items():
            group = f"mirrored-{topic}"
            # the group reads all on its own cluster, and its place is carried over; in the middle MirrorMaker only comes near it
            librdkafka.consume_group(origin.bootstrap, topic, group, len(written[topic]) - 120)
            wanted = committed(origin, group, topic)
            assert wanted == len(written[topic])
            place = lambda: committed(target, group, copy)
            eventually(60, f"{group} has its place in {copy}", lambda: place() == wanted)
            more = bulk("later", 50)
            librdkafka.produce(origin.bootstrap, topic, more, "none")
            # and a member of it over there reads what it had not read
            assert_same(librdkafka.consume_group(target.bootstrap, copy, group, len(more)), more)
