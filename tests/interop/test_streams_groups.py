"""Kafka Streams with the protocol of streams groups (KIP-1071): the coordinator makes the internal topics and assigns the
tasks. Counts of words are compared with those of the words written, while instances come and go and nodes are killed."""
import re
import time
import uuid

from clients import java
from programs import Program, eventually
from test_streams import COUNT_SECONDS_MAX, IN_MEMORY, Counts, Feeder, expected, lines, producer, restarted

# The longest wait for tasks to have moved: two heartbeats of each instance, and the interval between assignments.
MOVE_SECONDS_MAX = 60
# Heartbeats are as frequent as the broker lets groups ask for.
SETTINGS = {"group.protocol": "streams", "dsl.store.suppliers.class": IN_MEMORY}


def group_name():
    return f"streams-{uuid.uuid4().hex[:8]}"


def groups(cluster, *arguments):
    return java.run("org.apache.kafka.tools.streams.StreamsGroupCommand", "--bootstrap-server", cluster.bootstrap, *arguments)


def rows(cluster, group, *arguments):
    """The lines about a group, in words."""
    described = groups(cluster, "--describe", "--group", group, *arguments)
    return [line.split() for line in described.splitlines() if line.split()[:1] == [group]]


def stable(cluster, group, members):
    """True once the group has so many members and all have their tasks."""
    found = rows(cluster, group, "--state")
    return bool(found) and found[0][-2:] == ["Stable", str(members)]


def write(cluster, topic, written):
    sink = producer(cluster)
    for line in written:
        sink.produce(topic, line.encode())
    assert sink.flush(30) == 0


def started(tmp_path, cluster, group, topics, instance=1, **settings):
    """An instance of the application; how soon a dead one is missed is a setting of the group, not of the client."""
    directory = tmp_path / f"instance-{instance}"
    directory.mkdir(exist_ok=True)
    properties = {
        "bootstrap.servers": cluster.bootstrap,
        "application.id": group,
        "client.id": f"{group}-{instance}",
        "state.dir": directory / "state",
        "replication.factor": cluster.count,
        "commit.interval.ms": 100,
        **SETTINGS,
        **settings,
    }
    return Program(directory / "log", "WordCount", *topics, *[f"{key}={value}" for key, value in properties.items()])


def test_streams_group_counts_words_and_the_tools_tell_of_it(one, tmp_path):
    topics, group = (one.topic("lines", partitions=3), one.topic("counts", partitions=2)), group_name()
    written = lines(1000, 1)
    with started(tmp_path, one, group, topics) as counting:
        write(one, topics[0], written)
        counting.await_said("state RUNNING")
        counts = Counts(one, topics[1]).read(sum(len(line.split()) for line in written), COUNT_SECONDS_MAX)
        assert counts == expected(written)
        eventually(MOVE_SECONDS_MAX, "the group is stable", lambda: stable(one, group, 1))
        assert group in groups(one, "--list").split()
        listed = java.run("org.apache.kafka.tools.GroupsCommand", "--bootstrap-server", one.bootstrap, "--list")
        assert [group, "Streams", "streams"] in [line.split() for line in listed.splitlines()]
        members = rows(one, group, "--members")
        assert len(members) == 1, members
        offsets = {(row[1], row[2]) for row in rows(one, group)}
        assert {(topics[0], str(number)) for number in range(3)} <= offsets
        made = one.admin().list_topics(timeout=20).topics
        internal = {name: len(topic.partitions) for name, topic in made.items() if name.startswith(group)}
        assert sorted(internal.values()) == [3, 3] and {name.rsplit("-", 1)[-1] for name in internal} == {"repartition", "changelog"}
        for name in internal:
            described = java.run(
                "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", one.bootstrap, "--describe", "--topic", name
            )
            assert f"cleanup.policy={'compact' if name.endswith('changelog') else 'delete'}" in described
        assert counting.stop() == 143
    eventually(MOVE_SECONDS_MAX, "the group is empty", lambda: rows(one, group, "--state")[0][-2:] == ["Empty", "0"])
    told = groups(one, "--reset-offsets", "--group", group, "--input-topic", topics[0], "--to-earliest", "--execute")
    # GROUP TOPIC PARTITION NEW-OFFSET
    reset = [line.split()[1:] for line in told.splitlines() if line.split()[:1] == [group]]
    assert sorted(reset) == [[topics[0], str(number), "0"] for number in range(3)]
    groups(one, "--delete", "--group", group)
    assert group not in groups(one, "--list").split()


def test_tasks_move_when_instances_come_and_go_and_the_coordinator_is_killed(three, tmp_path):
    """Every count of every word once and in order: nothing is counted twice or left out by who has the task next."""
    topics, group = (three.topic("move-lines", partitions=3), three.topic("move-counts", partitions=3)), group_name()
    settings = {"processing.guarantee": "exactly_once_v2"}
    feeder = Feeder(three, topics[0])
    with started(tmp_path, three, group, topics, 1, **settings) as first:
        feeder.start()
        first.await_said("state RUNNING")
        with started(tmp_path, three, group, topics, 2, **settings) as second:
            second.await_said("state RUNNING")
            eventually(MOVE_SECONDS_MAX, "both have their tasks", lambda: stable(three, group, 2))
            shared = rows(three, group, "--members")
            assert len(shared) == 2 and all(len(row) > 4 for row in shared), shared
            coordinator = rows(three, group, "--state")[0]
            number = int(next(re.match(r"\((\d+)\)", word) for word in coordinator if re.match(r"\((\d+)\)", word)).group(1))
            three.kill(number)
            time.sleep(3)
            restarted(three, number)
            eventually(MOVE_SECONDS_MAX, "the next coordinator has both", lambda: stable(three, group, 2))
            # one goes for good, the other is killed and comes back
            assert second.stop() == 143
        first.kill()
        first.start()
        first.await_said("state RUNNING")
        written = feeder.end()
        counts = Counts(three, topics[1]).read(sum(len(line.split()) for line in written), COUNT_SECONDS_MAX)
    wanted = expected(written)
    wrong = {word: (len(counts[word]), len(wanted[word])) for word in wanted if counts[word] != wanted[word]}
    assert not wrong, f"words with other counts, and how many (read, written): {wrong}"


def test_members_are_told_of_a_source_topic_that_is_missing(one, tmp_path):
    topics, group = ("no-such-topic-" + uuid.uuid4().hex[:8], one.topic("counts")), group_name()
    with started(tmp_path, one, group, topics) as counting:
        # they wait for it for two heartbeats
        counting.await_said(f"MissingSourceTopicException: Missing source topics: Source topics {topics[0]} are missing.")
        state = rows(one, group, "--state")
        assert state and state[0][-2] == "NotReady", state
