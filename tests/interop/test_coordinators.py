"""The coordinator of many active groups is killed: every consumer goes on, and no committed offset goes back."""
import threading
import time

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition

from programs import eventually

GROUPS = 50
# The longest time that a group may be without a new commit, on a machine that is busy with the tests alone.
STALL_SECONDS_MAX = 10


class Reader(threading.Thread):
    """The only member of a group: commits each record that it reads, and notes when the commit was acknowledged."""

    def __init__(self, cluster, topic, group):
        super().__init__(daemon=True)
        settings = {"bootstrap.servers": cluster.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "log_level": 0}
        self.consumer = confluent_kafka.Consumer({**settings, "enable.auto.commit": False})
        self.group, self.topic, self.ending = group, topic, False
        # (time, offset) of each acknowledged commit
        self.commits = []
        self.consumer.subscribe([topic])
        self.start()

    def run(self):
        while not self.ending:
            message = self.consumer.poll(0.2)
            if message is None or message.error():
                continue
            try:
                (done,) = self.consumer.commit(message, asynchronous=False)
            except confluent_kafka.KafkaException:
                # the coordinator is away; a later record's commit covers this one
                continue
            if done.error is None:
                self.commits.append((time.monotonic(), done.offset))

    def end(self):
        self.ending = True
        self.join()

    def committed(self):
        """The group's offset, or none while its coordinator moves."""
        try:
            return self.consumer.committed([TopicPartition(self.topic, 0)], 10)[0].offset
        except confluent_kafka.KafkaException:
            return None

    def longest_stall(self):
        times = [at for at, _ in self.commits]
        return max(after - before for before, after in zip(times, times[1:]))


@pytest.mark.timeout(400)
def test_groups_go_on_when_their_coordinator_is_killed(three):
    topic = three.topic("active")
    producer = confluent_kafka.Producer({"bootstrap.servers": three.bootstrap, "linger.ms": 0, "log_level": 0})
    readers = [Reader(three, topic, f"{topic}-{number}") for number in range(GROUPS)]
    killed = end = None
    try:
        begin = time.monotonic()
        while time.monotonic() < begin + 30 or killed is None:
            producer.produce(topic, b"x")
            producer.poll(0.1)
            if killed is None and all(len(reader.commits) > 5 for reader in readers):
                # the coordinator of the first group, and of about a third of all
                admin = three.admin()  # held: its requests end with it
                group = readers[0].group
                killed = admin.describe_consumer_groups([group])[group].result(20).coordinator.id
                three.kill(killed)
                begin = time.monotonic() - 22
            assert time.monotonic() < begin + 120, "every group reads and commits"
        assert producer.flush(30) == 0
        last = [reader.commits[-1][1] for reader in readers]
        end = producer_end(three, topic)
        eventually(60, "every group has committed all", lambda: all(reader.commits[-1][1] == end for reader in readers))
        assert max(last) <= end
    finally:
        for reader in readers:
            reader.end()
        if killed is not None:
            three.restart(killed)
            three.await_whole()
    for reader in readers:
        offsets = [offset for _, offset in reader.commits]
        # what was acknowledged is where it goes on: nothing is read again
        assert offsets == sorted(offsets), f"{reader.group} went back: {offsets}"
        eventually(30, f"{reader.group} has its place", lambda: reader.committed() == end)
        reader.consumer.close()
    stalls = sorted(reader.longest_stall() for reader in readers)
    print(f"longest time without a commit: median {stalls[GROUPS // 2]:.2f} s, most {stalls[-1]:.2f} s")
    assert stalls[-1] < STALL_SECONDS_MAX


def producer_end(cluster, topic):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "end", "log_level": 0})
    end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)[1]
    consumer.close()
    return end
