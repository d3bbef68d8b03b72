"""The records that the tests write, and how they compare what was read."""
from clients import Record

# Enough for several batches with every client, of text that every codec makes smaller.
BULK_COUNT = 200


def mixed(tag):
    """Records of every shape that all clients can write; `tag` tells one producer's records from another's."""
    trace = (("trace", "1"), ("trace", "2"), ("från", "Tromsø"))
    return [
        Record(f"{tag}-first", "value"),
        Record(None, f"{tag} without a key"),
        Record(f"{tag}-unicode-ключ", "grüße 漢字 🦦"),
        Record(f"{tag}-headers", "three headers, one name twice", trace),
        Record(f"{tag}-tombstone", None),
        *bulk(tag, BULK_COUNT),
        Record(f"{tag}-large", "0123456789abcdef" * 4096),
    ]


def bulk(tag, count, first=0):
    return [Record(f"{tag}-{number}", f"record {number} of {tag}: " + "to and fro " * 10) for number in range(first, first + count)]


def assert_same(read, written):
    """Like `==`, but says where the first difference is instead of printing all records."""
    for position, (got, expected) in enumerate(zip(read, written)):
        assert got == expected, f"record {position}: read {short(got)}, written {short(expected)}"
    assert len(read) == len(written), f"{len(read)} records read, {len(written)} written"


def short(record):
    shown = repr(record)
    return shown if len(shown) < 300 else shown[:300] + "…"
