"""kafkajs, through the program in ../node that speaks JSON lines; `run` of these tests installs it."""
import json
import os
import pathlib
import uuid

from . import CACHE, call
from .go import lines_of, records_of

NAME = "kafkajs"
# The others need plugins: see CANNOT in ../test_matrix.py.
COMPRESSIONS = ("none", "gzip")
READS = COMPRESSIONS

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "node" / "main.js"


def produce(bootstrap, topic, records, compression, idempotent=False, security=None):
    settings = {**_settings(security), "topic": topic, "compression": compression, "idempotent": idempotent}
    _run("produce", lines_of(records), bootstrap=bootstrap, **settings)


def consume(bootstrap, topic, count, security=None):
    """kafkajs reads only as a member of a group, so each call has a new group."""
    return consume_group(bootstrap, topic, f"kafkajs-{uuid.uuid4()}", count, security)


def consume_group(bootstrap, topic, group, count, security=None):
    lines = _run("consume-group", None, **_settings(security), bootstrap=bootstrap, topic=topic, group=group, count=count)
    return records_of(NAME, lines, count)


def _settings(security):
    return {} if security is None else {"security": {name: value and str(value) for name, value in security._asdict().items()}}


def _run(verb, standard_input, **settings):
    # kafkajs is installed beside the other clients, not in the source tree
    environment = {**os.environ, "NODE_PATH": str(CACHE / "node" / "node_modules")}
    environment["KAFKAJS_NO_PARTITIONER_WARNING"] = "1"
    return call(["node", PROGRAM, verb, json.dumps(settings)], standard_input, environment)
