"""Every client writes in every compression that it has; every client reads what every other wrote."""
import pytest

from clients import ALL_COMPRESSIONS, ClientError, node
from conftest import CLIENTS
from records import assert_same, mixed

# What a client cannot do, and why; everything else is tested. The last test holds this table to the clients.
CANNOT = {
    (node, "snappy"): "kafkajs has no snappy without a plugin",
    (node, "lz4"): "kafkajs has no lz4 without a plugin",
    (node, "zstd"): "kafkajs has no zstd without a plugin",
}

WRITTEN = [(client, compression) for client in CLIENTS for compression in client.COMPRESSIONS]
READ = [(consumer, *written) for consumer in CLIENTS for written in WRITTEN if written[1] in consumer.READS]


@pytest.fixture(scope="module")
def topics(one):
    """One topic for each (producer, compression); its test of producing fills it."""
    return {(client, compression): one.topic(f"matrix-{client.NAME}-{compression}") for client, compression in WRITTEN}


@pytest.fixture(scope="module")
def filled():
    """The (producer, compression) whose producing succeeded."""
    return set()


@pytest.mark.parametrize("client,compression", WRITTEN, ids=lambda value: getattr(value, "NAME", value))
def test_client_produces(one, topics, filled, client, compression):
    client.produce(one.bootstrap, topics[client, compression], mixed(f"{client.NAME}-{compression}"), compression)
    filled.add((client, compression))


@pytest.mark.parametrize("consumer,producer,compression", READ, ids=lambda value: getattr(value, "NAME", value))
def test_client_reads_what_another_wrote(one, topics, filled, consumer, producer, compression):
    assert (producer, compression) in filled, "there is nothing to read: producing failed"
    written = mixed(f"{producer.NAME}-{compression}")
    assert_same(consumer.consume(one.bootstrap, topics[producer, compression], len(written)), written)


def test_the_table_of_what_clients_cannot_do_is_complete():
    for client in CLIENTS:
        lacks = {compression for compression in ALL_COMPRESSIONS if compression not in client.READS}
        lacks |= {compression for compression in ALL_COMPRESSIONS if compression not in client.COMPRESSIONS}
        assert lacks == {compression for named, compression in CANNOT if named is client}


@pytest.mark.parametrize("client,compression", CANNOT, ids=lambda value: getattr(value, "NAME", value))
def test_what_a_client_cannot_do_fails_in_the_client(one, client, compression):
    with pytest.raises(ClientError, match="(?i)not implemented"):
        client.produce(one.bootstrap, one.topic("cannot"), mixed("cannot"), compression)
