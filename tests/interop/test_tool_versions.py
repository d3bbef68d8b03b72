"""The command line tools of Apache Kafka 3.9 and 4.3 on the same nodes: what an administrator does from day to day."""
import json
import re
import time
import uuid

import confluent_kafka
import pytest

from clients import ClientError, java, librdkafka
from programs import eventually
from records import bulk

VERSIONS = ["3.9.1", "4.3.0"]
# Where a program stands in a version, when it is not below org.apache.kafka.tools.
ELSEWHERE = {
    ("3.9.1", "AclCommand"): "kafka.admin.AclCommand",
    ("3.9.1", "BrokerApiVersionsCommand"): "kafka.admin.BrokerApiVersionsCommand",
    ("3.9.1", "ConsoleProducer"): "kafka.tools.ConsoleProducer",
}
BELOW = {
    "ConfigCommand": "kafka.admin.ConfigCommand",
    "ConsoleConsumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "ConsumerGroupCommand": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "ReassignPartitionsCommand": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
}


@pytest.fixture(params=VERSIONS)
def tools(request):
    """Runs a tool of one version: `tools(cluster, name, argument…)`."""
    version = request.param

    def run(cluster, name, *arguments, bootstrap=None, **how):
        place = ELSEWHERE.get((version, name)) or BELOW.get(name) or f"org.apache.kafka.tools.{name}"
        where = ["--bootstrap-server", bootstrap or cluster.bootstrap]
        # the transactions and cluster tools take their verb before or after it, all others do not care
        return java.run(place, *where, *arguments, version=version, **how)

    run.version = version
    return run


