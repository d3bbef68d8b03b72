"""librdkafka through its Python binding confluent_kafka."""
import time

import confluent_kafka

from . import ALL_COMPRESSIONS, CALL_SECONDS_MAX, ClientError, Record, data, text

NAME = "librdkafka"
COMPRESSIONS = ALL_COMPRESSIONS
READS = ALL_COMPRESSIONS


def produce(bootstrap, topic, records, compression, idempotent=False, **settings):
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": compression,
            "acks": "all",
            "enable.idempotence": idempotent,
            **settings,
        }
    )
    failures = []

    def delivered(error, _message):
        if error is not None:
            failures.append(error)

    for record in records:
        headers = [(name, data(value)) for name, value in record.headers]
        producer.produce(topic, data(record.value), data(record.key), 0, delivered, headers=headers)
        producer.poll(0)
    left = producer.flush(CALL_SECONDS_MAX)
    if failures or left:
        raise ClientError(f"librdkafka: {left} records not sent, failures {failures[:3]}")


def consume(bootstrap, topic, count):
    consumer = _consumer(bootstrap, {"group.id": "unused"})
    try:
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, confluent_kafka.OFFSET_BEGINNING)])
        return [_record(message) for message in _messages(consumer, count)]
    finally:
        consumer.close()


def consume_group(bootstrap, topic, group, count, protocol="classic"):
    consumer = _consumer(bootstrap, {"group.id": group, "group.protocol": protocol})
    try:
        consumer.subscribe([topic])
        messages = _messages(consumer, count)
        committed = consumer.commit(messages[-1], asynchronous=False)
        if any(partition.error for partition in committed):
            raise ClientError(f"librdkafka: commit gave {committed}")
        return [_record(message) for message in messages]
    finally:
        consumer.close()


def _consumer(bootstrap, settings):
    return confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "check.crcs": True,
            **settings,
        }
    )


def _messages(consumer, count):
    messages = []
    deadline = time.monotonic() + CALL_SECONDS_MAX
    while len(messages) < count:
        if time.monotonic() > deadline:
            raise ClientError(f"librdkafka read {len(messages)} of {count} records in {CALL_SECONDS_MAX} s")
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error():
            if message.error().retriable():
                continue
            raise ClientError(f"librdkafka: {message.error()}")
        messages.append(message)
    return messages


def _record(message):
    headers = tuple((name, text(value)) for name, value in message.headers() or ())
    return Record(text(message.key()), text(message.value()), headers)
