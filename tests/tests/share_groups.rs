//! Share groups (KIP-932) of raw members on real `ottla server` processes that are killed between their steps.

#![allow(clippy::unwrap_used, reason = "a step that fails is a failed test")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ottla_tests::{Cluster, Connection, eventually};
use ottla_wire::messages::{
    FindCoordinatorRequest, ShareAcknowledgeRequest, ShareFetchRequest, ShareFetchResponse,
    ShareGroupHeartbeatRequest, share_acknowledge_request, share_fetch_request,
};
use uuid::Uuid;

/// A cluster may take this long to be over a kill.
const PATIENCE: Duration = Duration::from_secs(60);
const RECORDS: i64 = 60;
const SETTINGS: [(&str, &str); 7] = [
    ("share.coordinator.state.topic.num.partitions", "3"),
    ("share.coordinator.state.topic.replication.factor", "3"),
    ("share.coordinator.state.topic.min.isr", "2"),
    ("group.share.min.record.lock.duration.ms", "1000"),
    ("group.share.record.lock.duration.ms", "4000"),
    ("group.share.min.heartbeat.interval.ms", "100"),
    ("group.share.heartbeat.interval.ms", "200"),
];
const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;

/// A connection; share sessions live as long as theirs.
fn connect(address: &str) -> Result<Connection> {
    Connection::open(address, Duration::from_secs(10))
}

/// Where a node listens, from any node that answers.
fn coordinator(cluster: &mut Cluster, group: &str) -> Result<Option<String>> {
    for id in 1..=3 {
        let address = cluster.node(id)?.kafka();
        let request = FindCoordinatorRequest { key: group.into(), ..Default::default() };
        let found = connect(&address).and_then(|mut connection| connection.call(3, &request));
        if let Ok(found) = found
            && found.error_code == 0
        {
            return Ok(Some(format!("{}:{}", found.host, found.port)));
        }
    }
    Ok(None)
}

/// Joins, and waits until the member is given the one partition; gives the topic's id.
fn join(cluster: &mut Cluster, group: &str, member: &str, topic: &str) -> Result<Uuid> {
    let mut epoch = 0;
    eventually(PATIENCE, "the member is given its partition", || {
        let Some(address) = coordinator(cluster, group)? else { return Ok(None) };
        let request = ShareGroupHeartbeatRequest {
            group_id: group.into(),
            member_id: member.into(),
            member_epoch: epoch,
            subscribed_topic_names: (epoch == 0).then(|| vec![topic.into()]),
            ..Default::default()
        };
        let Ok(answer) = connect(&address)?.call(1, &request) else { return Ok(None) };
        if answer.error_code != 0 {
            return Ok(None);
        }
        epoch = answer.member_epoch;
        let topics = answer.assignment.map(|assignment| assignment.topic_partitions).unwrap_or_default();
        Ok(topics.first().map(|topic| topic.topic_id))
    })
}

/// A member with a session at the partition's leader.
struct Member {
    connection: Connection,
    group: &'static str,
    id: &'static str,
    topic: Uuid,
    epoch: i32,
}

impl Member {
    fn at_leader(
        cluster: &mut Cluster,
        group: &'static str,
        id: &'static str,
        (name, topic): (&str, Uuid),
    ) -> Result<Self> {
        let leader = cluster.leader(name, 0)?;
        let connection = connect(&cluster.node(leader)?.kafka())?;
        Ok(Self { connection, group, id, topic, epoch: 0 })
    }

    fn fetch(&mut self) -> Result<ShareFetchResponse> {
        let partitions = vec![share_fetch_request::Partition::default()];
        let topics = vec![share_fetch_request::Topic { topic_id: self.topic, partitions }];
        let request = ShareFetchRequest {
            group_id: Some(self.group.into()),
            member_id: Some(self.id.into()),
            share_session_epoch: self.epoch,
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_records: 7,
            batch_size: 7,
            share_acquire_mode: 1,
            topics: if self.epoch == 0 { topics } else { Vec::new() },
            ..Default::default()
        };
        let answer = self.connection.call(2, &request)?;
        if answer.error_code == 0 {
            self.epoch += 1;
        }
        Ok(answer)
    }

    /// What it is given: first and last offset, and how often that was.
    fn acquire(&mut self) -> Result<Vec<(i64, i64, i16)>> {
        let answer = self.fetch()?;
        ensure!(answer.error_code == 0, "refused with {}", answer.error_code);
        let mut acquired = Vec::new();
        for partition in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            ensure!(partition.error_code == 0, "the partition says {}", partition.error_code);
            let each = partition.acquired_records.iter();
            acquired.extend(each.map(|part| (part.first_offset, part.last_offset, part.delivery_count)));
        }
        Ok(acquired)
    }

    fn say(&mut self, first_offset: i64, last_offset: i64, kind: i8) -> Result<i16> {
        let batch = share_acknowledge_request::AcknowledgementBatch {
            first_offset,
            last_offset,
            acknowledge_types: vec![kind],
        };
        let partition =
            share_acknowledge_request::Partition { partition_index: 0, acknowledgement_batches: vec![batch] };
        let request = ShareAcknowledgeRequest {
            group_id: Some(self.group.into()),
            member_id: Some(self.id.into()),
            share_session_epoch: self.epoch,
            topics: vec![share_acknowledge_request::Topic {
                topic_id: self.topic,
                partitions: vec![partition],
            }],
            ..Default::default()
        };
        let answer = self.connection.call(2, &request)?;
        if answer.error_code != 0 {
            return Ok(answer.error_code);
        }
        self.epoch += 1;
        let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
        match partitions.next() {
            Some(partition) => Ok(partition.error_code),
            None => bail!("no partition in the answer"),
        }
    }
}

