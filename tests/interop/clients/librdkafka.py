"""librdkafka through its Python binding confluent_kafka."""
import time

import confluent_kafka

from . import ALL_COMPRESSIONS, CALL_SECONDS_MAX, ClientError, Record, data, librdkafka_settings, text

NAME = "librdkafka"
COMPRESSIONS = ALL_COMPRESSIONS
READS = ALL_COMPRESSIONS


def produce(bootstrap, topic, records, compression, idempotent=False, security=None, **settings):
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": compression,
            "acks": "all",
            "enable.idempotence": idempotent,
            # what is refused at the door would be tried again for five minutes
            "message.timeout.ms": CALL_SECONDS_MAX * 1000,
            **settings_of(security, failures := []),
            **settings,
        }
    )

    def delivered(error, _message):
        if error is not None:
            failures.append(error)

    for record in records:
        headers = [(name, data(value)) for name, value in record.headers]
        producer.produce(topic, data(record.value), data(record.key), 0, delivered, headers=headers)
        producer.poll(0)
    deadline = time.monotonic() + CALL_SECONDS_MAX
    while (left := producer.flush(0.5)) and not failures and time.monotonic() < deadline:
        pass
    if failures or left:
        raise ClientError(f"librdkafka: {left} records not sent, failures {failures[:3]}")


def settings_of(security, refused):
    """How to get in; what keeps it out is added to `refused`, where librdkafka itself would go on trying."""
    if security is None:
        return {}
    error = confluent_kafka.KafkaError
    # a server that closes after the handshake, for want of a certificate, is only seen as down
    fatal = (error._SSL, error._AUTHENTICATION, error._ALL_BROKERS_DOWN)
    settings = {**librdkafka_settings(security), "error_cb": lambda error: error.code() in fatal and refused.append(error)}
    if security.mechanism == "OAUTHBEARER":
        settings["oauth_cb"] = lambda _: (security.password, time.time() + 3600)
    return settings


def consume(bootstrap, topic, count, security=None):
    refused = []
    consumer = _consumer(bootstrap, {"group.id": "unused", **settings_of(security, refused)})
    try:
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, confluent_kafka.OFFSET_BEGINNING)])
        return [_record(message) for message in _messages(consumer, count, refused)]
    finally:
        consumer.close()


def consume_group(bootstrap, topic, group, count, protocol="classic", security=None):
    refused = []
    consumer = _consumer(bootstrap, {"group.id": group, "group.protocol": protocol, **settings_of(security, refused)})
    try:
        consumer.subscribe([topic])
        messages = _messages(consumer, count, refused)
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


def _messages(consumer, count, refused):
    messages = []
    deadline = time.monotonic() + CALL_SECONDS_MAX
    while len(messages) < count:
        if time.monotonic() > deadline:
            raise ClientError(f"librdkafka read {len(messages)} of {count} records in {CALL_SECONDS_MAX} s")
        message = consumer.poll(0.2)
        if refused:
            raise ClientError(f"librdkafka: {refused[0]}")
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