def fresh(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def test_topics_and_configs(one, tools):
    name = fresh("versions")
    created = ["--create", "--topic", name, "--partitions", 2, "--replication-factor", 1, "--config", "retention.ms=3600000"]
    assert f"Created topic {name}." in tools(one, "TopicCommand", *created)
    tools(one, "TopicCommand", "--alter", "--topic", name, "--partitions", 3)
    entity = ["--entity-type", "topics", "--entity-name", name]
    tools(one, "ConfigCommand", *entity, "--alter", "--add-config", "cleanup.policy=[compact,delete]", "--delete-config", "retention.ms")
    described = tools(one, "ConfigCommand", *entity, "--describe")
    synonyms = "synonyms={DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact,delete, DEFAULT_CONFIG:log.cleanup.policy=delete}"
    assert f"cleanup.policy=compact,delete sensitive=false {synonyms}" in described and "retention.ms" not in described
    described = tools(one, "TopicCommand", "--describe", "--topic", name)
    assert re.search(r"PartitionCount: 3\s+ReplicationFactor: 1\s+Configs: .*cleanup\.policy=compact,delete", described), described
    tools(one, "TopicCommand", "--delete", "--topic", name)
    assert name not in tools(one, "TopicCommand", "--list").split()


def test_configs_of_brokers_and_clients(one, tools):
    broker = ["--entity-type", "brokers", "--entity-name", 1]
    tools(one, "ConfigCommand", *broker, "--alter", "--add-config", "log.cleaner.threads=2")
    assert "DYNAMIC_BROKER_CONFIG:log.cleaner.threads=2" in tools(one, "ConfigCommand", *broker, "--describe")
    tools(one, "ConfigCommand", *broker, "--alter", "--delete-config", "log.cleaner.threads")
    assert "log.cleaner.threads" not in tools(one, "ConfigCommand", *broker, "--describe")
    user = fresh("user")
    both = ["--entity-type", "users", "--entity-name", user, "--entity-type", "clients", "--entity-default"]
    tools(one, "ConfigCommand", *both, "--alter", "--add-config", "producer_byte_rate=1024,request_percentage=50.5")
    described = tools(one, "ConfigCommand", *both, "--describe")
    assert "producer_byte_rate=1024" in described and "request_percentage=50.5" in described, described


def test_console_producer_consumer_and_groups(one, tools):
    topic, group = one.topic("console"), fresh("console")
    lines = "k1:one\nk2:two\nk3:three\n"
    key = ["--property", "parse.key=true", "--property", "key.separator=:"]
    tools(one, "ConsoleProducer", "--topic", topic, *key, "--compression-codec", "zstd", standard_input=lines)
    reading = ["--topic", topic, "--group", group, "--from-beginning", "--max-messages", 3, "--timeout-ms", 30000]
    read = tools(one, "ConsoleConsumer", *reading, "--property", "print.key=true", "--property", "key.separator=:")
    assert [line for line in read.splitlines() if ":" in line] == lines.split()

    def rows(*arguments):
        printed = tools(one, "ConsumerGroupCommand", *arguments)
        return [line.split() for line in printed.splitlines() if line.split()[:1] == [group]]

    assert [row[1:6] for row in rows("--describe", "--group", group)] == [[topic, "0", "3", "3", "0"]]
    assert [row[-2:] for row in rows("--describe", "--group", group, "--state")] == [["Empty", "0"]]
    tools(one, "ConsumerGroupCommand", "--group", group, "--topic", topic, "--reset-offsets", "--shift-by", "-2", "--execute")
    assert [row[1:6] for row in rows("--describe", "--all-groups")] == [[topic, "0", "1", "3", "2"]]
    tools(one, "ConsumerGroupCommand", "--delete", "--group", group)
    assert group not in tools(one, "ConsumerGroupCommand", "--list").split()


def test_acls(guarded, tools):
    topic, alice = fresh("orders"), f"User:{fresh('alice')}"
    tools(guarded, "AclCommand", "--add", "--allow-principal", alice, "--producer", "--topic", topic, "--resource-pattern-type", "prefixed")
    tools(guarded, "AclCommand", "--add", "--deny-principal", alice, "--deny-host", "10.0.0.1", "--operation", "Read", "--topic", topic)
    listed = tools(guarded, "AclCommand", "--list", "--principal", alice)
    for operation in ("WRITE", "DESCRIBE", "CREATE"):
        assert f"(principal={alice}, host=*, operation={operation}, permissionType=ALLOW)" in listed, listed
    assert f"resourceType=TOPIC, name={topic}, patternType=PREFIXED" in listed
    assert f"(principal={alice}, host=10.0.0.1, operation=READ, permissionType=DENY)" in listed
    tools(guarded, "AclCommand", "--remove", "--force", "--topic", topic, "--resource-pattern-type", "prefixed")
    left = tools(guarded, "AclCommand", "--list", "--topic", f"{topic}", "--resource-pattern-type", "match")
    assert "ALLOW" not in left and f"(principal={alice}, host=10.0.0.1, operation=READ, permissionType=DENY)" in left


def test_delegation_tokens(guarded, tools, tmp_path):
    user = fresh("owner")
    secret = "SCRAM-SHA-256=[iterations=4096,password=secret]"
    tools(guarded, "ConfigCommand", "--entity-type", "users", "--entity-name", user, "--alter", "--add-config", secret)

    def login(name, password, extra=""):
        file = tmp_path / f"{name}.properties"
        module = "org.apache.kafka.common.security.scram.ScramLoginModule"
        file.write_text(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\n"
            f'sasl.jaas.config={module} required username="{name}" password="{password}"{extra};\n'
        )
        return ["--command-config", file]

    as_owner = login(user, "secret")
    sasl = {"bootstrap": guarded.sasl}
    created = tools(guarded, "DelegationTokenCommand", "--create", "--max-life-time-period", -1, "--renewer-principal", "User:renewer", *as_owner, **sasl)
    token, code = re.search(r"^(\S{22})\s+(\S+=*)\s+User:%s" % user, created, re.MULTILINE).groups()
    # without an owner the tool asks for the tokens of nobody, of Kafka too
    describe = ["--describe", "--owner-principal", f"User:{user}", *as_owner]
    described = lambda: tools(guarded, "DelegationTokenCommand", *describe, **sasl)
    eventually(20, "the token is described", lambda: token in described() and "User:renewer" in described())
    # the token logs in as its owner
    as_token = login(token, code, ' tokenauth="true"')
    tools(guarded, "AclCommand", "--add", "--allow-principal", f"User:{user}", "--operation", "Describe", "--topic", "*")
    assert "Created" not in tools(guarded, "TopicCommand", "--list", *as_token, **sasl)
    renewed = tools(guarded, "DelegationTokenCommand", "--renew", "--renew-time-period", -1, "--hmac", code, *as_owner, **sasl)
    assert "Completed renew operation" in renewed
    expired = tools(guarded, "DelegationTokenCommand", "--expire", "--expiry-time-period", -1, "--hmac", code, *as_owner, **sasl)
    assert "Completed expire operation" in expired
    eventually(20, "the token is gone", lambda: token not in described())


def test_log_directories_versions_features_and_quorum(three, tools):
    topic = three.topic("seen")
    librdkafka.produce(three.bootstrap, topic, bulk("seen", 20), "none")
    three.await_isr(topic, 3)
    printed = tools(three, "LogDirsCommand", "--describe", "--topic-list", topic)
    told = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
    found = {
        broker["broker"]: (partition["partition"], partition["size"] > 0, partition["isFuture"])
        for broker in told["brokers"]
        for directory in broker["logDirs"]
        for partition in directory["partitions"]
    }
    assert found == dict.fromkeys((1, 2, 3), (f"{topic}-0", True, False))
    printed = tools(three, "BrokerApiVersionsCommand")
    assert len(re.findall(r"^127\.0\.0\.1:\d+ \(id: [123] ", printed, re.MULTILINE)) == 3
    for api in ["Produce(0)", "Fetch(1)", "JoinGroup(11)", "InitProducerId(22)", "DescribeAcls(29)", "ConsumerGroupHeartbeat(68)"]:
        line = re.search(rf"^\s+{re.escape(api)}: (.*)$", printed, re.MULTILINE)
        assert line and "UNSUPPORTED" not in line[1], f"{api}:\n{printed}"
    features = tools(three, "FeatureCommand", "describe")
    levels = dict(re.findall(r"Feature: (\S+)\s.*FinalizedVersionLevel: (\S+)", features))
    assert levels["group.version"] == "1" and levels["transaction.version"] == "2", features
    status = tools(three, "MetadataQuorumCommand", "describe", "--status")
    leader = re.search(r"^LeaderId:\s+([123])$", status, re.MULTILINE)[1]
    lines = tools(three, "MetadataQuorumCommand", "describe", "--replication").splitlines()
    roles = {row[0]: row[-1] for row in map(str.split, lines) if row and row[0].isdigit()}
    assert roles == {node: "Leader" if node == leader else "Follower" for node in ("1", "2", "3")}


def test_transactions_are_shown_and_aborted(one, tools):
    topic, name = one.topic("open"), fresh("open")
    producer = confluent_kafka.Producer({"bootstrap.servers": one.bootstrap, "transactional.id": name})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"never committed", partition=0)
    assert producer.flush(30) == 0
    rows = lambda printed: [line.split() for line in printed.splitlines() if line.split()[:1] == [name]]
    listed = rows(tools(one, "TransactionsCommand", "list"))
    assert [row[-1] for row in listed] == ["Ongoing"], listed
    described = tools(one, "TransactionsCommand", "describe", "--transactional-id", name)
    assert f"{topic}-0" in described and "Ongoing" in described
    producers = tools(one, "TransactionsCommand", "describe-producers", "--topic", topic, "--partition", 0)
    start = [line.split() for line in producers.splitlines() if line.split()[:1] == [listed[0][2]]]
    assert len(start) == 1 and start[0][-1] == "0", producers
    tools(one, "TransactionsCommand", "abort", "--topic", topic, "--partition", 0, "--start-offset", 0)
    producers = tools(one, "TransactionsCommand", "describe-producers", "--topic", topic, "--partition", 0)
    assert [line.split()[-1] for line in producers.splitlines() if line.split()[:1] == [listed[0][2]]] == ["None"]