fn started(topic: &str, group: &str) -> Result<Cluster> {
    let cluster = Cluster::start(3, &SETTINGS)?;
    cluster.create_topic(topic, 1, 3, &["min.insync.replicas=2"])?;
    cluster.ottla(&["config", "set", "--group", group, "share.auto.offset.reset=earliest"])?.ok()?;
    let numbers: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    let lines = numbers.join("\n") + "\n";
    cluster.ottla_with_input(&["produce", topic, "-"], lines.as_bytes())?.ok()?;
    Ok(cluster)
}

#[test]
fn each_record_is_finished_once_though_its_leader_is_killed() {
    let (topic, group) = ("work", "workers");
    let mut cluster = started(topic, group).unwrap();
    let id = join(&mut cluster, group, "a", topic).unwrap();
    let mut finished: BTreeMap<i64, u32> = BTreeMap::new();
    let mut kills = 2;
    let mut rounds = 0;
    let mut member = None;
    eventually(PATIENCE * 3, "every record is finished", || {
        if member.is_none() {
            member = Member::at_leader(&mut cluster, group, "a", (topic, id)).ok();
        }
        let Some(reader) = &mut member else { return Ok(None) };
        let Ok(acquired) = reader.acquire() else {
            member = None;
            return Ok(None);
        };
        rounds += 1;
        for (first, last, _) in acquired {
            // Every third time somebody is to try again.
            let kind = if rounds % 3 == 0 { RELEASE } else { ACCEPT };
            match reader.say(first, last, kind) {
                Ok(0) if kind == ACCEPT => {
                    for offset in first..=last {
                        *finished.entry(offset).or_default() += 1;
                    }
                }
                Ok(0) => {}
                _ => {
                    member = None;
                    break;
                }
            }
        }
        if kills > 0 && i64::try_from(finished.len())? > RECORDS / 3 * (3 - kills) {
            let leader = cluster.leader(topic, 0)?;
            cluster.node(leader)?.kill()?;
            cluster.node(leader)?.start()?;
            kills -= 1;
            member = None;
        }
        Ok((i64::try_from(finished.len())? == RECORDS).then_some(()))
    })
    .unwrap();
    assert_eq!(kills, 0);
    assert!(finished.values().all(|times| *times == 1), "what is finished is not given again: {finished:?}");
    let described = cluster.ottla(&["group", "describe", group, "--output", "json"]).unwrap().json().unwrap();
    let described = &described["groups"][0];
    assert_eq!((&described["type"], &described["lag"]), (&"share".into(), &0.into()));
    assert_eq!(described["partitions"][0]["offset"], RECORDS);
}

#[test]
fn two_members_share_a_partition_and_what_one_leaves_goes_to_the_other() {
    let (topic, group) = ("shared", "sharers");
    let mut cluster = started(topic, group).unwrap();
    let id = join(&mut cluster, group, "a", topic).unwrap();
    join(&mut cluster, group, "b", topic).unwrap();
    let of = (topic, id);
    let mut a = Member::at_leader(&mut cluster, group, "a", of).unwrap();
    let first = eventually(PATIENCE, "records are given", || {
        Ok(Some(a.acquire()?).filter(|acquired| !acquired.is_empty()))
    })
    .unwrap();
    assert_eq!(first, [(0, 6, 1)]);
    let mut b = Member::at_leader(&mut cluster, group, "b", of).unwrap();
    let second = b.acquire().unwrap();
    assert_eq!(second, [(7, 13, 1)], "what a has, b is not given");
    assert_eq!(b.say(0, 6, ACCEPT).unwrap(), 121, "INVALID_RECORD_STATE: a has them");
    assert_eq!(a.say(0, 1, ACCEPT).unwrap(), 0);
    assert_eq!(a.say(2, 3, RELEASE).unwrap(), 0);
    assert_eq!(b.acquire().unwrap().first(), Some(&(2, 3, 2)), "released: delivered again");
    // The connection breaks: what a had and did not process was never delivered.
    drop(a);
    let left = eventually(PATIENCE, "what a had is given to b", || {
        let acquired = b.acquire()?;
        Ok(acquired.iter().any(|part| (part.0, part.1) == (4, 6)).then_some(acquired))
    })
    .unwrap();
    assert!(left.contains(&(4, 6, 1)), "{left:?}");
    // Locks run out; a session that has gone wrong is told so.
    let again = eventually(PATIENCE, "locks run out", || {
        let acquired = b.acquire()?;
        Ok(acquired.iter().find(|part| part.0 == 7).copied())
    })
    .unwrap();
    assert_eq!(again.2, 2);
    b.epoch += 5;
    assert_eq!(b.fetch().unwrap().error_code, 123, "INVALID_SHARE_SESSION_EPOCH");
}
