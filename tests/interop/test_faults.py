"""What was acknowledged to a client by all replicas in sync outlives the node that took it; and idempotent producers."""
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec

from clients import kafka_python, librdkafka
from conftest import CLIENTS
from records import assert_same, bulk, mixed


@pytest.fixture
def whole(three):
    """The three nodes, all running again afterwards and their replicas in sync."""
    yield three
    for number, process in enumerate(three.processes, start=1):
        if process.poll() is not None:
            three.restart(number)
    three.await_whole()


def test_every_client_reads_what_every_client_wrote_after_the_leader_was_killed(whole):
    topics = {client: whole.topic(f"killed-{client.NAME}") for client in CLIENTS}
    for client, topic in topics.items():
        client.produce(whole.bootstrap, topic, mixed(client.NAME), "gzip")
    whole.kill(whole.leader(topics[librdkafka]))
    for topic in topics.values():
        whole.await_isr(topic, 2)
    for client, topic in topics.items():
        written = mixed(client.NAME)
        for reader in CLIENTS:
            # the dead node is still among the addresses that the client starts from
            assert_same(reader.consume(whole.bootstrap, topic, len(written)), written)


def test_a_group_goes_on_after_its_coordinator_was_killed(whole):
    topic, group = whole.topic("group-killed"), "group-killed"
    written = bulk("group-killed", 60)
    librdkafka.produce(whole.bootstrap, topic, written, "gzip")
    assert_same(kafka_python.consume_group(whole.bootstrap, topic, group, 20), written[:20])
    admin = whole.admin()
    coordinator = admin.describe_consumer_groups([group])[group].result(20).coordinator.id
    whole.kill(coordinator)
    whole.await_isr(topic, 2)
    for leg, client in enumerate(CLIENTS):
        part = written[20 + 5 * leg : 25 + 5 * leg]
        assert_same(client.consume_group(whole.bootstrap, topic, group, 5), part)


def test_an_idempotent_producer_writes_once_through_a_killed_leader(whole):
    topic = whole.topic("idempotent")
    written = bulk("idempotent", 30_000)

    def handed():
        for position, record in enumerate(written):
            if position == len(written) // 3:
                # batches of the records before are on their way
                whole.kill(whole.leader(topic))
            yield record

    # small batches, so that many are in flight
    settings = {"batch.num.messages": 50, "linger.ms": 1}
    librdkafka.produce(whole.bootstrap, topic, handed(), "lz4", idempotent=True, **settings)
    assert_same(librdkafka.consume(whole.bootstrap, topic, len(written)), written)
    latest = {TopicPartition(topic, 0): OffsetSpec.latest()}
    admin = whole.admin()
    offset = admin.list_offsets(latest)[TopicPartition(topic, 0)].result(20).offset
    assert offset == len(written), "nothing was written twice behind the last record either"
