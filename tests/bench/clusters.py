"""What every row does to a cluster."""
import time

from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 6


def create(cluster, topic, partitions=PARTITIONS, **configs):
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
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
            return topic
        time.sleep(0.01)
