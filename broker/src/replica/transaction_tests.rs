//! What a partition lets in of transactions, and what their markers do.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_coordinator::transaction::verification::VerificationGuard;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::records::{BatchBuilder, BatchOptions};

use super::read::FetchPartition;
use super::test_images::{TOPIC, image};
use super::*;

const PRODUCER: i64 = 7;

struct Node {
    partition: Arc<Partition>,
    manager: Arc<ReplicaManager>,
    _dir: tempfile::TempDir,
}

/// Broker 1, alone in the ISR of a partition that it leads.
fn node() -> Node {
    node_in_sync_with(&[1])
}

/// Broker 1, which leads a partition with this ISR.
fn node_in_sync_with(isr: &[i32]) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let grant = Arc::new(Grant::new());
    grant.renew_lease(u64::MAX);
    let options = ReplicaOptions::new(1, vec![dir.path().to_owned()]);
    let manager = ReplicaManager::open(options, Arc::new(BTreeMap::new()), grant).unwrap();
    manager.apply_image(&image(1, 1, 1, (5, 0), isr), None);
    Node { partition: manager.by_name(TOPIC, 0).unwrap(), manager, _dir: dir }
}

fn batch(epoch: i16, sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: PRODUCER,
        producer_epoch: epoch,
        base_sequence: sequence,
        transactional: true,
        ..Default::default()
    });
    builder.add(Clock::wall_ms(), None, Some(b"value"), &[]).unwrap();
    builder.finish().unwrap()
}

fn marker(epoch: i16, commit: bool, raises_epoch: bool) -> EndMarker {
    EndMarker { producer_id: PRODUCER, producer_epoch: epoch, commit, coordinator_epoch: 3, raises_epoch }
}

impl Node {
    fn ask(&self, epoch: i16, sequence: Option<i32>) -> VerificationGuard {
        match self.partition.transaction_standing(PRODUCER, epoch, sequence, 1).unwrap() {
            Standing::Ask(guard) => guard,
            Standing::Open => panic!("nothing is asked"),
        }
    }

    fn append(&self, epoch: i16, sequence: i32, guard: Option<VerificationGuard>) -> Result<i64, ErrorCode> {
        let appended =
            self.partition.append_of_version(batch(epoch, sequence), -1, 12, guard, Clock::wall_ms());
        appended.map(|appended| appended.base_offset).map_err(|refusal| refusal.code)
    }

    fn end(&self, marker: EndMarker) -> Result<i64, ErrorCode> {
        let appended = self.partition.append_marker(marker, Clock::wall_ms());
        appended.map(|appended| appended.base_offset).map_err(|refusal| refusal.code)
    }

    /// The follower asks for what is behind this offset: it has what is before.
    fn fetched_by_2(&self, offset: i64) {
        self.partition.fetch(&FetchPartition {
            offset,
            bytes_max: 1 << 20,
            current_leader_epoch: 5,
            last_fetched_epoch: 5,
            log_start_offset: 0,
            isolation: Isolation::ReadUncommitted,
            replica: Some(FetchingReplica { broker_id: 2, broker_epoch: 20 }),
            is_eligible: true,
            allow_follower: false,
            preferred_read_replica: -1,
            at_least_one_batch: true,
        });
    }

    fn stable_end(&self) -> i64 {
        let found = self.partition.list_offset(OffsetQuery::Latest, Some(Isolation::ReadCommitted), -1);
        found.unwrap().offset
    }
}

#[test]
fn the_first_record_of_a_transaction_needs_the_coordinators_word() {
    let node = node();
    assert_eq!(node.append(0, 0, None), Err(ErrorCode::InvalidTxnState));
    let guard = node.ask(0, Some(0));
    assert_eq!(node.append(0, 0, Some(guard)), Ok(0));
    assert_eq!(node.partition.transaction_standing(PRODUCER, 0, Some(1), 1).unwrap(), Standing::Open);
    assert_eq!(node.append(0, 1, None), Ok(1));
    assert_eq!(node.stable_end(), 0);
    assert_eq!(node.end(marker(0, true, false)), Ok(2));
    assert_eq!(node.stable_end(), 3);
    assert_eq!(node.append(0, 2, None), Err(ErrorCode::InvalidTxnState), "the transaction is over");
}

