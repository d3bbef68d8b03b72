"""kafka-dump-log reads the files that these nodes write: segments, indexes, producer snapshots, groups' commits."""
import re
import signal

import pytest

from clients import ALL_COMPRESSIONS, ClientError, java, librdkafka
from conftest import CLIENTS
from records import bulk

DUMP = "org.apache.kafka.tools.DumpLogSegments"
# The smallest segment that Kafka allows, so that there are closed segments with whole indexes and snapshots.
SEGMENT_BYTES = 1024 * 1024
COUNT = 24_000
# About 16 kB: several batches to a segment, and so entries in its indexes.
SMALL_BATCHES = {"batch.num.messages": 100}
# What the tool prints when a file is not as it ought to be.
COMPLAINT = re.compile(
    r"mismatch|error|exception|not in order|out of order|corrupt|isvalid: false|invalid|could not|is followed by",
    re.IGNORECASE,
)
# With --deep-iteration Kafka 4.3's tool itself says this of every sound segment that does not begin with offset 0. The line
# tells of a gap only when the first number is another.
NO_COMPLAINT = re.compile(r"^\s+-1 is followed by (\d+)$")


def dump(files, *arguments):
    """What the tool prints about the files; fails on a line that complains."""
    assert files, "there is no such file"
    # mismatches are told on the error output, with a good exit status
    printed = java.run(DUMP, "--files", ",".join(str(file) for file in files), *arguments, with_errors=True)
    bases = {int(file.stem) for file in files if file.suffix == ".log"}
    complaints = []
    for line in printed.splitlines():
        beginning = NO_COMPLAINT.match(line)
        # the text of the tests' own records holds no word of the pattern
        if COMPLAINT.search(line) and not (beginning and int(beginning[1]) in bases):
            complaints.append(line)
    assert not complaints, complaints[:5]
    return printed


def payload_count(printed):
    return len(re.findall(r"^\|.* payload: ", printed, re.MULTILINE))


@pytest.fixture(scope="module")
def rolled(one):
    """A topic of several segments, written uncompressed by an idempotent producer."""
    name = one.topic("rolled", **{"segment.bytes": SEGMENT_BYTES, "index.interval.bytes": 4096})
    librdkafka.produce(one.bootstrap, name, bulk("rolled", COUNT), "none", idempotent=True, **SMALL_BATCHES)
    return name


def test_dump_log_reads_every_record_of_every_segment(one, rolled):
    segments = one.files(rolled)
    assert len(segments) >= 3, "segment.bytes makes the log roll"
    printed = dump(segments, "--deep-iteration", "--print-data-log")
    offsets = [int(offset) for offset in re.findall(r"^\| offset: (\d+) ", printed, re.MULTILINE)]
    assert offsets == list(range(COUNT))
    # a segment is named after its first offset
    first = [int(line) for line in re.findall(r"^Log starting offset: (\d+)", printed, re.MULTILINE)]
    assert first == [int(segment.stem) for segment in segments]
    assert re.search(r"^baseOffset: 0 .* producerId: \d+ producerEpoch: 0 .* isvalid: true", printed, re.MULTILINE)


def test_dump_log_agrees_with_the_offset_and_time_indexes(one, rolled):
    # the last segment's indexes are still open for writing
    closed = len(one.files(rolled)) - 1
    for suffix in (".index", ".timeindex"):
        files = one.files(rolled, suffix=suffix)[:closed]
        printed = dump(files, "--verify-index-only" if suffix == ".index" else "--index-sanity-check")
        assert printed.count("Dumping ") == closed
        printed = dump(files)
        entries = re.findall(r"^(?:offset: \d+ position|timestamp: \d+ offset): \d+", printed, re.MULTILINE)
        assert len(entries) >= closed, f"{suffix}: {len(entries)} entries in {closed} files"
    # one entry in about every index.interval.bytes
    index = one.files(rolled, suffix=".index")[0]
    assert len(re.findall(r"^offset: ", dump([index]), re.MULTILINE)) >= 20


