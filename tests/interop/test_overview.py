"""What a web interface of Kafka reads of a cluster, in one go, by the AdminClient of Java."""
import json
import uuid

import confluent_kafka
import pytest

from clients import java, librdkafka
from programs import eventually
from records import bulk


@pytest.fixture
def filled(guarded):
    """A topic, a group in its middle with a member, a rule, a quota, a user; and what the tests call them."""
    tag = uuid.uuid4().hex[:8]
    name = f"overview-{tag}"
    topic = guarded.topic(name, partitions=2, **{"retention.ms": "7200000"})
    librdkafka.produce(guarded.bootstrap, topic, bulk("overview", 30), "none")
    librdkafka.consume_group(guarded.bootstrap, topic, name, 10)
    member = confluent_kafka.Consumer({"bootstrap.servers": guarded.bootstrap, "group.id": name, "client.id": name, "enable.auto.commit": False})
    member.subscribe([topic])
    eventually(30, "the member has both partitions", lambda: member.poll(0.1) is None and len(member.assignment()) == 2)

    def tool(*arguments):
        java.run(*arguments[:1], "--bootstrap-server", guarded.bootstrap, *arguments[1:])

    tool("org.apache.kafka.tools.AclCommand", "--add", "--allow-principal", f"User:{name}", "--operation", "Read", "--topic", topic)
    alter = ["kafka.admin.ConfigCommand", "--alter", "--entity-type", "users", "--entity-name", name, "--add-config"]
    tool(*alter, "consumer_byte_rate=4096")
    tool(*alter, "SCRAM-SHA-256=[iterations=4097,password=secret]")
    yield name, topic
    member.close()


def test_everything_is_told(guarded, filled):
    name, topic = filled
    told = json.loads(java.run("Overview", guarded.bootstrap))
    assert told["nodes"] == ["1"] and told["voters"] == [1] and told["quorumLeader"] == 1
    assert "DESCRIBE_CONFIGS" in told["clusterOperations"] and "CREATE" in told["clusterOperations"]
    assert told["features"]["group.version"] == 1 and told["features"]["transaction.version"] == 2
    assert told["reassignments"] == 0
    assert "__consumer_offsets" in told["internal"]

    (directory,) = told["logDirs"].values()
    assert directory["total"] > directory["usable"] > 0
    assert directory["sizes"][f"{topic}-0"] > 30 * 100 and directory["sizes"][f"{topic}-1"] == 0

    seen = told["topics"][topic]
    # the first of those with the greatest timestamp
    assert 0 <= seen["partitions"][0].pop("newest") < 30
    assert seen["partitions"] == [
        {"leader": 1, "replicas": 1, "isr": 1, "first": 0, "last": 30},
        {"leader": 1, "replicas": 1, "isr": 1, "first": 0, "last": 0, "newest": -1},
    ]
    assert {"READ", "WRITE", "ALTER_CONFIGS"} <= set(seen["operations"])
    retention = seen["configs"]["retention.ms"]
    assert retention.pop("documentation"), "a property is explained"
    # Kafka tells no more, Ottla also where the value would come from otherwise
    assert retention.pop("synonyms")[0] == "DYNAMIC_TOPIC_CONFIG:retention.ms=7200000"
    assert retention == {
        "value": "7200000",
        "source": "DYNAMIC_TOPIC_CONFIG",
        "type": "LONG",
        "sensitive": False,
        "readOnly": False,
    }
    assert seen["configs"]["segment.bytes"]["synonyms"] == ["DEFAULT_CONFIG:log.segment.bytes=1073741824"]

    group = told["groups"][name]
    assert (group["type"], group["state"], group["protocol"], group["assignor"]) == ("Classic", "Stable", "consumer", "range")
    assert group["lag"] == {f"{topic}-0": 20} and group["coordinator"] == 1
    assert [(m["client"], m["partitions"]) for m in group["members"]] == [(name, [f"{topic}-0", f"{topic}-1"])]
    assert {"READ", "DESCRIBE", "DELETE"} <= set(group["operations"])

    assert any(f"name={topic}" in rule and f"principal=User:{name}" in rule and "operation=READ" in rule for rule in told["acls"])
    assert told["quotas"][f"{{user={name}}}"] == {"consumer_byte_rate": 4096.0}
    assert told["users"][name] == ["SCRAM-SHA-256 4097"]


def test_every_property_of_a_broker_is_explained_and_no_secret_is_told(guarded):
    configs = json.loads(java.run("Overview", guarded.bootstrap))["brokerConfigs"]
    assert len(configs) > 200
    assert configs["node.id"]["value"] == "1" and configs["node.id"]["source"] == "STATIC_BROKER_CONFIG"
    # Kafka itself does not know the property of its authorizer
    known = {name: entry for name, entry in configs.items() if name != "super.users"}
    assert [name for name, entry in known.items() if entry["type"] == "UNKNOWN"] == []
    assert [name for name, entry in known.items() if not entry["documentation"]] == []
    secrets = {name: entry["value"] for name, entry in configs.items() if entry["sensitive"]}
    assert secrets["delegation.token.secret.key"] is None and set(secrets.values()) == {None}
    assert not any("a secret of the tests" in json.dumps(entry) for entry in configs.values())
