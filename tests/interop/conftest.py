"""The clusters that the tests share, and what every test says about records."""
import pathlib
import signal
import subprocess
import sys
import time
import uuid

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "bench")]

import servers  # noqa: E402  found through the path above

from clients import go, java, kafka_python, kcat, librdkafka, node  # noqa: E402

CLIENTS = [kcat, librdkafka, kafka_python, java, go, node]

# The most a topic or a moved leader may take to be seen by every node.
SETTLE_SECONDS_MAX = 60


def pytest_addoption(parser):
    parser.addoption("--product", choices=["ottla", "kafka"], default="ottla", help="what the nodes run")
    parser.addoption("--ottla", default=str(ROOT / "target" / "release" / "ottla"), help="the binary of Ottla")
    parser.addoption("--kills", type=int, default=2, help="how often test_streams.py kills a broker under exactly_once_v2")


def pytest_report_header(config):
    return f"product: {config.getoption('--product')}"


class Nodes(servers.Cluster):
    """A cluster whose nodes can be killed and started one by one."""

    def kill(self, number):
        """kill -9 of one node, by its node id."""
        process = self.processes[number - 1]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def restart(self, number):
        """Starts a killed node again and waits for its port."""
        log = (self.directory / "server.log").open("ab")
        if self.product == "kafka":
            process = self._java(["kafka.Kafka", str(self._file(number - 1))], servers.KAFKA_JAVA_OPTIONS)
        else:
            arguments = [self.binary, "server", "--config", str(self._file(number - 1))]
            process = subprocess.Popen(arguments, stdout=log, stderr=log)
        self.processes[number - 1] = process
        self._await_port(self.kafka[number - 1])

    def admin(self):
        return AdminClient({"bootstrap.servers": self.bootstrap})

    def topic(self, prefix="topic", partitions=1, **config):
        """A new topic on all nodes, once its first partition has a leader that every node knows."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        new = NewTopic(name, partitions, self.count, config={key: str(value) for key, value in config.items()})
        admin = self.admin()  # held: its requests end with it
        admin.create_topics([new])[name].result(SETTLE_SECONDS_MAX)
        self.await_isr(name, self.count)
        return name

    def leader(self, topic):
        partition = self.admin().list_topics(topic, timeout=10).topics[topic].partitions[0]
        return partition.leader

    def await_isr(self, topic, size):
        """Waits until every node that answers tells of a leader and of `size` replicas in sync."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while True:
            told = [self._told(port, topic) for port, process in zip(self.kafka, self.processes) if process.poll() is None]
            if all(leader > 0 and isr == size for leader, isr in told):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{topic}: (leader, ISR size) by node {told}, not {size} in {SETTLE_SECONDS_MAX} s")
            time.sleep(0.1)

    def await_whole(self):
        """Waits until every node tells of every partition that all its replicas are in sync."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while any(lacking := [self._lacking(port) for port in self.kafka]):
            assert time.monotonic() < deadline, f"not in sync by node: {lacking}"
            time.sleep(0.2)

    def _lacking(self, port):
        topics = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}"}).list_topics(timeout=10).topics
        return [
            (name, number)
            for name, topic in topics.items()
            for number, partition in topic.partitions.items()
            if partition.leader <= 0 or len(partition.isrs) < len(partition.replicas)
        ]

    def _told(self, port, topic):
        # only this node is asked: a new client has learned of no other
        seen = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}"}).list_topics(topic, timeout=10).topics[topic]
        if seen.error is not None or 0 not in seen.partitions:
            return (-1, 0)
        return (seen.partitions[0].leader, len(seen.partitions[0].isrs))

    def files(self, topic, partition=0, suffix=".log", number=1):
        """A partition's files on one node, oldest segment first."""
        return sorted((self.directory / f"data-{number}" / f"{topic}-{partition}").glob(f"*{suffix}"))


def _cluster(config, count, **more):
    product = config.getoption("--product")
    binary = config.getoption("--ottla")
    if product == "ottla" and not pathlib.Path(binary).is_file():
        pytest.exit(f"{binary} does not exist: build it first, or name another with --ottla", returncode=2)
    properties = {
        "auto.create.topics.enable": "false",
        "default.replication.factor": count,
        "min.insync.replicas": min(count, 2),
        "offsets.topic.num.partitions": 3,
        "transaction.state.log.num.partitions": 3,
        "transaction.state.log.replication.factor": count,
        "transaction.state.log.min.isr": min(count, 2),
        "share.coordinator.state.topic.num.partitions": 3,
        "share.coordinator.state.topic.replication.factor": count,
        "share.coordinator.state.topic.min.isr": min(count, 2),
        # a killed node is to be missed soon
        "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 1000,
        **more,
    }
    return Nodes(product, count, binary, **properties)


def _await_cluster(cluster):
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while len(cluster.admin().list_topics(timeout=10).brokers) < cluster.count:
        assert time.monotonic() < deadline, "not every node joined the cluster"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def one(pytestconfig):
    """One node that is broker and controller."""
    with _cluster(pytestconfig, 1) as cluster:
        _await_cluster(cluster)
        yield cluster


@pytest.fixture(scope="session")
def quick(pytestconfig):
    """One node whose groups of the newer protocol hear of a change soon."""
    # twice a second is more often than Kafka takes for a group's own setting
    heartbeats = {"group.consumer.heartbeat.interval.ms": 500, "group.consumer.min.heartbeat.interval.ms": 500}
    with _cluster(pytestconfig, 1, **heartbeats) as cluster:
        _await_cluster(cluster)
        yield cluster


@pytest.fixture(scope="session")
def three(pytestconfig):
    """Three nodes that are all broker and controller."""
    with _cluster(pytestconfig, 3) as cluster:
        _await_cluster(cluster)
        yield cluster


@pytest.fixture(scope="session")
def guarded(pytestconfig):
    """One node with an authorizer, a second listener `sasl` for SCRAM, and delegation tokens; nobody's name is a super user."""
    cluster = _cluster(pytestconfig, 1)
    (port,) = servers.free_ports(1)
    cluster.sasl = f"127.0.0.1:{port}"
    plain, control = f"PLAINTEXT://127.0.0.1:{cluster.kafka[0]}", f"CONTROLLER://127.0.0.1:{cluster.control[0]}"
    cluster.properties |= {
        "listeners": f"{plain},SASL_PLAINTEXT://{cluster.sasl},{control}",
        "advertised.listeners": f"{plain},SASL_PLAINTEXT://{cluster.sasl}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-256",
        # Kafka does not start without one
        "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "delegation.token.secret.key": "a secret of the tests",
    }
    with cluster:
        _await_cluster(cluster)
        yield cluster