def test_dump_log_reads_producer_snapshots(one, rolled):
    printed = dump(one.files(rolled, suffix=".snapshot"))
    assert re.search(r"producerId: \d+ producerEpoch: 0 .*lastSequence: \d+", printed), printed


@pytest.mark.parametrize("suffix,position", [(".log", 5000), (".index", 7), (".timeindex", 7)])
def test_the_checks_here_see_one_changed_byte(one, rolled, tmp_path, suffix, position):
    first = one.files(rolled)[0]
    for kind in (".log", ".index", ".timeindex"):
        (tmp_path / first.name).with_suffix(kind).write_bytes(first.with_suffix(kind).read_bytes())
    damaged = (tmp_path / first.name).with_suffix(suffix)
    dump([damaged], "--deep-iteration")
    content = bytearray(damaged.read_bytes())
    content[position] ^= 1
    damaged.write_bytes(content)
    with pytest.raises((AssertionError, ClientError)):
        dump([damaged], "--deep-iteration")


@pytest.mark.parametrize("idempotent", [False, True], ids=["plain", "idempotent"])
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.NAME)
def test_batches_of_idempotent_producers_alone_carry_producer_and_sequence(one, client, idempotent):
    name = one.topic("producer-id")
    client.produce(one.bootstrap, name, bulk("producer-id", 300), "gzip", idempotent=idempotent)
    printed = dump(one.files(name))
    batches = re.findall(r"^baseOffset: .*baseSequence: (-?\d+) lastSequence: (-?\d+) producerId: (-?\d+)", printed, re.MULTILINE)
    if not idempotent:
        # franz-go and kafkajs number the records all the same; without a producer id that says nothing
        assert {producer for _, _, producer in batches} == {"-1"}
        return
    assert len({producer for _, _, producer in batches}) == 1 and int(batches[0][2]) >= 0, batches
    following = 0
    for first, last, _ in batches:
        assert int(first) == following, batches
        following = int(last) + 1
    assert following == 300


@pytest.mark.parametrize("compression", ALL_COMPRESSIONS)
def test_dump_log_reads_every_compression_and_finds_it_kept(one, compression):
    name = one.topic(f"dump-{compression}")
    librdkafka.produce(one.bootstrap, name, bulk("dump", 500), compression)
    printed = dump(one.files(name), "--deep-iteration", "--print-data-log")
    assert payload_count(printed) == 500
    assert set(re.findall(r"compresscodec: (\w+)", printed)) == {compression}


def test_dump_log_decodes_the_commits_of_a_group(one):
    topic, group = one.topic("committed"), "dump-log-group"
    librdkafka.produce(one.bootstrap, topic, bulk("committed", 7), "none")
    librdkafka.consume_group(one.bootstrap, topic, group, 7)
    files = [file for partition in range(3) for file in one.files("__consumer_offsets", partition) if file.stat().st_size]
    printed = dump(files, "--deep-iteration", "--offsets-decoder")
    commits = [line for line in printed.splitlines() if f'"group":"{group}"' in line and f'"topic":"{topic}"' in line]
    assert commits and '"offset":7' in commits[-1], printed[-2000:]
    # the group's own record tells of its member
    assert any(f'"group":"{group}"' in line and '"protocolType":"consumer"' in line for line in printed.splitlines())


def test_dump_log_reads_all_files_of_a_stopped_node(one, rolled):
    node = one.processes[0]
    node.send_signal(signal.SIGTERM)
    # Java ends with 128 + the signal after its shutdown hooks; Ottla with 0
    assert node.wait(60) == (143 if one.product == "kafka" else 0), "the node ends by itself"
    try:
        printed = dump(one.files(rolled), "--deep-iteration")
        assert len(re.findall(r"^\| offset: ", printed, re.MULTILINE)) == COUNT
        for suffix in (".index", ".timeindex"):
            dump(one.files(rolled, suffix=suffix))
        dump(one.files(rolled, suffix=".snapshot"))
    finally:
        one.restart(1)
        one.await_isr(rolled, 1)
    assert len(librdkafka.consume(one.bootstrap, rolled, COUNT)) == COUNT
