"""kcat, the command line program over librdkafka."""
import itertools
import json

from . import ALL_COMPRESSIONS, CALL_SECONDS_MAX, ClientError, Record, call, librdkafka_settings

NAME = "kcat"
COMPRESSIONS = ALL_COMPRESSIONS
READS = ALL_COMPRESSIONS


def _shape(record):
    """What kcat takes once for all lines of a call: headers, and whether keys and values are null."""
    return (record.headers, record.key is None, record.value is None)


def produce(bootstrap, topic, records, compression, idempotent=False, security=None):
    for (headers, null_key, null_value), group in itertools.groupby(records, _shape):
        arguments = ["kcat", "-P", "-b", bootstrap, "-t", topic, "-p", "0", "-z", compression, "-X", "acks=all"]
        arguments += ["-X", f"enable.idempotence={str(idempotent).lower()}", *_settings(security)]
        for name, value in headers:
            arguments += ["-H", f"{name}={value}"]
        if not null_key:
            arguments += ["-K", "\t"]
        if null_value:
            arguments += ["-Z"]
        lines = "".join(f"{'' if null_key else record.key + chr(9)}{record.value or ''}\n" for record in group)
        call(arguments, lines)


def consume(bootstrap, topic, count, security=None):
    options = [*_settings(security), "-C", "-b", bootstrap, "-t", topic, "-p", "0", "-o", "beginning"]
    return _read(options, [], count)


def consume_group(bootstrap, topic, group, count, security=None):
    options = [*_settings(security), "-b", bootstrap, "-X", "auto.offset.reset=earliest"]
    return _read(options, ["-G", group, topic], count)


def _settings(security):
    return [word for name, value in librdkafka_settings(security).items() for word in ("-X", f"{name}={value}")]


def _read(options, last, count):
    # -u: a line leaves at once; -J: one JSON object a record
    arguments = ["timeout", CALL_SECONDS_MAX - 5, "kcat", *options, "-q", "-u", "-J", "-c", count, *last]
    records = [_record(json.loads(line)) for line in call(arguments).splitlines()]
    if len(records) != count:
        raise ClientError(f"kcat read {len(records)} of {count} records")
    return records


def _record(parsed):
    flat = parsed.get("headers", [])
    return Record(parsed["key"], parsed["payload"], tuple(zip(flat[::2], flat[1::2], strict=True)))
