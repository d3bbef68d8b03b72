"""What a client feels when a node dies, when nodes are restarted in turn, and how long moving a replica takes.

A writer a partition sends one record at a time with `acks=all` and notes how long each took: the longest is the gap. The servers
have their own defaults; the clients are the same and try again every 10 ms, so that the gap is the servers'. The rolling restart is
done a second time with librdkafka as it comes, which waits for 100 ms after each refusal.
"""
import signal
import statistics
import threading
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from clusters import create, kcat, lines_file

WRITERS = 3
REASSIGN_MEGABYTES = 300
# So that the gap is the servers', and not the client's patience.
IMPATIENT = {
    "linger.ms": 0, "retry.backoff.ms": 10, "retry.backoff.max.ms": 10, "reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 50,
    "topic.metadata.refresh.fast.interval.ms": 10,
}
PREFERRED = 0  # ElectLeaders: the first of a partition's replicas


class Writer(threading.Thread):
    """Writes to one partition until it is told to stop; `waits` holds (when it began, seconds) of each record."""

    def __init__(self, cluster, topic, partition, settings=IMPATIENT):
        super().__init__(daemon=True)
        self.producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "log_level": 0, **settings})
        self.topic, self.partition = topic, partition
        self.waits, self.failed, self.ending = [], [], threading.Event()
        self.start()

    def run(self):
        while not self.ending.is_set():
            began = time.monotonic()
            self.producer.produce(self.topic, b"x" * 100, partition=self.partition, on_delivery=self._delivered)
            while self.producer.flush(1) and not self.ending.is_set():
                pass
            self.waits.append((began, time.monotonic() - began))
            time.sleep(0.001)

    def _delivered(self, error, _):
        if error:
            self.failed.append(str(error))

    def finish(self):
        self.ending.set()
        self.join(60)

    def longest(self, since):
        return max((seconds for began, seconds in self.waits if began + seconds >= since), default=float("nan"))


def described(cluster, topic):
    """Its partitions, as a broker describes them now."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0, **cluster.client})
    return admin.list_topics(topic, timeout=10).topics[topic].partitions.values()


def leaders(cluster, topic):
    return {partition.id: partition.leader for partition in described(cluster, topic)}


def isr_sizes(cluster, topic):
    return [len(partition.isrs) for partition in described(cluster, topic)]


def until(what, condition, limit_s=180):
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except Exception as error:  # a node is away: ask again
            what = f"{what}: {error}"
        time.sleep(0.05)
    raise RuntimeError(f"not within {limit_s} s: {what}"[-500:])


def whole(cluster, topic):
    until("every replica in sync", lambda: all(size == cluster.count for size in isr_sizes(cluster, topic)))


def spread_topic(cluster, name, partitions, **configs):
    """A topic whose leaders are on every node: a node that is not there yet would not lead."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    until("every broker", lambda: len(admin.list_topics(timeout=10).brokers) == cluster.count)
    topic = create(cluster, name, partitions, **configs)
    whole(cluster, topic)
    return topic


def quorum_leader(cluster):
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap.split(","))
    try:
        return admin.describe_metadata_quorum()["topics"][0]["partitions"][0]["leader_id"]
    finally:
        admin.close()


def killed(cluster, options):
    """kill -9 of the node that leads a partition; and of one that leads the quorum as well."""
    if cluster.count < 3:
        return {}
    topic = spread_topic(cluster, "killed", 6)
    gaps = {"leader": [], "leader and quorum leader": []}
    for turn in range(4):
        both = turn % 2 == 1
        quorum = quorum_leader(cluster)
        mine = {leader: partition for partition, leader in leaders(cluster, topic).items()}
        victims = [n for n in mine if (n == quorum) == both]
        if not victims:
            # Every partition was moved away from that node: the next round finds it as a leader again.
            continue
        victim = victims[0]
        writer = Writer(cluster, topic, mine[victim])
        time.sleep(2)
        at = time.monotonic()
        cluster.kill(victim - 1)
        until("a write after the kill", lambda: writer.waits and writer.waits[-1][0] > at + 0.05)
        time.sleep(1)
        writer.finish()
        gaps["leader and quorum leader" if both else "leader"].append(writer.longest(at))
        cluster.spawn(victim - 1)
        whole(cluster, topic)
        prefer(cluster, topic)
    return {f"gap after kill -9 of the {what} s": statistics.median(values) for what, values in gaps.items() if values}


def prefer(cluster, topic):
    """Waits for leaders to be spread again, with a preferred election to make it soon."""
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap.split(","))
    admin.elect_leaders(PREFERRED, {topic: list(leaders(cluster, topic))}, raise_errors=False)
    admin.close()
    until("leaders on every node", lambda: len(set(leaders(cluster, topic).values())) == cluster.count)


def rolling(cluster, options):
    """SIGTERM and start of each node in turn, under writes to every leader."""
    if cluster.count < 3:
        return {}
    topic = spread_topic(cluster, "rolling", WRITERS)
    seconds, writers = restarted(cluster, topic, IMPATIENT)
    prefer(cluster, topic)
    _, patient = restarted(cluster, topic, {})
    return {
        "rolling restart s": seconds,
        "rolling restart: longest wait of a record ms": writers["longest_ms"],
        "rolling restart: failed records": writers["failed"] + patient["failed"],
        "rolling restart, client's defaults: longest wait of a record ms": patient["longest_ms"],
    }


def restarted(cluster, topic, settings):
    """How long it took, and what the writers felt."""
    writers = [Writer(cluster, topic, partition, settings) for partition in range(WRITERS)]
    time.sleep(2)
    began = time.monotonic()
    for node in range(cluster.count):
        cluster.end(node, signal.SIGTERM)
        cluster.spawn(node)
        whole(cluster, topic)
    seconds = time.monotonic() - began
    time.sleep(1)
    for writer in writers:
        writer.finish()
    longest = max(writer.longest(began) for writer in writers)
    return seconds, {"longest_ms": longest * 1e3, "failed": sum(len(writer.failed) for writer in writers)}


def reassign(cluster, options):
    """A partition of some size moves from two replicas to one that had none."""
    if cluster.count < 3:
        return {}
    topic = spread_topic(cluster, "moved", 1, **{"min.insync.replicas": "1"})
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap.split(","))
    one = TopicPartition(topic, 0)
    admin.alter_partition_reassignments({one: [1, 2]})
    until("two replicas", lambda: not admin.list_partition_reassignments() and isr_sizes(cluster, topic) == [2])
    with lines_file(REASSIGN_MEGABYTES, 1024).open("rb") as lines:
        kcat(cluster, "-P", "-t", topic, "-X", "acks=all", "-X", "linger.ms=5", stdin=lines)
    cpu, began = cluster.cpu_seconds(), time.monotonic()
    admin.alter_partition_reassignments({one: [3, 1]})
    until("the move", lambda: not admin.list_partition_reassignments())
    seconds = time.monotonic() - began
    admin.close()
    return {
        f"reassign a replica of {REASSIGN_MEGABYTES} MB s": seconds,
        f"reassign a replica of {REASSIGN_MEGABYTES} MB CPU-s": cluster.cpu_seconds() - cpu,
    }
