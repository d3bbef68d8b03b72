"""kafka-python, a client written in Python alone."""
import ssl
import time

import kafka
from kafka.net.sasl.oauth import AbstractTokenProvider

from . import ALL_COMPRESSIONS, CALL_SECONDS_MAX, ClientError, Record, data, text

NAME = "kafka-python"
COMPRESSIONS = ALL_COMPRESSIONS
READS = ALL_COMPRESSIONS


def produce(bootstrap, topic, records, compression, idempotent=False, security=None):
    producer = _made(
        kafka.KafkaProducer,
        security,
        bootstrap_servers=bootstrap.split(","),
        compression_type=None if compression == "none" else compression,
        acks="all",
        enable_idempotence=idempotent,
        linger_ms=5,
    )
    try:
        sent = [
            producer.send(
                topic,
                value=data(record.value),
                key=data(record.key),
                headers=[(name, data(value)) for name, value in record.headers],
                partition=0,
            )
            for record in records
        ]
        producer.flush(timeout=CALL_SECONDS_MAX)
        for future in sent:
            future.get(timeout=5)
    except kafka.errors.KafkaError as error:
        raise ClientError(f"kafka-python: {error!r}") from error
    finally:
        producer.close(timeout=5)


def consume(bootstrap, topic, count, security=None):
    consumer = _consumer(bootstrap, None, security)
    try:
        partition = kafka.TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        return _read(consumer, count)
    finally:
        consumer.close(autocommit=False)


def consume_group(bootstrap, topic, group, count, security=None):
    consumer = _consumer(bootstrap, group, security)
    try:
        consumer.subscribe([topic])
        records = _read(consumer, count)
        # position is behind the last record that poll returned, and _read takes no more than it returns
        consumer.commit()
        return records
    finally:
        consumer.close(autocommit=False)


class _Token(AbstractTokenProvider):
    def __init__(self, token):
        super().__init__()
        self._token = token

    def token(self):
        return self._token


def _made(kind, security, **settings):
    """A producer or a consumer; that it does not get in is told when it is made."""
    if security is not None:
        context = ssl.create_default_context(cafile=security.ca)
        if security.certificate:
            context.load_cert_chain(security.certificate)
        # it goes on trying where it is refused
        settings |= {"bootstrap_timeout_ms": 6000, "ssl_context": context, "security_protocol": "SASL_SSL" if security.mechanism else "SSL"}
        if security.mechanism == "OAUTHBEARER":
            settings |= {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": _Token(security.password)}
        elif security.mechanism:
            settings |= {"sasl_mechanism": security.mechanism, "sasl_plain_username": security.user, "sasl_plain_password": security.password}
    try:
        return kind(**settings)
    except kafka.errors.KafkaError as error:
        raise ClientError(f"kafka-python: {error!r}") from error


def _consumer(bootstrap, group, security):
    return _made(
        kafka.KafkaConsumer,
        security,
        bootstrap_servers=bootstrap.split(","),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        check_crcs=True,
    )


def _read(consumer, count):
    records = []
    deadline = time.monotonic() + CALL_SECONDS_MAX
    while len(records) < count:
        if time.monotonic() > deadline:
            raise ClientError(f"kafka-python read {len(records)} of {count} records in {CALL_SECONDS_MAX} s")
        for batch in consumer.poll(timeout_ms=200, max_records=count - len(records)).values():
            records += [_record(record) for record in batch]
    return records


def _record(record):
    return Record(text(record.key), text(record.value), tuple((name, text(value)) for name, value in record.headers))
