"""Ottla beside Apache Kafka on this machine: the same workload on each in turn, and the ratio.

    tests/bench/run [--nodes 1,3] [--rows NAME,…] [--megabytes 1000] [--rounds 3] [--security plain,tls,rules]
    tests/bench/groups, tests/bench/transactions: the rows of `loads.py`, appended to RESULTS.md

`tls` encrypts the Kafka listener; `rules` turns the authorizer on, with a thousand rules, and gives the user quotas that it never
reaches. Of each but `plain` the table also shows how it compares with plain of the same product, when both were measured.

Each row is measured on a fresh cluster of each product, in turn and several times; the table shows medians. CPU is user and
system time of the server processes alone. The load comes from kcat (librdkafka) and, where every answer is awaited, from
librdkafka's Python binding; of groups and transactions from our own `load`.
"""
import argparse
import json
import pathlib
import statistics
import sys
import time

from confluent_kafka import Producer

import failures
import loads
from clusters import create, kcat, lines_file
from plot import bars
from servers import Cluster

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"


def timed(cluster, work, byte_count):
    cpu, began = cluster.cpu_seconds(), time.monotonic()
    work()
    seconds = time.monotonic() - began
    return {"MB/s": byte_count / seconds / 1e6, "CPU-s/GB": (cluster.cpu_seconds() - cpu) / (byte_count / 1e9)}


def throughput(cluster, options, record_bytes=1024):
    """Produce, then consume what was produced."""
    path = lines_file(options.megabytes, record_bytes)
    size = path.stat().st_size
    topic = create(cluster, "bench")
    acks = "all" if cluster.count > 1 else "1"
    settings = ["-X", f"acks={acks}", "-X", "linger.ms=5", "-X", "queue.buffering.max.messages=200000"]

    def produce():
        with path.open("rb") as lines:
            kcat(cluster, "-P", "-t", topic, *settings, stdin=lines)

    def consume():
        kcat(cluster, "-C", "-t", topic, "-o", "beginning", "-e", "-X", "queued.max.messages.kbytes=65536")

    out = {f"produce {record_bytes} B {name}": value for name, value in timed(cluster, produce, size).items()}
    out |= {f"consume {record_bytes} B {name}": value for name, value in timed(cluster, consume, size).items()}
    return out


def flushed(cluster, options):
    """Ottla with every record on the disk before it is acknowledged, beside Kafka that leaves that to the system."""
    path = lines_file(options.megabytes, 1024)
    flush = {"flush.messages": "1"} if cluster.product == "ottla" else {}
    topic = create(cluster, "flushed", **flush)
    settings = ["-X", "acks=all", "-X", "linger.ms=5", "-X", "queue.buffering.max.messages=200000"]

    def produce():
        with path.open("rb") as lines:
            kcat(cluster, "-P", "-t", topic, *settings, stdin=lines)

    return {f"produce 1024 B, Ottla alone with flush.messages=1, {name}": value for name, value in timed(cluster, produce, path.stat().st_size).items()}


def latency(cluster, options):
    """One record at a time, acks=all."""
    topic = create(cluster, "latency", 1)
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 0, "log_level": 0, **cluster.client})
    samples = []
    for number in range(options.records):
        began = time.perf_counter()
        producer.produce(topic, b"x" * 100)
        producer.flush(30)
        if number >= options.records // 10:
            samples.append((time.perf_counter() - began) * 1e3)
    samples.sort()
    at = lambda share: samples[min(len(samples) - 1, int(len(samples) * share))]
    return {"latency p50 ms": at(0.5), "latency p99 ms": at(0.99), "latency p99.9 ms": at(0.999)}


def start(cluster, options):
    """From an empty directory to the first acknowledged record; then at rest."""
    # The cluster was started for this row: begin again on the same, now empty, ground.
    cluster.__exit__()
    cluster.__init__(cluster.product, cluster.count, cluster.binary, cluster.security, **cluster.properties)
    cluster.__enter__()
    began = time.monotonic() - cluster.start_seconds
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "log_level": 0, "linger.ms": 0,
                         "topic.metadata.refresh.interval.ms": 100, "retry.backoff.ms": 10, "reconnect.backoff.ms": 10,
                         **cluster.client})
    create(cluster, "first", 1)
    producer.produce("first", b"x")
    assert producer.flush(60) == 0
    first = time.monotonic() - began
    time.sleep(5)
    cpu = cluster.cpu_seconds()
    time.sleep(10)
    return {"first acknowledged record s": first, "idle CPU %": (cluster.cpu_seconds() - cpu) * 10, "idle memory MiB a node": cluster.resident_mib() / cluster.count}


