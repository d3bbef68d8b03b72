"""A data directory that Apache Kafka has written, read in place by `ottla server --adopt`."""
import signal
import subprocess
import sys

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from clients import librdkafka
from conftest import Nodes, _await_cluster
from records import bulk

COUNT = 3000
PROPERTIES = {
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": 3,
    "transaction.state.log.num.partitions": 3,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "log.segment.bytes": 1 << 20,
}


class Adopting(Nodes):
    """The same node after Kafka has stopped: its directory, another product."""

    def become(self, binary, how):
        self.stop(how)
        self.product, self.binary = "ottla", binary
        self._write(0)
        log = (self.directory / "ottla.log").open("ab")
        arguments = [binary, "server", "--config", str(self._file(0)), "--adopt"]
        self.processes = [subprocess.Popen(arguments, stdout=log, stderr=log)]
        self._await_port(self.kafka[0])
        _await_cluster(self)


def transact(cluster, topic, values, commit):
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "transactional.id": f"tx-{topic}", "log_level": 0})
    producer.init_transactions(60)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    producer.flush(60)
    producer.commit_transaction(60) if commit else producer.abort_transaction(60)


def values(cluster, topic, end, isolation="read_committed"):
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "reader", "isolation.level": isolation, "enable.partition.eof": True, "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    out = []
    while True:
        message = consumer.poll(60)
        assert message is not None, "nothing more comes"
        if message.error():
            break
        out.append(message.value())
    consumer.close()
    return out


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_what_kafka_wrote_is_read_in_place(pytestconfig, how):
    with Adopting("kafka", 1, None, **PROPERTIES) as cluster:
        _await_cluster(cluster)
        plain, idempotent, transactional, group = cluster.topic("plain"), cluster.topic("idempotent"), cluster.topic("tx"), "adopted"
        admin = cluster.admin()  # held: its requests end with it
        admin.create_topics([NewTopic("wide-topic", 5, 1)])["wide-topic"].result(30)
        records = bulk("adopt", COUNT)
        librdkafka.produce(cluster.bootstrap, plain, records, "zstd")
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True})
        for number in range(100):
            producer.produce(idempotent, b"%d" % number, partition=0)
        assert producer.flush(60) == 0
        for number in range(5):
            producer.produce("wide-topic", b"%d" % number, partition=number)
        assert producer.flush(60) == 0
        transact(cluster, transactional, [b"kept"], True)
        transact(cluster, transactional, [b"aborted"], False)
        librdkafka.consume_group(cluster.bootstrap, plain, group, 1000)
        cluster_id = cluster.admin().list_topics(timeout=10).cluster_id
        try:
            cluster.become(pytestconfig.getoption("--ottla"), how)
            seen = cluster.admin().list_topics(timeout=10)
            assert seen.cluster_id == cluster_id
            assert len(seen.topics["wide-topic"].partitions) == 5
            assert len(librdkafka.consume(cluster.bootstrap, plain, COUNT)) == COUNT
            assert values(cluster, idempotent, 100) == [b"%d" % number for number in range(100)]
            assert values(cluster, transactional, 2) == [b"kept"]
            assert values(cluster, transactional, 2, "read_uncommitted") == [b"kept", b"aborted"]
            committed = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": group}).committed([TopicPartition(plain, 0)], 60)
            assert committed[0].offset == 1000, committed
            # the producer of before goes on where it was, and a new one is not taken for it
            producer.produce(idempotent, b"100", partition=0)
            assert producer.flush(60) == 0
            librdkafka.produce(cluster.bootstrap, plain, bulk("adopt", 10), "none", idempotent=True)
            transact(cluster, transactional, [b"kept too"], True)
            assert values(cluster, idempotent, 101)[-1] == b"100"
            assert values(cluster, transactional, 3) == [b"kept", b"kept too"]
            # a second start finds the cluster, and the argument does nothing
            cluster.become(cluster.binary, signal.SIGTERM)
            assert values(cluster, transactional, 3) == [b"kept", b"kept too"]
        except BaseException:
            sys.stderr.write((cluster.directory / "ottla.log").read_text()[-6000:])
            raise
