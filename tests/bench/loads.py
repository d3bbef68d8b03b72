"""The rows whose load is `ottla-load` (tests/bench/load): groups, commits, transactions, idempotence. Raw requests on one thread."""
import json
import os
import subprocess

from clusters import create

# A group's coordinator and a transaction's are on every node; few partitions so that their logs are as on a small cluster.
_PROPERTIES = {
    "offsets.topic.num.partitions": 12,
    "transaction.state.log.num.partitions": 6,
    "group.consumer.max.size": 1000,
    # a member may be told of a change this soon
    "group.consumer.min.heartbeat.interval.ms": 500,
    "group.consumer.heartbeat.interval.ms": 1000,
}


def properties(nodes):
    """Of a cluster of so many nodes for these rows."""
    return {**_PROPERTIES, "transaction.state.log.replication.factor": nodes, "transaction.state.log.min.isr": min(2, nodes)}


def load(options, cluster, verb, **settings):
    """Runs a load to its end; its figures, what the servers spent meanwhile, and their greatest memory."""
    pairs = [f"{name}={value}" for name, value in {"bootstrap": cluster.bootstrap, **settings}.items()]
    cpu, memory = cluster.cpu_seconds(), cluster.resident_mib()
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    process = subprocess.Popen([options.load, verb, *pairs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    while True:
        try:
            output, errors = process.communicate(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            memory = max(memory, cluster.resident_mib())
    if process.returncode:
        raise RuntimeError(f"ottla-load {verb} {' '.join(pairs)}: {errors[-1000:]}")
    return {**json.loads(output), "memory": memory}, cluster.cpu_seconds() - cpu


def groups(cluster, options):
    """Many groups of three members: until all have joined, then at rest with heartbeats every 3 s."""
    count, seconds = options.groups, options.seconds
    warm(cluster, options)
    before = cluster.resident_mib()
    joined, joining = load(options, cluster, "groups", groups=count, members=3, seconds=0)
    name = f"{count} groups of 3"
    out = {f"{name}: joined s": joined["joined seconds"], f"{name}: join and leave CPU-s": joining}
    # the same members again, now kept: what joining costs is known from the first time
    kept, cpu = load(options, cluster, "groups", groups=count, members=3, seconds=seconds)
    out |= {f"{name}: {seconds} s of heartbeats CPU-s": max(cpu - joining, 0), f"{name}: heartbeat p99 ms": kept["heartbeat p99 ms"]}
    return out | {f"{name}: memory added MiB": kept["memory"] - before}


def rebalance(cluster, options):
    """One group of many members over many partitions, by both protocols."""
    members, partitions = options.members, options.partitions
    warm(cluster, options)
    topic = create(cluster, "large", partitions)
    out = {}
    for verb, protocol in (("classic-rebalance", "classic"), ("consumer-rebalance", "KIP-848")):
        found, cpu = load(options, cluster, verb, members=members, partitions=partitions, topic=topic)
        name = f"{members} members, {partitions} partitions, {protocol}"
        out |= {f"{name}: formed s": found["formed seconds"], f"{name}: after one left s": found["after one left seconds"], f"{name}: CPU-s": cpu}
    return out


def commits(cluster, options):
    """Commits at a fixed pace, one partition each."""
    warm(cluster, options)
    topic = create(cluster, "committed", 1)
    found, cpu = load(options, cluster, "commits", rate=options.rate, groups=200, seconds=options.seconds, topic=topic)
    name = f"{options.rate} commits a second"
    return {
        f"{name}: reached commits/s": found["commits a second"],
        f"{name}: p50 ms": found["commit p50 ms"],
        f"{name}: p99 ms": found["commit p99 ms"],
        f"{name}: CPU-s per million": cpu / found["commits"] * 1e6,
        f"{name}: memory MiB a node": found["memory"] / cluster.count,
    }


def transactions(cluster, options):
    """Transactions of 100 records over 5 partitions, one producer."""
    topic = create(cluster, "transactional", 5)
    # once to be warm
    load(options, cluster, "transactions", topic=topic, producers=1, records=100, seconds=max(options.seconds // 4, 1))
    found, cpu = load(options, cluster, "transactions", topic=topic, producers=1, records=100, seconds=options.seconds)
    return {
        "transactions of 100 records over 5 partitions: transactions/s": found["transactions a second"],
        "transactions of 100 records over 5 partitions: p50 ms": found["transaction p50 ms"],
        "transactions of 100 records over 5 partitions: p99 ms": found["transaction p99 ms"],
        "transactions of 100 records over 5 partitions: CPU-ms each": cpu / found["transactions"] * 1e3,
    }


def idempotence(cluster, options):
    """The same batches plain and of an idempotent producer, in turn: CPU a GB, and how much more the second takes."""
    topic = create(cluster, "produced", 6)
    load(options, cluster, "produce", topic=topic, idempotent="false", megabytes=max(options.megabytes // 10, 1))
    spent, rate = {"false": 0.0, "true": 0.0}, {"false": [], "true": []}
    bytes_each = 0
    # in turn and both ways round, so that what changes with time changes neither more than the other
    for idempotent in ("false", "true", "true", "false"):
        found, cpu = load(options, cluster, "produce", topic=topic, idempotent=idempotent, megabytes=options.megabytes // 2)
        spent[idempotent] += cpu
        rate[idempotent].append(found["MB/s"])
        bytes_each = found["bytes"]
    gigabytes = 2 * bytes_each / 1e9
    return {
        "raw produce, plain: MB/s": sum(rate["false"]) / 2,
        "raw produce, idempotent: MB/s": sum(rate["true"]) / 2,
        "raw produce, plain: CPU-s/GB": spent["false"] / gigabytes,
        "raw produce, idempotent: CPU-s/GB": spent["true"] / gigabytes,
        "raw produce: idempotence more CPU %": (spent["true"] / spent["false"] - 1) * 100,
    }


def warm(cluster, options):
    """The log of the groups is there and the servers have run the code once."""
    create(cluster, "warm", 1)
    load(options, cluster, "commits", rate=200, groups=20, seconds=1, topic="warm")


ROWS = {"groups": groups, "rebalance": rebalance, "commits": commits, "transactions": transactions, "idempotence": idempotence}