def test_replicas_are_moved_and_leaders_elected(three, tools, tmp_path):
    topic = three.topic("moved")
    librdkafka.produce(three.bootstrap, topic, bulk("moved", 50), "none")
    first = three.leader(topic)
    target = [number for number in (1, 2, 3) if number != first][:2]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": 0, "replicas": target}]}))
    given = ["--reassignment-json-file", plan]
    started = tools(three, "ReassignPartitionsCommand", "--execute", *given, "--throttle", 100000000)
    assert "Successfully started partition reassignment" in started
    eventually(60, "the reassignment is complete", lambda: "is completed" in tools(three, "ReassignPartitionsCommand", "--verify", *given))
    assert "No partition reassignments found" in tools(three, "ReassignPartitionsCommand", "--list")
    assert "throttled" not in tools(three, "ConfigCommand", "--entity-type", "topics", "--entity-name", topic, "--describe")
    three.await_isr(topic, 2)
    assert three.leader(topic) in target
    # the preferred leader is in charge already, or becomes it
    tools(three, "LeaderElectionCommand", "--election-type", "preferred", "--topic", topic, "--partition", 0)
    eventually(20, "the preferred replica leads", lambda: three.leader(topic) == target[0])
    assert len(librdkafka.consume(three.bootstrap, topic, 50)) == 50


def test_refusals_are_told_with_kafkas_names(one, tools):
    name = one.topic("twice")
    with pytest.raises(ClientError, match="TopicExistsException"):
        tools(one, "TopicCommand", "--create", "--topic", name)
    with pytest.raises(ClientError, match="InvalidConfigurationException"):
        tools(one, "ConfigCommand", "--entity-type", "topics", "--entity-name", name, "--alter", "--add-config", "retention.ms=soon")
