"""Kafka Streams: counts of words, compared with those of the words written, also through kills with exactly_once_v2."""
import collections
import random
import threading
import time
import uuid

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, OffsetSpec

from programs import Program, eventually

WORDS = [f"word{number}" for number in range(40)]
IN_MEMORY = "org.apache.kafka.streams.state.BuiltInDslStoreSuppliers$InMemoryDslStoreSuppliers"
# The longest wait for the last count after the last record was written.
COUNT_SECONDS_MAX = 120


def lines(count, seed):
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=chosen.randint(1, 8))) for _ in range(count)]


def producer(cluster):
    return confluent_kafka.Producer({"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "linger.ms": 5, "log_level": 0})


class Counts:
    """Reads a topic of counts, all its partitions, committed records alone."""

    def __init__(self, cluster, topic):
        self.consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "group.id": "counts",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )
        partitions = self.consumer.list_topics(topic, timeout=20).topics[topic].partitions
        self.consumer.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in partitions])
        self.by_word = collections.defaultdict(list)

    def read(self, total, seconds):
        """Reads until there are `total` records, and whatever comes in the second after them."""
        deadline, quiet = time.monotonic() + seconds, None
        while quiet is None or time.monotonic() < quiet:
            seen = sum(map(len, self.by_word.values()))
            assert time.monotonic() < deadline, f"{seen} of {total} counts after {seconds} s"
            if quiet is None and seen >= total:
                quiet = time.monotonic() + 1
            for message in self.consumer.consume(1000, 0.2):
                if message.error():
                    # a node that is down just now
                    assert message.error().retriable() or message.error().code() < 0, message.error()
                    continue
                self.by_word[message.key().decode()].append(int(message.value()))
        self.consumer.close()
        return self.by_word


def application(directory, cluster, name, topics, instance=1, **settings):
    directory = directory / f"instance-{instance}"
    directory.mkdir(exist_ok=True)
    properties = {
        "bootstrap.servers": cluster.bootstrap,
        "application.id": name,
        "client.id": f"{name}-{instance}",
        "state.dir": directory / "state",
        "replication.factor": cluster.count,
        "commit.interval.ms": 100,
        # a killed instance is to be missed soon
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 1000,
        **settings,
    }
    pairs = [f"{key}={value}" for key, value in properties.items()]
    return Program(directory / "log", "WordCount", *topics, *pairs)


def expected(written):
    return {word: list(range(1, count + 1)) for word, count in collections.Counter(" ".join(written).split()).items()}


def test_streams_counts_words(one, tmp_path):
    topics = one.topic("lines", partitions=3), one.topic("counts", partitions=2)
    written = lines(2000, 1)
    sink = producer(one)
    with application(tmp_path, one, f"count-{uuid.uuid4().hex[:8]}", topics) as counting:
        for line in written[:1000]:
            sink.produce(topics[0], line.encode())
        assert sink.flush(30) == 0
        counting.await_said("state RUNNING")
        for line in written[1000:]:
            sink.produce(topics[0], line.encode())
        assert sink.flush(30) == 0
        counts = Counts(one, topics[1]).read(sum(len(line.split()) for line in written), COUNT_SECONDS_MAX)
        # each count once and in order: nothing failed here
        assert counts == expected(written)
        assert counting.stop() == 143


class Feeder(threading.Thread):
    """Writes lines in the background, a few at a time, until told to end; each acknowledged once by all replicas."""

    def __init__(self, cluster, topic):
        super().__init__(daemon=True)
        self.topic, self.written, self.failures = topic, [], []
        self.ending = threading.Event()
        self.producer = producer(cluster)

    def run(self):
        for line in lines(1_000_000, 2):
            if self.ending.wait(0.01):
                break
            self.producer.produce(self.topic, line.encode(), on_delivery=self.delivered)
            self.written.append(line)
            self.producer.poll(0)
        if left := self.producer.flush(60):
            self.failures.append(f"{left} lines not written")

    def delivered(self, error, _message):
        if error is not None:
            self.failures.append(error)

    def end(self):
        self.ending.set()
        self.join()
        assert not self.failures, self.failures[:3]
        return self.written


def restarted(cluster, number):
    cluster.restart(number)
    cluster.await_whole()


@pytest.mark.timeout(1800)
def test_streams_counts_exactly_once_through_kills(three, tmp_path, pytestconfig):
    """Every count of every word once and in order, read committed, though brokers and the application are killed."""
    kills = pytestconfig.getoption("--kills")
    topics = three.topic("once-lines", partitions=3), three.topic("once-counts", partitions=3)
    name = f"once-{uuid.uuid4().hex[:8]}"
    settings = {"processing.guarantee": "exactly_once_v2", "dsl.store.suppliers.class": IN_MEMORY}
    feeder = Feeder(three, topics[0])
    with application(tmp_path, three, name, topics, 1, **settings) as first, application(
        tmp_path, three, name, topics, 2, **settings
    ) as second:
        for instance in (first, second):
            instance.await_said("state RUNNING")
        feeder.start()
        chosen = random.Random(kills)
        for kill in range(kills):
            time.sleep(1 + chosen.random())
            # every node in turn; one of them coordinates, leads the input, leads the controllers
            number = kill % three.count + 1
            three.kill(number)
            time.sleep(chosen.random())
            if kill % 2 == 0:
                instance = (first, second)[kill // 2 % 2]
                instance.kill()
                instance.start()
            eventually(60, "a count is written while a node is down", Progress(three, topics[1], number))
            restarted(three, number)
        written = feeder.end()
        counts = Counts(three, topics[1]).read(sum(len(line.split()) for line in written), COUNT_SECONDS_MAX)
    wanted = expected(written)
    wrong = {word: (len(counts[word]), len(wanted[word])) for word in wanted if counts[word] != wanted[word]}
    assert not wrong, f"words with other counts, and how many (read, written): {wrong}"
    assert counts.keys() == wanted.keys()


class Progress:
    """True once the end of a topic's committed records has moved since this was made."""

    def __init__(self, cluster, topic, down):
        alive = [f"127.0.0.1:{port}" for number, port in enumerate(cluster.kafka, start=1) if number != down]
        self.bootstrap, self.topic, self.first = ",".join(alive), topic, None

    def __call__(self):
        partitions = {confluent_kafka.TopicPartition(self.topic, number): OffsetSpec.latest() for number in range(3)}
        # a new client each time: an old one may hold to the leader that it knew
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        committed = confluent_kafka.IsolationLevel.READ_COMMITTED
        try:
            told = admin.list_offsets(partitions, isolation_level=committed, request_timeout=5)
            end = sum(result.result(10).offset for result in told.values())
        except confluent_kafka.KafkaException:
            return False
        if self.first is None:
            self.first = end
        return end > self.first
