"""What many partitions cost a node that nobody uses: memory, open files, the time of a restart.

    tests/bench/partitions [--partitions 10000] [--products ottla,kafka] [--ottla PATH]

One node, one topic per 1,000 partitions, one record in every partition. Memory is resident memory above that of the same node
without them, after a restart, at rest. The restart is a clean one: seconds from the signal to the end of the process, and from
the start of the process until a record is produced to the last partition. Give both products the open files that they need
(`ulimit -n 100000`).
"""
import argparse
import json
import pathlib
import resource
import sys
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from servers import Cluster

HERE = pathlib.Path(__file__).resolve().parent
TOPIC_PARTITIONS = 1000
# Logs give their files and buffers back after ten to twenty seconds without an append.
REST_SECONDS = 25


def topics(count):
    return [(f"many-{n}", min(TOPIC_PARTITIONS, count - n * TOPIC_PARTITIONS)) for n in range(-(-count // TOPIC_PARTITIONS))]


def producer(cluster):
    return Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "log_level": 0, "linger.ms": 20, "message.timeout.ms": 120_000,
                     "topic.metadata.refresh.interval.ms": 500, "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 200})


def write_to_all(cluster, names):
    out, failed = producer(cluster), []
    for name, count in names:
        for partition in range(count):
            while True:
                try:
                    out.produce(name, b"x" * 100, partition=partition, on_delivery=lambda error, _: error and failed.append(error))
                    break
                except BufferError:
                    out.poll(0.1)
    assert out.flush(300) == 0 and not failed, failed[:3]


def open_files(cluster):
    return sum(len(list(pathlib.Path(f"/proc/{process.pid}/fd").iterdir())) for process in cluster.processes)


def at_rest(cluster):
    """Resident KiB and open files after everything has settled; and the CPU of doing nothing."""
    time.sleep(REST_SECONDS)
    cpu = cluster.cpu_seconds()
    time.sleep(10)
    return cluster.resident_mib() * 1024, open_files(cluster), (cluster.cpu_seconds() - cpu) * 10


def restart(cluster, last):
    began = time.monotonic()
    cluster.stop()
    stopped = time.monotonic()
    cluster.start()
    out, failed = producer(cluster), []
    out.produce(*last, on_delivery=lambda error, _: error and failed.append(error))
    assert out.flush(300) == 0 and not failed, failed
    return stopped - began, time.monotonic() - stopped


def measure(product, options):
    names = topics(options.partitions)
    name, count = names[-1]
    with Cluster(product, 1, options.ottla) as cluster:
        cluster.stop()
        cluster.start()
        base_kib, _, base_cpu = at_rest(cluster)
        began = time.monotonic()
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        for topic, partitions in names:
            admin.create_topics([NewTopic(topic, partitions, 1)], operation_timeout=300, request_timeout=300)[topic].result(300)
        out = {"creation s": time.monotonic() - began}
        began = time.monotonic()
        write_to_all(cluster, names)
        out["a record in each s"] = time.monotonic() - began
        written_kib, _, _ = at_rest(cluster)
        out["clean stop s"], out["restart s"] = restart(cluster, (name, b"x", None, count - 1))
        kib, out["open files"], cpu = at_rest(cluster)
        out["KiB a partition, written to once"] = (written_kib - base_kib) / options.partitions
        out["KiB a partition, after the restart"] = (kib - base_kib) / options.partitions
        out["idle CPU %"] = cpu
        out["idle CPU % without partitions"] = base_cpu
        # Nothing was written since: the second stop is that of an idle node.
        out["clean stop of an idle node s"], out["second restart s"] = restart(cluster, (name, b"x", None, count - 1))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=10_000)
    parser.add_argument("--products", default="ottla,kafka")
    parser.add_argument("--ottla", default=str(HERE.parent.parent / "target/release/ottla"))
    parser.add_argument("--out", help="a file for the figures as JSON")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures = {}
    for product in options.products.split(","):
        figures[product] = measure(product, options)
        print(f"{product}: done", file=sys.stderr)
    products = list(figures)
    print(f"| {options.partitions} partitions on one node | " + " | ".join(products) + " |")
    print("|---" * (len(products) + 1) + "|")
    for what in figures[products[0]]:
        print(f"| {what} | " + " | ".join(f"{figures[product][what]:.3g}" for product in products) + " |")
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
