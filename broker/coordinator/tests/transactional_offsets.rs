//! Offsets of a transaction, from the transaction coordinator's decision to the group that reads them (KIP-98, KIP-447):
//! both machines by their public faces, with what a shell does in between.

#![allow(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use ottla_coordinator::group::{GroupConfig, GroupCoordinator, Now, RequestToken, TopicPartition};
use ottla_coordinator::partitioner::partition_for;
use ottla_coordinator::transaction::{
    AddPartitions, Command, Effects, EndTxn, InitProducerId, MarkerOutcome, ProducerReply, Reply,
    SendMarkers, TransactionConfig, TransactionCoordinator, TransactionState, TransactionVersion,
};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::persisted::{self, OffsetCommitKey, OffsetCommitValue};
use ottla_wire::text::Text;

const GROUP: &str = "readers";
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const OFFSETS_PARTITIONS: i32 = 50;
const NOW: Now = Now { monotonic_ms: 1, wall_ms: 1_000 };

/// The partition of the offsets topic that a producer adds for the group.
fn offsets_partition() -> TopicPartition {
    TopicPartition { topic: Text::from(OFFSETS_TOPIC), partition: partition_for(GROUP, OFFSETS_PARTITIONS) }
}

struct Cluster {
    transactions: TransactionCoordinator,
    transaction_log: Vec<(Bytes, Option<Bytes>)>,
    coordinator_epoch: i32,
    groups: GroupCoordinator,
    offsets_log_end: i64,
    markers: Vec<SendMarkers>,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            transactions: TransactionCoordinator::new(TransactionConfig::default()),
            transaction_log: Vec::new(),
            coordinator_epoch: 0,
            groups: GroupCoordinator::new(GroupConfig::default()),
            offsets_log_end: 0,
            markers: Vec::new(),
        };
        cluster.groups.lead(NOW, &mut ottla_coordinator::group::Effects::default());
        cluster.elect();
        cluster
    }

    /// A coordinator of transactions that knows the log only.
    fn elect(&mut self) {
        self.transactions = TransactionCoordinator::new(TransactionConfig::default());
        for (key, value) in &self.transaction_log {
            self.transactions.apply(key, value.as_ref()).unwrap();
        }
        let mut effects = Effects::default();
        self.coordinator_epoch += 1;
        self.transactions.lead(NOW, self.coordinator_epoch, &mut effects);
        self.execute(effects);
    }

    /// Everything is committed at once.
    fn execute(&mut self, mut effects: Effects) -> Vec<(RequestToken, Reply)> {
        let mut replies = Vec::new();
        loop {
            replies.append(&mut effects.replies);
            self.markers.append(&mut effects.markers);
            let appends = std::mem::take(&mut effects.appends);
            if appends.is_empty() {
                return replies;
            }
            for append in appends {
                for record in append.records {
                    self.transactions.apply(&record.key, record.value.as_ref()).unwrap();
                    self.transaction_log.push((record.key, record.value));
                }
                self.transactions.committed(NOW, append.ticket, &mut effects);
            }
        }
    }

    fn call(&mut self, command: &Command) -> Reply {
        let mut effects = Effects::default();
        self.transactions.step(NOW, RequestToken(1), command, &mut effects);
        let replies = self.execute(effects);
        assert_eq!(replies.len(), 1);
        replies[0].1
    }

    fn init(&mut self, id: &str, fresh: i64) -> ProducerReply {
        let command = Command::InitProducerId(InitProducerId {
            transactional_id: Text::from(id),
            timeout_ms: 1_000,
            producer_id: -1,
            producer_epoch: -1,
            enable_two_phase_commit: false,
            keep_prepared: false,
            fresh_producer_id: Some(fresh),
        });
        match self.call(&command) {
            Reply::InitProducerId(reply) if reply.error == ErrorCode::None => reply,
            other => panic!("{other:?}"),
        }
    }

    /// AddOffsetsToTxn, then the record that a TxnOffsetCommit writes.
    fn send_offset(&mut self, id: &str, producer: ProducerReply, offset: i64) {
        let command = Command::AddPartitions(AddPartitions {
            transactional_id: Text::from(id),
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            client_version: TransactionVersion::V2,
            partitions: vec![offsets_partition()],
            wait_ms_max: 0,
        });
        assert_eq!(self.call(&command), Reply::AddPartitions(ErrorCode::None));
        let key = OffsetCommitKey { group: Text::from(GROUP), topic: Text::from("t"), partition: 0 };
        let value = OffsetCommitValue { offset, leader_epoch: -1, ..Default::default() };
        let (key, value) =
            (persisted::encode_key(&key).unwrap(), persisted::encode_value(&value, 3).unwrap());
        let at = self.offsets_log_end;
        self.offsets_log_end += 1;
        self.groups.apply(at, Some(producer.producer_id), &key, Some(&value)).unwrap();
    }

    fn end(&mut self, id: &str, producer: ProducerReply, commit: bool) -> ProducerReply {
        let command = Command::EndTxn(EndTxn {
            transactional_id: Text::from(id),
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            commit,
            client_version: TransactionVersion::V2,
            fresh_producer_id: Some(999),
        });
        match self.call(&command) {
            Reply::EndTxn(reply) if reply.error == ErrorCode::None => reply,
            other => panic!("{other:?}"),
        }
    }

    /// The oldest markers get to the leader of the offsets partition, which applies them before it answers.
    fn write_markers(&mut self) {
        let sent = self.markers.remove(0);
        assert_eq!(sent.partitions, [offsets_partition()]);
        self.groups.apply_marker(self.offsets_log_end, sent.producer_id, sent.commit);
        let outcomes = [(offsets_partition(), MarkerOutcome::Answered(ErrorCode::None))];
        let mut effects = Effects::default();
        self.transactions.markers_answered(NOW, sent.token, &outcomes, &mut effects);
        self.execute(effects);
    }

    fn fetch(&self, require_stable: bool) -> (i64, ErrorCode) {
        let asked = [(Text::from("t"), vec![0])];
        let found = self.groups.fetch_offsets(&Text::from(GROUP), Some(&asked), require_stable).unwrap();
        (found[0].partitions[0].offset, found[0].partitions[0].error)
    }

    fn state(&self, id: &str) -> TransactionState {
        self.transactions.describe(id).unwrap().state
    }
}