/// I61: the coordinator said yes, then the transaction ended, then the record came.
#[test]
fn a_marker_voids_the_answers_that_came_before_it() {
    let node = node();
    let guard = node.ask(0, Some(0));
    assert_eq!(node.end(marker(0, false, false)), Ok(0));
    assert!(!node.partition.is_verified(PRODUCER, guard) && !node.partition.confirm(PRODUCER, 0, guard));
    assert_eq!(node.append(0, 0, Some(guard)), Err(ErrorCode::InvalidTxnState));
    assert_eq!(node.stable_end(), 1, "nothing is left open");
}

#[test]
fn an_end_of_version_2_keeps_what_is_late_out_of_the_next_transaction() {
    let node = node();
    let guard = node.ask(0, None);
    assert_eq!(node.append(0, 0, Some(guard)), Ok(0));
    assert_eq!(node.end(marker(1, true, true)), Ok(1));
    assert_eq!(node.append(0, 1, None), Err(ErrorCode::InvalidProducerEpoch));
    let guard = node.ask(1, None);
    assert_eq!(node.append(1, 1, Some(guard)), Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(node.append(1, 0, Some(guard)), Ok(2));
    assert_eq!(node.end(marker(1, true, true)), Err(ErrorCode::InvalidProducerEpoch), "sent once more, late");
    assert_eq!(node.stable_end(), 2);
    let old = EndMarker { coordinator_epoch: 2, ..marker(2, true, true) };
    assert_eq!(node.end(old), Err(ErrorCode::TransactionCoordinatorFenced));
    assert_eq!(node.end(marker(2, true, true)), Ok(3));
    let known = node.partition.active_producers().unwrap();
    assert_eq!((known.len(), known[0].producer_epoch, known[0].transaction_start_offset), (1, 2, -1));
}

/// The coordinator gave up waiting and sent its marker again. It is there, but if this leader is deposed now it is not: who
/// takes the refusal for the end of the transaction leaves it open for ever.
#[test]
fn a_marker_that_is_there_already_counts_only_when_it_is_committed() {
    let node = node_in_sync_with(&[1, 2]);
    let guard = node.ask(0, None);
    assert_eq!(node.append(0, 0, Some(guard)), Ok(0));
    assert_eq!(node.end(marker(1, true, true)), Ok(1));
    let refused = node.partition.append_marker(marker(1, true, true), Clock::wall_ms()).unwrap_err();
    let known = refused.known.unwrap();
    assert_eq!((refused.code, known.last_offset), (ErrorCode::InvalidProducerEpoch, 1));
    assert_eq!(node.partition.ack_result(&known), AckState::Pending);
    node.fetched_by_2(1);
    assert_eq!(node.partition.ack_result(&known), AckState::Pending);
    node.fetched_by_2(2);
    assert_eq!(node.partition.ack_result(&known), AckState::Done);
    node.manager.apply_image(&image(1, 1, 2, (6, 1), &[1, 2]), None);
    assert!(matches!(node.partition.ack_result(&known), AckState::Failed(_)));
}

#[test]
fn a_later_batch_does_not_overtake_an_earlier_one_that_is_being_verified() {
    let node = node();
    let first = node.ask(0, Some(0));
    let second = node.ask(0, Some(1));
    assert_eq!(node.append(0, 1, Some(second)), Err(ErrorCode::OutOfOrderSequenceNumber));
    assert_eq!(node.append(0, 0, Some(first)), Ok(0));
    assert_eq!(node.append(0, 1, Some(second)), Ok(1));
}
