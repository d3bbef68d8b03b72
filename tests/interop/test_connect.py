"""Kafka Connect in distributed mode: a file into a topic and out of it, though a worker is killed."""
import json
import time
import urllib.error
import urllib.request
import uuid

import confluent_kafka
import pytest

import servers
from programs import Program, eventually

# The worker's own start takes most of it.
SETTLE_SECONDS_MAX = 90
LINES = 3000


class Workers:
    """Two workers of one group, each with its own REST port."""

    def __init__(self, cluster, directory):
        self.ports = servers.free_ports(2)
        self.group = f"connect-{uuid.uuid4().hex[:8]}"
        self.programs = [self._start(cluster, directory, number, port) for number, port in enumerate(self.ports)]

    def _start(self, cluster, directory, number, port):
        properties = {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": self.group,
            "listeners": f"http://127.0.0.1:{port}",
            "rest.advertised.host.name": "127.0.0.1",
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            # one transaction for records and their source offsets, so that a killed worker writes nothing twice
            "exactly.once.source.support": "enabled",
            "offset.flush.interval.ms": 500,
            # a killed worker is to be missed soon, and its tasks given to the other at once
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 1000,
            "scheduled.rebalance.max.delay.ms": 1000,
            "plugin.discovery": "service_load",
        }
        for kind in ("offset", "config", "status"):
            properties[f"{kind}.storage.topic"] = f"{self.group}-{kind}s"
            properties[f"{kind}.storage.replication.factor"] = cluster.count
            if kind != "config":
                properties[f"{kind}.storage.partitions"] = 3
        file = directory / f"worker-{number}.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        return Program(directory / f"worker-{number}.log", "org.apache.kafka.connect.cli.ConnectDistributed", file)

    def call(self, worker, method, path, body=None):
        """One call of the REST interface of a worker; a refusal or no answer is an AssertionError."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[worker]}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                text = answer.read()
                return json.loads(text) if text else {}
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from error
        except OSError as error:
            raise AssertionError(f"{method} {path}: {error}") from error

    def running_on(self, asked, connector):
        """The worker that runs the connector's only task."""
        status = self.call(asked, "GET", f"/connectors/{connector}/status")
        tasks = status["tasks"]
        assert status["connector"]["state"] == "RUNNING" and len(tasks) == 1, status
        assert tasks[0]["state"] == "RUNNING", status
        worker = self.ports.index(int(tasks[0]["worker_id"].rsplit(":", 1)[1]))
        assert self.programs[worker].process.poll() is None, f"on a dead worker: {status}"
        return worker + 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in self.programs:
            program.__exit__()


def append(file, numbers):
    with file.open("a") as out:
        out.writelines(f"line {number} of the file\n" for number in numbers)


def committed_values(cluster, topic, count):
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": cluster.bootstrap, "group.id": "values", "isolation.level": "read_committed"}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    values, deadline = [], time.monotonic() + 30
    while len(values) < count and time.monotonic() < deadline:
        values += [message.value().decode() for message in consumer.consume(1000, 0.5) if message.error() is None]
    # nothing behind them
    values += [message.value().decode() for message in consumer.consume(1000, 1) if message.error() is None]
    consumer.close()
    return values


@pytest.mark.timeout(400)
def test_connect_copies_a_file_through_a_killed_worker(one, tmp_path):
    topic, source, sink = one.topic("connect"), tmp_path / "source.txt", tmp_path / "sink.txt"
    append(source, range(LINES // 3))
    with Workers(one, tmp_path) as workers:
        created = lambda name, **config: eventually(
            SETTLE_SECONDS_MAX, f"{name} is created", lambda: workers.call(0, "POST", "/connectors", {"name": name, "config": config})
        )
        created(
            "source",
            **{"connector.class": "FileStreamSource", "tasks.max": "1", "file": str(source), "topic": topic},
            **{"exactly.once.support": "required", "transaction.boundary": "poll"},
        )
        created("sink", **{"connector.class": "FileStreamSink", "tasks.max": "1", "file": str(sink), "topics": topic})
        on = {name: eventually(SETTLE_SECONDS_MAX, f"{name} runs", lambda name=name: workers.running_on(0, name)) for name in ("source", "sink")}
        eventually(60, "the first lines are copied", lambda: sink.exists() and sink.read_text().count("\n") >= LINES // 3)
        assert sink.read_text() == source.read_text(), "each line once and in order"

        # lines are on their way while the worker of the source is killed
        append(source, range(LINES // 3, 2 * LINES // 3))
        killed = on["source"] - 1
        workers.programs[killed].kill()
        other = 1 - killed
        append(source, range(2 * LINES // 3, LINES))
        for name in ("source", "sink"):
            found = eventually(SETTLE_SECONDS_MAX, f"{name} runs again", lambda name=name: workers.running_on(other, name))
            assert found == other + 1
        eventually(60, "the last line is copied", lambda: sink.read_text().endswith(f"line {LINES - 1} of the file\n"))
        lines = source.read_text().splitlines()
        # records and the place in the file are one transaction
        assert committed_values(one, topic, LINES) == lines
        # the sink writes again what it had not committed when it was killed, and leaves out nothing
        assert without_repeats(sink.read_text().splitlines()) == lines

        workers.programs[killed].start()
        eventually(SETTLE_SECONDS_MAX, "the killed worker is a member again", lambda: workers.call(killed, "GET", "/connectors/sink/status"))
        for name in ("source", "sink"):
            workers.call(other, "DELETE", f"/connectors/{name}")
        eventually(30, "both connectors are gone on both", lambda: all(workers.call(w, "GET", "/connectors") == [] for w in (0, 1)))


def without_repeats(lines):
    """The lines as they came first."""
    return list(dict.fromkeys(lines))