const UNSTABLE: (i64, ErrorCode) = (-1, ErrorCode::UnstableOffsetCommit);

#[test]
fn i58_offsets_count_when_the_marker_is_there_not_when_the_end_is_decided() {
    for commit in [true, false] {
        let mut cluster = Cluster::new();
        let producer = cluster.init("x", 7);
        cluster.send_offset("x", producer, 5);
        assert_eq!((cluster.fetch(false), cluster.fetch(true)), ((-1, ErrorCode::None), UNSTABLE));
        cluster.end("x", producer, commit);
        assert_eq!((cluster.fetch(false), cluster.fetch(true)), ((-1, ErrorCode::None), UNSTABLE));
        cluster.write_markers();
        assert_eq!(cluster.fetch(true), (if commit { 5 } else { -1 }, ErrorCode::None));
        assert!(matches!(
            cluster.state("x"),
            TransactionState::CompleteCommit | TransactionState::CompleteAbort
        ));
    }
}

#[test]
fn i62_a_successor_ends_what_was_decided_and_a_second_marker_changes_nothing() {
    let mut cluster = Cluster::new();
    let producer = cluster.init("x", 7);
    cluster.send_offset("x", producer, 5);
    let next = cluster.end("x", producer, true);
    cluster.elect();
    assert_eq!(
        cluster.markers.len(),
        2,
        "those of the coordinator that died still arrive, and their answers find it gone"
    );
    cluster.write_markers();
    assert_eq!(
        (cluster.fetch(true), cluster.state("x")),
        ((5, ErrorCode::None), TransactionState::PrepareCommit)
    );
    cluster.write_markers();
    assert_eq!(
        (cluster.fetch(true), cluster.state("x")),
        ((5, ErrorCode::None), TransactionState::CompleteCommit)
    );
    cluster.send_offset("x", next, 9);
    cluster.end("x", next, false);
    cluster.write_markers();
    assert_eq!(cluster.fetch(true), (5, ErrorCode::None));
}

#[test]
fn two_producers_of_one_group_end_apart() {
    let mut cluster = Cluster::new();
    let (first, second) = (cluster.init("x", 7), cluster.init("y", 8));
    cluster.send_offset("x", first, 5);
    cluster.send_offset("y", second, 6);
    cluster.end("x", first, true);
    cluster.write_markers();
    assert_eq!(
        (cluster.fetch(false), cluster.fetch(true)),
        ((5, ErrorCode::None), UNSTABLE),
        "the other is open"
    );
    cluster.end("y", second, false);
    cluster.write_markers();
    assert_eq!(cluster.fetch(true), (5, ErrorCode::None));
}
