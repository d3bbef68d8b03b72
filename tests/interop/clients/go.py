"""franz-go, through the program in ../go that speaks JSON lines; `run` of these tests builds it."""
import json

from . import ALL_COMPRESSIONS, CACHE, CALL_SECONDS_MAX, ClientError, Record, call

NAME = "franz-go"
COMPRESSIONS = ALL_COMPRESSIONS
READS = ALL_COMPRESSIONS


def lines_of(records):
    """Records as the JSON lines that the Go and the Node program read."""
    return "".join(json.dumps({"key": r.key, "value": r.value, "headers": r.headers}) + "\n" for r in records)


def records_of(name, lines, count):
    """The records in the JSON lines that those programs print."""
    parsed = [json.loads(line) for line in lines.splitlines()]
    if len(parsed) != count:
        raise ClientError(f"{name} read {len(parsed)} of {count} records")
    return [Record(r["key"], r["value"], tuple((name, value) for name, value in r["headers"])) for r in parsed]


def produce(bootstrap, topic, records, compression, idempotent=False, security=None):
    more = [*_flags(security), "-compression", compression, f"-idempotent={str(idempotent).lower()}"]
    _run("produce", bootstrap, topic, *more, standard_input=lines_of(records))


def consume(bootstrap, topic, count, security=None):
    return records_of(NAME, _run("consume", bootstrap, topic, *_flags(security), "-count", count), count)


def consume_group(bootstrap, topic, group, count, protocol="classic", security=None):
    more = [*_flags(security), "-group", group, "-protocol", protocol, "-count", count]
    return records_of(NAME, _run("consume-group", bootstrap, topic, *more), count)


def _flags(security):
    if security is None:
        return []
    named = {"ca": security.ca, "certificate": security.certificate, "mechanism": security.mechanism, "user": security.user, "password": security.password}
    return [word for name, value in named.items() if value for word in (f"-{name}", value)]


def _run(verb, bootstrap, topic, *more, standard_input=None):
    arguments = [CACHE / "interop-go", verb, "-bootstrap", bootstrap, "-topic", topic, "-seconds", CALL_SECONDS_MAX - 5]
    return call([*arguments, *more], standard_input)
