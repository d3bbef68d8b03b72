"""The Java client, through Kafka's console producer and console consumer."""
import os
import pathlib

from . import ALL_COMPRESSIONS, CALL_SECONDS_MAX, ClientError, Record, call

NAME = "java"
COMPRESSIONS = ALL_COMPRESSIONS
READS = ALL_COMPRESSIONS

KAFKA = pathlib.Path(__file__).resolve().parents[2] / "kafka" / "kafka"
# A short-lived program: the quick compiler alone, and no threads for collecting garbage.
OPTIONS = "-Xmx256m -Xshare:auto -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dfile.encoding=UTF-8 -Dstdout.encoding=UTF-8"
NULL = "\\N"
# What the console consumer prints for a record without headers.
NO_HEADERS = "NO_HEADERS"


def run(class_name, *arguments, standard_input=None, with_errors=False, version="4.3.0", classes=""):
    """Runs one of Kafka's programs, or one below `classes`, and returns what it printed, see `call`."""
    environment = {**os.environ, "JAVA_OPTS": OPTIONS, "LOG_LEVEL": "WARN", "OTTLA_KAFKA_VERSION": version}
    environment["OTTLA_KAFKA_CLASSES"] = str(classes)
    return call([KAFKA, class_name, *arguments], standard_input, environment, with_errors)


def produce(bootstrap, topic, records, compression, idempotent=False):
    arguments = ["--bootstrap-server", bootstrap, "--topic", topic, "--compression-codec", compression]
    arguments += ["--command-property", "acks=all", "--command-property", f"enable.idempotence={str(idempotent).lower()}"]
    for name, value in [("parse.key", "true"), ("parse.headers", "true"), ("null.marker", NULL)]:
        arguments += ["--reader-property", f"{name}={value}"]
    lines = "".join(
        f"{','.join(f'{name}:{value}' for name, value in record.headers) or NULL}\t{_or_null(record.key)}\t{_or_null(record.value)}\n"
        for record in records
    )
    run("org.apache.kafka.tools.ConsoleProducer", *arguments, standard_input=lines)


def consume(bootstrap, topic, count):
    return _read(["--bootstrap-server", bootstrap, "--topic", topic, "--partition", "0", "--offset", "earliest"], count)


def consume_group(bootstrap, topic, group, count, protocol="classic"):
    arguments = ["--bootstrap-server", bootstrap, "--topic", topic, "--group", group, "--from-beginning"]
    return _read([*arguments, "--command-property", f"group.protocol={protocol}"], count)


def _read(arguments, count):
    for name, value in [
        ("print.headers", "true"),
        ("print.key", "true"),
        ("null.literal", NULL),
    ]:
        arguments += ["--formatter-property", f"{name}={value}"]
    arguments += ["--max-messages", count, "--timeout-ms", (CALL_SECONDS_MAX - 10) * 1000]
    records = [_record(line) for line in run("org.apache.kafka.tools.consumer.ConsoleConsumer", *arguments).splitlines()]
    if len(records) != count:
        raise ClientError(f"the console consumer read {len(records)} of {count} records")
    return records


def _or_null(value):
    return NULL if value is None else value


def _record(line):
    headers, key, value = line.split("\t")
    pairs = () if headers == NO_HEADERS else tuple(tuple(pair.split(":", 1)) for pair in headers.split(","))
    return Record(None if key == NULL else key, None if value == NULL else value, pairs)