ROWS = {"start": start, "throughput": throughput, "flushed": flushed, "latency": latency}
ALL_ROWS = {
    **ROWS, **loads.ROWS, "killed": failures.killed, "rolling": failures.rolling, "reassign": failures.reassign,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="1,3")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"of {', '.join(ALL_ROWS)}")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--security", default="plain", help="plain, tls, rules; several with commas")
    parser.add_argument("--products", default="ottla,kafka")
    parser.add_argument("--ottla", default=str(HERE.parent.parent / "target/release/ottla"))
    parser.add_argument("--load", default=str(HERE.parent.parent / "target/release/ottla-load"), help="the binary of the load")
    parser.add_argument("--seconds", type=int, default=10, help="how long commits, heartbeats and transactions go on")
    parser.add_argument("--groups", type=int, default=1000, help="how many groups of three members")
    parser.add_argument("--members", type=int, default=200, help="members of the large group")
    parser.add_argument("--partitions", type=int, default=1000, help="partitions of the large group's topic")
    parser.add_argument("--rate", type=int, default=20_000, help="commits a second")
    parser.add_argument("--append", metavar="TITLE", help="append the table to RESULTS.md under this title")
    parser.add_argument("--out", default=".", help="where results.json, results.md and results.svg go")
    options = parser.parse_args()
    measured = {}
    products, securities = options.products.split(","), options.security.split(",")
    for nodes in map(int, options.nodes.split(",")):
        for row in options.rows.split(","):
            for turn in range(options.rounds):
                # In turn within a round, so that the machine's moods meet all of them.
                for security in securities:
                    for product in products:
                        properties = loads.properties(nodes) if row in loads.ROWS else {}
                        with Cluster(product, nodes, options.ottla, security, **properties) as cluster:
                            for name, value in ALL_ROWS[row](cluster, options).items():
                                shown = name if security == "plain" else f"{name}, {security}"
                                measured.setdefault((nodes, shown), {}).setdefault(product, []).append(value)
                        print(f"{nodes} node(s), {row}, {security}, round {turn + 1}, {product}: done", file=sys.stderr)
    beside_plain(measured)
    if set(products) != {"ottla", "kafka"}:
        return
    text = report(measured, pathlib.Path(options.out))
    if options.append:
        sized = ("groups", "members", "partitions", "rate", "seconds", "megabytes", "rounds")
        sizes = ", ".join(f"{name} {getattr(options, name)}" for name in sized)
        with RESULTS.open("a") as results:
            results.write(f"\n## {options.append}\n\n{sizes}\n\n{text}")


def beside_plain(measured):
    """What security costs: each median beside that of plain."""
    for (nodes, name), values in measured.items():
        base, _, security = name.partition(", ")
        if not security or (nodes, base) not in measured:
            continue
        for product, samples in values.items():
            plain = statistics.median(measured[nodes, base][product])
            print(f"{nodes} node(s), {product}: {base} with {security} is {statistics.median(samples) / plain:.3f} of plain")


def report(measured, out):
    table = ["| nodes | what | Ottla | Kafka | Ottla / Kafka |", "|---|---|---|---|---|"]
    ratios = []
    for (nodes, name), values in measured.items():
        ours, theirs = statistics.median(values["ottla"]), statistics.median(values["kafka"])
        ratio = ours / theirs if theirs else float("nan")
        ratios.append((f"{nodes}: {name}", ratio))
        table.append(f"| {nodes} | {name} | {ours:.3g} | {theirs:.3g} | {ratio:.2f} |")
    text = "\n".join(table) + "\n"
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").write_text(text)
    (out / "results.json").write_text(json.dumps([{"nodes": n, "what": w, **v} for (n, w), v in measured.items()], indent=1))
    (out / "results.svg").write_text(bars(ratios))
    return text


if __name__ == "__main__":
    main()
