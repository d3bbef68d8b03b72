use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn key() -> ShareKey {
    ShareKey { group_id: Text::from("g"), topic_id: Uuid::from_u128(7), partition: 0 }
}

fn batch(first_offset: i64, last_offset: i64, delivery_state: i8, delivery_count: i16) -> StateBatch {
    StateBatch { first_offset, last_offset, delivery_state, delivery_count }
}

/// A machine and its log.
#[derive(Default)]
struct Log {
    states: ShareStates,
    records: Vec<CoordinatorRecord>,
}

impl Log {
    fn new(updates_per_snapshot: usize) -> Self {
        let config = ShareStateConfig { updates_per_snapshot, ..ShareStateConfig::default() };
        Self { states: ShareStates::new(config), records: Vec::new() }
    }

    fn append(&mut self, record: CoordinatorRecord) {
        let offset = i64::try_from(self.records.len()).unwrap();
        self.states.apply(offset, &record.key, record.value.as_ref()).unwrap();
        self.records.push(record);
    }

    fn run(&mut self, command: Command) -> Result<Option<ReadState>, ErrorCode> {
        let decision = self.states.decide(5, &key(), true, &command).map_err(|refusal| refusal.error)?;
        if let Some(record) = decision.record {
            self.append(record);
        }
        Ok(decision.read)
    }

    fn write(
        &mut self,
        leader_epoch: i32,
        start_offset: i64,
        batches: &[StateBatch],
    ) -> Result<(), ErrorCode> {
        let command = Command::Write {
            state_epoch: 0,
            leader_epoch,
            start_offset,
            delivery_complete_count: 1,
            batches: batches.to_vec(),
        };
        self.run(command).map(|_| ())
    }

    /// What a machine makes of the log from an offset on.
    fn replayed(&self, from: usize) -> ShareStates {
        let mut states = ShareStates::new(self.states.config);
        for (offset, record) in self.records.iter().enumerate().skip(from) {
            states.apply(i64::try_from(offset).unwrap(), &record.key, record.value.as_ref()).unwrap();
        }
        states
    }
}

#[test]
fn a_share_partition_is_initialised_read_written_and_deleted() {
    let mut log = Log::new(500);
    assert_eq!(log.run(Command::Read { leader_epoch: 0 }), Err(ErrorCode::InvalidRequest));
    assert_eq!(log.write(0, 0, &[]), Err(ErrorCode::InvalidRequest));
    assert_eq!(log.states.summary(&key()).start_offset, NO_START_OFFSET);
    log.run(Command::Initialize { state_epoch: 1, start_offset: NO_START_OFFSET }).unwrap();
    let read = log.run(Command::Read { leader_epoch: 3 }).unwrap().unwrap();
    assert_eq!((read.state_epoch, read.start_offset, read.batches), (1, NO_START_OFFSET, vec![]));
    let write = |leader_epoch, state_epoch| Command::Write {
        state_epoch,
        leader_epoch,
        start_offset: 5,
        delivery_complete_count: 2,
        batches: vec![batch(6, 7, 2, 1)],
    };
    assert_eq!(log.run(write(2, 1)), Err(ErrorCode::FencedLeaderEpoch));
    assert_eq!(log.run(write(3, 0)), Err(ErrorCode::FencedStateEpoch));
    assert_eq!(log.run(write(3, 1)), Ok(None));
    let summary = log.states.summary(&key());
    assert_eq!((summary.start_offset, summary.delivery_complete_count, summary.leader_epoch), (5, 2, 3));
    let read = log.run(Command::Read { leader_epoch: 4 }).unwrap().unwrap();
    assert_eq!(read.batches, [batch(6, 7, 2, 1)]);
    assert_eq!(log.run(Command::Read { leader_epoch: 3 }), Err(ErrorCode::FencedLeaderEpoch));
    // Initialised anew, the old leader's view is of no use.
    log.run(Command::Initialize { state_epoch: 2, start_offset: 1 }).unwrap();
    assert_eq!(log.run(write(4, 1)), Err(ErrorCode::FencedStateEpoch));
    assert_eq!(
        log.run(Command::Initialize { state_epoch: 1, start_offset: 1 }),
        Err(ErrorCode::FencedStateEpoch)
    );
    log.run(Command::Delete).unwrap();
    assert!(log.states.is_empty() && log.states.snapshots.is_empty());
    let appended = log.records.len();
    log.run(Command::Delete).unwrap();
    assert_eq!(log.records.len(), appended, "there was nothing to delete");
}

