"""An infrastructure-as-code client: what is wanted is created, read back as it was wanted, changed and deleted."""
import copy
import json
import uuid

import pytest

from clients import CACHE, call


@pytest.fixture
def want():
    prefix = f"plan-{uuid.uuid4().hex[:8]}-"
    return {
        "prefix": prefix,
        "topics": {
            f"{prefix}orders": {"partitions": 3, "replicas": 1, "configs": {"retention.ms": "3600000", "cleanup.policy": "compact,delete"}},
            f"{prefix}plain": {"partitions": 1, "replicas": 1, "configs": {}},
        },
        "acls": [
            f"Topic|{prefix}|Prefixed|User:{prefix}alice|*|Write|Allow",
            f"Topic|*|Literal|User:{prefix}alice|10.0.0.1|Read|Deny",
            f"Group|{prefix}g|Literal|User:{prefix}bob|*|Read|Allow",
            f"Cluster|kafka-cluster|Literal|User:{prefix}bob|*|IdempotentWrite|Allow",
            f"TransactionalID|{prefix}t|Literal|User:{prefix}bob|*|All|Allow",
        ],
        "quotas": {
            f"{prefix}alice": {"producer_byte_rate": 1048576.0, "request_percentage": 12.5},
            f"{prefix}alice/app": {"consumer_byte_rate": 2048.0},
            f"{prefix}alice/": {"controller_mutation_rate": 3.0},
        },
        "users": {f"{prefix}alice": {"password": "a secret", "iterations": 4096}, f"{prefix}bob": {"password": "b", "iterations": 8192}},
    }


def applied(cluster, want):
    """The steps that were taken."""
    command = [CACHE / "interop-go", "apply", "-bootstrap", cluster.bootstrap]
    return call(command, json.dumps(want)).splitlines()


def test_a_plan_is_carried_out_and_a_second_one_is_empty(guarded, want):
    prefix = want["prefix"]
    steps = applied(guarded, want)
    assert [step.split()[0] for step in steps] == ["create"] * 7 + ["quota"] * 4 + ["user"] * 2, steps
    assert applied(guarded, want) == []

    changed = copy.deepcopy(want)
    changed["topics"][f"{prefix}orders"] = {"partitions": 5, "replicas": 1, "configs": {"cleanup.policy": "compact", "max.message.bytes": "2000000"}}
    del changed["topics"][f"{prefix}plain"]
    changed["acls"] = changed["acls"][1:] + [f"Topic|{prefix}orders|Literal|User:{prefix}carol|*|DescribeConfigs|Allow"]
    changed["quotas"][f"{prefix}alice"] = {"producer_byte_rate": 2097152.0}
    del changed["quotas"][f"{prefix}alice/app"]
    changed["users"][f"{prefix}alice"]["iterations"] = 16384
    del changed["users"][f"{prefix}bob"]
    assert applied(guarded, changed) == [
        f"partitions of {prefix}orders from 3 to 5",
        f"configs of {prefix}orders: cleanup.policy,max.message.bytes,retention.ms",
        f"delete topic {prefix}plain",
        f"create acl Topic|{prefix}orders|Literal|User:{prefix}carol|*|DescribeConfigs|Allow",
        f"delete acl {want['acls'][0]}",
        f"quota of {prefix}alice: producer_byte_rate=2.097152e+06 remove=false",
        f"quota of {prefix}alice: request_percentage=0 remove=true",
        f"quota of {prefix}alice/app: consumer_byte_rate=0 remove=true",
        f"user {prefix}alice: 16384 iterations",
        f"delete user {prefix}bob",
    ]
    assert applied(guarded, changed) == []

    nothing = {"prefix": prefix, "topics": {}, "acls": [], "quotas": {}, "users": {}}
    steps = applied(guarded, nothing)
    assert len(steps) == 1 + 5 + 2 + 1, steps
    assert applied(guarded, nothing) == []
