"""The Java client, through Kafka's console producer and console consumer."""
import atexit
import os
import pathlib
import struct
import subprocess
import threading
import uuid

from . import ALL_COMPRESSIONS, CACHE, CALL_SECONDS_MAX, STORE_PASSWORD, ClientError, Record

NAME = "java"
COMPRESSIONS = ALL_COMPRESSIONS
READS = ALL_COMPRESSIONS

KAFKA = pathlib.Path(__file__).resolve().parents[2] / "kafka" / "kafka"
# Where `run` of these tests puts the compiled programs of ../java.
CLASSES = CACHE / "interop-java"
# A short-lived program: the quick compiler alone, and no threads for collecting garbage.
OPTIONS = "-Xmx256m -Xshare:auto -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dfile.encoding=UTF-8 -Dstdout.encoding=UTF-8"
# Java reads a token from a file that it was told of at its start, and from no other.
TOKEN = CACHE / "interop-token"
# The machine that runs many of them, several of which read a whole segment into memory.
TOOLS_OPTIONS = OPTIONS.replace("-Xmx256m", "-Xmx1g") + f" -Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://{TOKEN}"
NULL = "\\N"
# What the console consumer prints for a record without headers.
NO_HEADERS = "NO_HEADERS"


class Tools:
    """Programs of one version of Kafka, run one after another in one Java machine: `../java/Tools.java`."""

    _machines = {}

    @classmethod
    def of(cls, version):
        if version not in cls._machines or cls._machines[version].process.poll() is not None:
            cls._machines[version] = cls(version)
        return cls._machines[version]

    def __init__(self, version):
        environment = {**os.environ, "JAVA_OPTS": TOOLS_OPTIONS, "LOG_LEVEL": "WARN", "OTTLA_KAFKA_VERSION": version}
        environment["OTTLA_KAFKA_CLASSES"] = str(CLASSES)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([str(KAFKA), "Tools"], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment)
        # the end of the tests closes its input, at which it ends; this is for an end in the middle
        atexit.register(self.process.kill)

    def run(self, class_name, arguments, standard_input, with_errors):
        words = [word.encode() for word in (class_name, standard_input, *map(str, arguments))]
        call = struct.pack(">i", len(words)) + b"".join(struct.pack(">i", len(word)) + word for word in words)
        name = " ".join([class_name, *map(str, arguments)])
        # a program that does not end takes its machine with it; the next call has a new one
        late = threading.Timer(CALL_SECONDS_MAX, self.process.kill)
        late.start()
        try:
            self.process.stdin.write(call)
            self.process.stdin.flush()
            (code,) = struct.unpack(">i", self._read(4))
            output, errors = (self._read(*struct.unpack(">i", self._read(4))).decode() for _ in range(2))
        except (OSError, EOFError) as error:
            self.process.kill()
            self.process.wait()
            raise ClientError(f"{name}: no end within {CALL_SECONDS_MAX} s, or its machine ended") from error
        finally:
            late.cancel()
        if code != 0:
            raise ClientError(f"{name}: exit {code}\n{output[-3000:]}\n{errors[-3000:]}")
        return output + errors if with_errors else output

    def _read(self, count):
        data = self.process.stdout.read(count)
        if len(data) < count:
            raise EOFError
        return data


def run(class_name, *arguments, standard_input=None, with_errors=False, version="4.3.0"):
    """Runs one of Kafka's programs, or of ours, and returns what it printed; raises ClientError with both outputs when it fails."""
    return Tools.of(version).run(class_name, arguments, standard_input or "", with_errors)


def command_config(security):
    """The arguments of a tool that has to get in."""
    return [] if security is None else ["--command-config", properties(security)]


def properties(security):
    """A file of client properties."""
    lines = [f"security.protocol={'SASL_SSL' if security.mechanism else 'SSL'}"]
    for store, pem in [("truststore", security.ca), ("keystore", security.certificate)]:
        if pem:
            file = pem if security.stores == "PEM" else pem.with_suffix(".p12")
            lines += [f"ssl.{store}.type={security.stores}", f"ssl.{store}.location={file}"]
            if security.stores != "PEM":
                lines += [f"ssl.{store}.password={STORE_PASSWORD}"]
    if security.mechanism:
        common = "org.apache.kafka.common.security"
        login = f'username="{security.user}" password="{security.password}"'
        if security.mechanism == "OAUTHBEARER":
            TOKEN.write_text(security.password)
            lines += [f"sasl.oauthbearer.token.endpoint.url=file://{TOKEN}"]
            lines += [f"sasl.login.callback.handler.class={common}.oauthbearer.OAuthBearerLoginCallbackHandler"]
            module = "oauthbearer.OAuthBearerLoginModule required"
        elif security.mechanism == "PLAIN":
            module = f"plain.PlainLoginModule required {login}"
        else:
            module = f"scram.ScramLoginModule required {login}"
        lines += [f"sasl.mechanism={security.mechanism}", f"sasl.jaas.config={common}.{module};"]
    file = security.ca.parent / f"{uuid.uuid4().hex}.properties"
    file.write_text("\n".join(lines) + "\n")
    return file


def produce(bootstrap, topic, records, compression, idempotent=False, security=None):
    arguments = ["--bootstrap-server", bootstrap, *command_config(security), "--topic", topic, "--compression-codec", compression]
    # the console producer tells of what was refused only where it waits for each record
    arguments += ["--sync", "--timeout", 5] if security else []
    for name, value in {"max.block.ms": 10000, "delivery.timeout.ms": 20000, "request.timeout.ms": 10000}.items() if security else ():
        arguments += ["--command-property", f"{name}={value}"]
    arguments += ["--command-property", "acks=all", "--command-property", f"enable.idempotence={str(idempotent).lower()}"]
    for name, value in [("parse.key", "true"), ("parse.headers", "true"), ("null.marker", NULL)]:
        arguments += ["--reader-property", f"{name}={value}"]
    lines = "".join(
        f"{','.join(f'{name}:{value}' for name, value in record.headers) or NULL}\t{_or_null(record.key)}\t{_or_null(record.value)}\n"
        for record in records
    )
    run("org.apache.kafka.tools.ConsoleProducer", *arguments, standard_input=lines)


def consume(bootstrap, topic, count, security=None):
    return _read(["--bootstrap-server", bootstrap, *command_config(security), "--topic", topic, "--partition", "0", "--offset", "earliest"], count)


def consume_group(bootstrap, topic, group, count, protocol="classic", security=None):
    arguments = ["--bootstrap-server", bootstrap, *command_config(security), "--topic", topic, "--group", group, "--from-beginning"]
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