#[test]
fn nonsense_is_refused() {
    let log = Log::new(500);
    let code = |key: &ShareKey, is_partition, command| {
        log.states.decide(0, key, is_partition, &command).unwrap_err().error
    };
    let read = || Command::Read { leader_epoch: 0 };
    assert_eq!(code(&ShareKey { partition: -1, ..key() }, true, read()), ErrorCode::InvalidRequest);
    assert_eq!(code(&ShareKey { topic_id: Uuid::nil(), ..key() }, true, read()), ErrorCode::InvalidRequest);
    assert_eq!(
        code(&ShareKey { group_id: Text::default(), ..key() }, true, read()),
        ErrorCode::InvalidRequest
    );
    assert_eq!(code(&key(), false, read()), ErrorCode::UnknownTopicOrPartition);
    let mut log = Log::new(500);
    log.run(Command::Initialize { state_epoch: 0, start_offset: 0 }).unwrap();
    for broken in [batch(3, 2, 2, 1), batch(-1, 2, 2, 1), batch(0, i64::MAX, 2, 1)] {
        assert_eq!(log.write(0, 0, &[broken]), Err(ErrorCode::InvalidRequest));
    }
    assert!(log.states.apply(0, &Bytes::from_static(&[0]), None).is_err());
    assert!(matches!(log.states.apply(0, &Bytes::from_static(&[0, 9]), None), Ok(Applied::Skipped)));
}

#[test]
fn a_snapshot_comes_after_so_many_updates_and_lets_the_head_of_the_log_go() {
    let mut log = Log::new(2);
    log.run(Command::Initialize { state_epoch: 0, start_offset: 0 }).unwrap();
    for offset in 0..7 {
        log.write(0, 0, &[batch(offset * 2 + 1, offset * 2 + 1, 2, 1)]).unwrap();
    }
    // Snapshots at 0, 3 and 6.
    assert_eq!(log.states.get(&key()).unwrap().snapshot_epoch, 2);
    let head = log.states.redundant_before(99);
    assert_eq!(head, 6);
    let replayed = log.replayed(usize::try_from(head).unwrap());
    assert_eq!(replayed.states, log.states.states);
    assert_eq!(replayed.get(&key()).unwrap().batches.len(), 7);
    assert_eq!(ShareStates::default().redundant_before(99), 99);
}

#[test]
fn what_is_cold_gets_a_snapshot_and_what_is_gone_a_tombstone() {
    let mut log = Log::new(500);
    log.run(Command::Initialize { state_epoch: 0, start_offset: 3 }).unwrap();
    log.write(0, 4, &[batch(5, 5, 4, 1)]).unwrap();
    assert_eq!(log.states.maintain(1_000, 10, |_| true), []);
    let fresh = log.states.maintain(400_000, 10, |_| true);
    assert_eq!(fresh.len(), 1);
    log.append(fresh[0].clone());
    assert_eq!(log.states.redundant_before(99), 2);
    assert_eq!(log.replayed(2).get(&key()).unwrap().batches, [batch(5, 5, 4, 1)]);
    assert_eq!(log.states.maintain(400_001, 10, |_| true), []);
    let gone = log.states.maintain(400_001, 10, |_| false);
    log.append(gone[0].clone());
    assert!(log.states.is_empty());
}

#[test]
fn keys_are_printed_as_kafka_prints_them() {
    let topic_id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let key = ShareKey { group_id: Text::from("a:b"), topic_id, partition: 12 };
    assert_eq!(key.coordinator_key(), "a:b:ASNFZ4mrze8BI0VniavN7w:12");
    assert_eq!(ShareKey::parse(&key.coordinator_key()), Some(key));
    for broken in ["", "g", "g:t:0", ":ASNFZ4mrze8BI0VniavN7w:1", "g:ASNFZ4mrze8BI0VniavN7w:x"] {
        assert_eq!(ShareKey::parse(broken), None, "{broken}");
    }
}

proptest! {
    #[test]
    fn merging_is_offset_by_offset_the_later_one(
        earlier in proptest::collection::vec((0..30_i64, 0..6_i64, 0..3_i8), 0..8),
        later in proptest::collection::vec((0..30_i64, 0..6_i64, 0..3_i8), 0..8),
        start in 0..20_i64,
    ) {
        let made = |spec: &[(i64, i64, i8)]| -> Vec<StateBatch> {
            spec.iter().map(|(first, length, state)| batch(*first, first + length, *state, 1)).collect()
        };
        let (earlier, later) = (made(&earlier), made(&later));
        let merged = merge(&earlier, &later, start);
        for offset in 0..40 {
            let covers = |batch: &&StateBatch| (batch.first_offset..=batch.last_offset).contains(&offset);
            let wanted = earlier.iter().chain(&later).rfind(covers).filter(|_| offset >= start);
            let found: Vec<_> = merged.iter().filter(covers).collect();
            prop_assert!(found.len() <= 1);
            prop_assert_eq!(found.first().map(|b| b.delivery_state), wanted.map(|b| b.delivery_state));
        }
        prop_assert!(merged.windows(2).all(|two| two[0].last_offset < two[1].first_offset));
    }
}
