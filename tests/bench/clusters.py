"""What every row does to a cluster."""
import os
import pathlib
import subprocess
import tempfile
import time

from confluent_kafka.admin import (
    AclBinding, AclOperation, AclPermissionType, AdminClient, NewTopic, ResourcePatternType, ResourceType,
)

PARTITIONS = 6


def create(cluster, topic, partitions=PARTITIONS, **configs):
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0, **cluster.client})
    configs = {"min.insync.replicas": str(min(2, cluster.count)), **configs}
    deadline = time.monotonic() + 60
    while True:
        try:
            admin.create_topics([NewTopic(topic, partitions, cluster.count, config=configs)])[topic].result(30)
            break
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    while True:
        partitions_seen = admin.list_topics(topic, timeout=10).topics[topic].partitions
        if len(partitions_seen) == partitions and all(p.leader >= 0 for p in partitions_seen.values()):
            break
        time.sleep(0.01)
    if cluster.security == "rules":
        protect(cluster, admin, topic)
    return topic


def protect(cluster, admin, topic):
    """Rules for this topic and for 999 that nobody asks for; quotas beyond reach (by the product's own way to set them)."""
    def rule(name, operation):
        return AclBinding(ResourceType.TOPIC, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation,
                          AclPermissionType.ALLOW)
    rules = [rule(topic, operation) for operation in (AclOperation.ALL,)]
    rules += [rule(f"other-{number}", AclOperation.READ) for number in range(999)]
    for made in admin.create_acls(rules).values():
        made.result(60)
    if cluster.product == "ottla":
        subprocess.run([cluster.binary, "--server", f"127.0.0.1:{cluster.control[0]}", "quota", "set", "producer_byte_rate=1e12",
                        "consumer_byte_rate=1e12", "request_percentage=100000", "--client-id"], check=True,
                       stdout=subprocess.DEVNULL)


def lines_file(megabytes, length):
    """A file of lines of so many bytes with little repetition; made once a run."""
    path = pathlib.Path(tempfile.gettempdir()) / f"ottla-bench-{megabytes}-{length}.txt"
    if not path.exists() or path.stat().st_size < megabytes * 1_000_000:
        block = bytearray()
        while len(block) < 4_000_000:
            block += os.urandom(length // 2).hex().encode()[: length - 1].ljust(length - 1, b"x") + b"\n"
        with path.open("wb") as out:
            for _ in range(max(1, megabytes * 1_000_000 // len(block))):
                out.write(block)
    return path


def kcat(cluster, *arguments, stdin=None):
    client = [word for name, value in cluster.client.items() for word in ("-X", f"{name}={value}")]
    command = ["kcat", "-b", cluster.bootstrap, "-q", *client, *arguments]
    done = subprocess.run(command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode()[-500:]}")
