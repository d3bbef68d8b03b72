"""Writes numbered records with librdkafka while a cluster is being disturbed, then reads all back.

    workload.py --bootstrap HOST:PORT --topic T --seconds N --result FILE    writes until N seconds are over or SIGTERM
    workload.py --check FILE --bootstrap HOST:PORT --topic T                 reads all, proves what the file says

Proved: every acknowledged record is there, none twice (the producer is idempotent), each partition in the order of sending.
The result also says how many sends failed and how long the longest acknowledged one but the first took.
"""

import argparse
import collections
import json
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

PARTITIONS_TIMEOUT_SECONDS = 30
READ_TIMEOUT_SECONDS = 60


def reached(arguments):
    """How every client reaches the cluster."""
    settings = {"bootstrap.servers": arguments.bootstrap, "log_level": 3}
    if arguments.ca:
        settings |= {"security.protocol": "SSL", "ssl.ca.location": arguments.ca}
    return settings


def write(arguments):
    stop = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(1))
    producer = Producer(
        {
            **reached(arguments),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 0,
            "message.timeout.ms": 120_000,
            "reconnect.backoff.max.ms": 250,
        }
    )
    acknowledged, failed, waits = [], collections.Counter(), []

    def sent(number, at):
        def done(error, message):
            if error is None:
                acknowledged.append((number, message.partition()))
                waits.append(time.monotonic() - at)
            else:
                failed[error.str()] += 1

        return done

    # An idempotent producer of librdkafka takes half a second for its first record, whatever the cluster does.
    producer.produce(arguments.topic, b"0", callback=sent(0, time.monotonic()))
    producer.flush(150)
    waits.clear()
    number, until = 1, time.monotonic() + arguments.seconds
    while not stop and time.monotonic() < until:
        producer.produce(arguments.topic, str(number).encode(), callback=sent(number, time.monotonic()))
        number += 1
        producer.poll(1 / arguments.rate)
        time.sleep(1 / arguments.rate)
    left = producer.flush(150)
    waits.sort()
    result = {
        "sent": number,
        "acknowledged": acknowledged,
        "failed": dict(failed),
        "unanswered": left,
        "wait_ms_max": round(1000 * waits[-1]) if waits else None,
        "wait_ms_p99": round(1000 * waits[len(waits) * 99 // 100]) if waits else None,
    }
    with open(arguments.result, "w") as file:
        json.dump(result, file)
    print(summary(result))
    return 0 if acknowledged and not failed and not left else 1


def summary(result):
    return (
        f"{len(result['acknowledged'])} of {result['sent']} acknowledged, failed {result['failed'] or 0}, "
        f"longest wait {result['wait_ms_max']} ms, 99 % within {result['wait_ms_p99']} ms"
    )


def is_passing(error):
    """Whether another try may help."""
    return error.retriable() or error.code() in (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._TRANSPORT)


def watermarks(consumer, partition):
    """First and next offset; a leader that has just moved is asked for again, as a consumer does by itself."""
    until = time.monotonic() + PARTITIONS_TIMEOUT_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=PARTITIONS_TIMEOUT_SECONDS)
        except KafkaException as exception:
            if not is_passing(exception.args[0]) or time.monotonic() > until:
                raise
            consumer.list_topics(partition.topic, timeout=PARTITIONS_TIMEOUT_SECONDS)
            time.sleep(0.2)


def read_all(arguments):
    topic = arguments.topic
    consumer = Consumer({**reached(arguments), "group.id": "check", "enable.auto.commit": False})
    metadata = consumer.list_topics(topic, timeout=PARTITIONS_TIMEOUT_SECONDS).topics[topic]
    ends = {}
    for partition in metadata.partitions:
        low, high = watermarks(consumer, TopicPartition(topic, partition))
        if high > low:
            ends[partition] = high
    consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
    found, until = collections.defaultdict(list), time.monotonic() + READ_TIMEOUT_SECONDS
    while ends and time.monotonic() < until:
        message = consumer.poll(0.5)
        if message is None or message.error():
            continue
        found[message.partition()].append(int(message.value()))
        if message.offset() + 1 >= ends.get(message.partition(), 0):
            ends.pop(message.partition(), None)
    consumer.close()
    if ends:
        sys.exit(f"not read within {READ_TIMEOUT_SECONDS} s: {ends}")
    return found


def check(arguments):
    with open(arguments.check) as file:
        result = json.load(file)
    found = read_all(arguments)
    count = collections.Counter(number for numbers in found.values() for number in numbers)
    faults = []
    for number, partition in result["acknowledged"]:
        if not count[number]:
            faults.append(f"{number} was acknowledged in partition {partition} and is lost")
    faults += [f"{number} is there {times} times" for number, times in count.items() if times > 1]
    for partition, numbers in found.items():
        if numbers != sorted(numbers):
            faults.append(f"partition {partition} is out of order")
    print(f"{len(result['acknowledged'])} acknowledged, {sum(count.values())} read, {len(faults)} faults")
    for fault in faults[:20]:
        print(f"  {fault}")
    return 1 if faults else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--result")
    parser.add_argument("--check")
    parser.add_argument("--ca", help="certificate authority of the cluster: TLS is spoken")
    arguments = parser.parse_args()
    return check(arguments) if arguments.check else write(arguments)


if __name__ == "__main__":
    sys.exit(main())
