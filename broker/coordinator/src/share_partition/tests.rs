use std::collections::BTreeMap;

use ottla_wire::error_code::ErrorCode;
use proptest::prelude::*;

use super::*;

const LIMITS: ShareLimits = ShareLimits { delivery_count: 3, record_locks: 10, lock_duration_ms: 100 };

fn partition() -> SharePartition {
    SharePartition::restore(LIMITS, 0, &[]).unwrap()
}

fn batches(ranges: &[(i64, i64)]) -> Vec<FetchedBatch> {
    ranges.iter().map(|(first, last)| FetchedBatch { first: *first, last: *last, is_void: false }).collect()
}

fn wanted(records_max: i64) -> Wanted {
    Wanted { records_max, batch_size: 500, mode: AcquireMode::BatchOptimized }
}

fn acquire(
    partition: &mut SharePartition,
    now_ms: u64,
    member: &str,
    ranges: &[(i64, i64)],
) -> Vec<(i64, i64, i16)> {
    let from = partition.next_fetch_offset();
    let acquired = partition.acquire(now_ms, &Text::from(member), from, &batches(ranges), wanted(500));
    partition.check();
    acquired.into_iter().map(|part| (part.first, part.last, part.delivery_count)).collect()
}

fn say(
    partition: &mut SharePartition,
    now_ms: u64,
    member: &str,
    (first, last): (i64, i64),
    kind: AcknowledgeType,
) -> Result<Option<u64>, ErrorCode> {
    let said = partition.acknowledge(now_ms, member, &[Acknowledgement { first, last, types: vec![kind] }]);
    partition.check();
    said
}

fn save(partition: &mut SharePartition) -> StateWrite {
    let write = partition.begin_write().unwrap();
    partition.write_done(true);
    partition.check();
    write
}

fn batch(first_offset: i64, last_offset: i64, state: RecordState, delivery_count: i16) -> StateBatch {
    StateBatch { first_offset, last_offset, delivery_state: state.code(), delivery_count }
}

#[test]
fn accepted_records_move_the_start_offset_once_they_are_written() {
    let mut partition = partition();
    assert_eq!(acquire(&mut partition, 0, "a", &[(0, 4), (5, 9)]), [(0, 9, 1)]);
    assert_eq!(say(&mut partition, 1, "a", (3, 4), AcknowledgeType::Accept), Ok(Some(1)));
    let write = partition.begin_write().unwrap();
    assert_eq!((write.start_offset, write.delivery_complete_count), (0, 2));
    assert_eq!(write.batches, [batch(3, 4, RecordState::Acknowledged, 1)]);
    // What comes while a write is on its way goes with the next.
    assert_eq!(say(&mut partition, 1, "a", (0, 2), AcknowledgeType::Accept), Ok(Some(2)));
    assert_eq!(partition.begin_write(), None);
    partition.write_done(true);
    assert_eq!(partition.start_offset(), 0);
    let write = save(&mut partition);
    assert_eq!((write.number, write.start_offset, write.batches.len()), (2, 5, 0));
    assert_eq!((partition.start_offset(), partition.end_offset(), partition.unfinished()), (5, 10, 5));
    // Settled by now: to say it again is no fault.
    assert_eq!(say(&mut partition, 1, "a", (0, 4), AcknowledgeType::Accept), Ok(None));
}

#[test]
fn a_write_that_fails_leaves_the_records_with_the_member() {
    let mut partition = partition();
    acquire(&mut partition, 0, "a", &[(0, 3)]);
    say(&mut partition, 1, "a", (0, 3), AcknowledgeType::Accept).unwrap();
    partition.begin_write().unwrap();
    // Said already, and not known yet to count.
    assert_eq!(
        say(&mut partition, 2, "a", (0, 3), AcknowledgeType::Accept),
        Err(ErrorCode::InvalidRecordState)
    );
    assert!(!partition.expire_locks(200), "what is being written is not given to others");
    partition.write_done(false);
    assert!(say(&mut partition, 50, "a", (0, 1), AcknowledgeType::Accept).is_ok());
    partition.begin_write().unwrap();
    partition.write_done(false);
    assert!(partition.expire_locks(200));
    assert_eq!(acquire(&mut partition, 200, "b", &[(0, 3)]), [(0, 3, 2)]);
}

#[test]
fn released_records_go_to_the_next_member_until_they_were_delivered_too_often() {
    let mut partition = partition();
    for count in 1..=3 {
        assert_eq!(acquire(&mut partition, 0, "a", &[(0, 1)]), [(0, 1, count)]);
        say(&mut partition, 0, "a", (0, 1), AcknowledgeType::Release).unwrap();
        assert_eq!(partition.next_fetch_offset(), 2, "not before it is written");
        save(&mut partition);
    }
    assert_eq!((partition.start_offset(), partition.next_fetch_offset()), (2, 2));
}

#[test]
fn locks_run_out_and_renewing_keeps_them() {
    let mut partition = partition();
    acquire(&mut partition, 0, "a", &[(0, 1)]);
    assert_eq!(say(&mut partition, 90, "a", (1, 1), AcknowledgeType::Renew), Ok(None));
    assert_eq!(partition.next_expiry_ms(), Some(100));
    assert!(partition.expire_locks(100));
    assert_eq!(partition.next_expiry_ms(), Some(190));
    assert_eq!(partition.next_fetch_offset(), 0);
    assert_eq!(save(&mut partition).batches, [batch(0, 0, RecordState::Available, 1)]);
    assert_eq!(acquire(&mut partition, 110, "b", &[(0, 1)]), [(0, 0, 2)]);
    assert_eq!(
        say(&mut partition, 120, "a", (0, 0), AcknowledgeType::Accept),
        Err(ErrorCode::InvalidRecordState)
    );
    assert_eq!(
        say(&mut partition, 120, "a", (0, 1), AcknowledgeType::Accept),
        Err(ErrorCode::InvalidRecordState)
    );
    assert!(say(&mut partition, 120, "a", (1, 1), AcknowledgeType::Accept).is_ok());
    assert_eq!(
        say(&mut partition, 300, "b", (0, 0), AcknowledgeType::Accept),
        Err(ErrorCode::InvalidRecordState)
    );
}

#[test]
fn one_offset_that_is_not_held_refuses_all_that_is_said() {
    let mut partition = partition();
    acquire(&mut partition, 0, "a", &[(0, 1)]);
    acquire(&mut partition, 0, "b", &[(2, 3)]);
    for range in [(0, 2), (1, 9), (4, 4), (0, i64::MAX)] {
        assert_eq!(
            say(&mut partition, 0, "a", range, AcknowledgeType::Accept),
            Err(ErrorCode::InvalidRecordState)
        );
    }
    assert!(!partition.has_unsaved());
    let said =
        Acknowledgement { first: 0, last: 1, types: vec![AcknowledgeType::Reject, AcknowledgeType::Release] };
    assert!(partition.acknowledge(0, "a", &[said]).is_ok());
    let write = save(&mut partition);
    assert_eq!((write.start_offset, write.batches), (1, vec![batch(1, 1, RecordState::Available, 1)]));
}

#[test]
fn what_nobody_may_have_is_archived() {
    let mut partition = partition();
    let fetched = [
        FetchedBatch { first: 2, last: 3, is_void: false },
        FetchedBatch { first: 4, last: 4, is_void: true },
        FetchedBatch { first: 6, last: 6, is_void: false },
    ];
    let acquired = partition.acquire(0, &Text::from("a"), 0, &fetched, wanted(500));
    partition.check();
    assert_eq!((acquired.len(), acquired[0].first, acquired[0].last, acquired[1].first), (2, 2, 3, 6));
    assert_eq!(partition.start_offset(), 2);
    assert!(say(&mut partition, 0, "a", (2, 3), AcknowledgeType::Accept).is_ok());
    assert_eq!(save(&mut partition).start_offset, 6);
}

#[test]
fn as_many_as_asked_for_in_whole_batches_or_exactly() {
    let fetched = batches(&[(0, 2), (3, 5), (6, 8)]);
    let count = |mode| {
        let wanted = Wanted { records_max: 4, batch_size: 3, mode };
        let mut partition = partition();
        let acquired = partition.acquire(0, &Text::from("a"), 0, &fetched, wanted);
        partition.check();
        acquired.iter().map(|part| (part.first, part.last)).collect::<Vec<_>>()
    };
    assert_eq!(count(AcquireMode::BatchOptimized), [(0, 2), (3, 5)]);
    assert_eq!(count(AcquireMode::RecordLimit), [(0, 2), (3, 3)]);
}

#[test]
fn locks_are_limited_and_what_came_back_goes_first() {
    let mut partition = partition();
    assert_eq!(acquire(&mut partition, 0, "a", &[(0, 9), (10, 19)]), [(0, 9, 1)]);
    assert!(!partition.may_acquire());
    assert_eq!(acquire(&mut partition, 0, "b", &[(10, 19)]), []);
    partition.release_member("a");
    assert!(partition.may_acquire());
    assert_eq!(acquire(&mut partition, 0, "b", &[(0, 9), (10, 19)]), [(0, 9, 1)]);
}

#[test]
fn a_session_that_ends_gives_back_without_counting() {
    let mut partition = partition();
    acquire(&mut partition, 0, "a", &[(0, 1)]);
    acquire(&mut partition, 0, "b", &[(2, 2)]);
    say(&mut partition, 0, "a", (0, 0), AcknowledgeType::Accept).unwrap();
    assert!(partition.release_member("a"));
    assert!(!partition.release_member("a"));
    let write = save(&mut partition);
    assert_eq!((write.start_offset, write.batches), (1, vec![batch(1, 1, RecordState::Available, 0)]));
    assert_eq!(acquire(&mut partition, 0, "c", &[(1, 2)]), [(1, 1, 1)]);
}

#[test]
fn the_log_may_lose_its_head_and_its_tail() {
    let mut partition = partition();
    acquire(&mut partition, 0, "a", &[(0, 9)]);
    partition.log_starts_at(4);
    partition.check();
    assert_eq!((partition.start_offset(), partition.end_offset()), (4, 10));
    assert!(say(&mut partition, 0, "a", (0, 9), AcknowledgeType::Accept).is_ok());
    partition.log_starts_at(20);
    partition.check();
    partition.write_done(true);
    assert_eq!((partition.start_offset(), partition.next_fetch_offset()), (20, 20));
    let mut partition = partition_of(5, &[batch(7, 9, RecordState::Acknowledged, 1)]);
    partition.log_ends_at(8);
    partition.check();
    assert_eq!((partition.start_offset(), partition.end_offset()), (5, 8));
    partition.log_ends_at(3);
    partition.check();
    assert_eq!((partition.start_offset(), partition.end_offset()), (3, 3));
}

fn partition_of(start: i64, batches: &[StateBatch]) -> SharePartition {
    let partition = SharePartition::restore(LIMITS, start, batches).unwrap();
    partition.check();
    partition
}

#[test]
fn what_is_restored_has_no_holes() {
    let available = batch(7, 7, RecordState::Available, 2);
    let partition = partition_of(
        3,
        &[batch(9, 9, RecordState::Archived, 3), batch(0, 4, RecordState::Acknowledged, 1), available],
    );
    assert_eq!((partition.start_offset(), partition.end_offset(), partition.next_fetch_offset()), (5, 10, 5));
    let broken = |batches: &[StateBatch]| SharePartition::restore(LIMITS, 0, batches).is_err();
    assert!(broken(&[batch(0, 4, RecordState::Acquired, 1)]));
    assert!(broken(&[batch(4, 3, RecordState::Archived, 1)]));
    assert!(broken(&[batch(0, i64::MAX, RecordState::Archived, 1)]));
    assert!(broken(&[batch(0, 4, RecordState::Archived, 1), batch(4, 5, RecordState::Archived, 1)]));
}

/// What the world outside does.
#[derive(Debug, Clone)]
enum Act {
    Fetch { member: u8, records_max: i64, exact: bool },
    Say { member: u8, kind: u8, from: usize, count: usize },
    Save { succeeds: bool },
    Wait { ms: u64 },
    Leave { member: u8 },
    Lead,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..3_u8, 1..9_i64, any::<bool>()).prop_map(|(member, records_max, exact)| Act::Fetch { member, records_max, exact }),
        5 => (0..3_u8, 0..5_u8, 0..6_usize, 1..6_usize).prop_map(|(member, kind, from, count)| Act::Say { member, kind, from, count }),
        5 => any::<bool>().prop_map(|succeeds| Act::Save { succeeds }),
        2 => (1..80_u64).prop_map(|ms| Act::Wait { ms }),
        1 => (0..3_u8).prop_map(|member| Act::Leave { member }),
        1 => Just(Act::Lead),
    ];
    proptest::collection::vec(act, 1..120)
}

/// The log: batches of two, four and one records, with a hole and a control batch.
const LOG: [(i64, i64, bool); 8] = [
    (0, 1, false),
    (2, 5, false),
    (6, 6, false),
    (8, 9, false),
    (10, 10, true),
    (11, 14, false),
    (15, 15, false),
    (16, 29, false),
];

struct World {
    partition: SharePartition,
    now_ms: u64,
    /// Who has what, until when.
    held: BTreeMap<i64, (u8, u64)>,
    /// What was said finally, with the number of the write.
    said: BTreeMap<i64, u64>,
    finished: std::collections::BTreeSet<i64>,
    deliveries: BTreeMap<i64, i16>,
    /// What the share coordinator has.
    persisted: (i64, Vec<StateBatch>),
    in_flight: Option<StateWrite>,
}

fn is_record(offset: i64) -> bool {
    LOG.iter().any(|(first, last, void)| !void && (*first..=*last).contains(&offset))
}

impl World {
    fn new() -> Self {
        Self {
            partition: partition(),
            now_ms: 0,
            held: BTreeMap::new(),
            said: BTreeMap::new(),
            finished: std::collections::BTreeSet::new(),
            deliveries: BTreeMap::new(),
            persisted: (0, Vec::new()),
            in_flight: None,
        }
    }

    fn fetch(&mut self, member: u8, records_max: i64, exact: bool) -> i64 {
        let from = self.partition.next_fetch_offset();
        let fetched: Vec<FetchedBatch> = LOG
            .iter()
            .filter(|(_, last, _)| *last >= from)
            .map(|(first, last, is_void)| FetchedBatch { first: *first, last: *last, is_void: *is_void })
            .collect();
        let mode = if exact { AcquireMode::RecordLimit } else { AcquireMode::BatchOptimized };
        let wanted = Wanted { records_max, batch_size: 3, mode };
        self.expire();
        let name = Text::from(member.to_string());
        let acquired = self.partition.acquire(self.now_ms, &name, from, &fetched, wanted);
        let total: i64 = acquired.iter().map(|part| part.last - part.first + 1).sum();
        assert!(!exact || total <= records_max);
        for part in acquired {
            for offset in part.first..=part.last {
                assert!(is_record(offset), "{offset} is none");
                assert!(!self.finished.contains(&offset), "{offset} was settled");
                let former = self.held.insert(offset, (member, self.now_ms + LIMITS.lock_duration_ms));
                assert!(former.is_none(), "{offset} is held twice");
                let deliveries = self.deliveries.entry(offset).or_default();
                *deliveries = part.delivery_count;
                assert!(part.delivery_count <= LIMITS.delivery_count);
            }
        }
        total
    }

    fn expire(&mut self) {
        self.partition.expire_locks(self.now_ms);
        let (now_ms, said) = (self.now_ms, &self.said);
        self.held.retain(|offset, (_, until_ms)| *until_ms > now_ms || said.contains_key(offset));
    }

    fn say(&mut self, member: u8, kind: AcknowledgeType, from: usize, count: usize) {
        self.expire();
        let mine: Vec<i64> = self
            .held
            .iter()
            .filter(|(offset, (holder, _))| *holder == member && !self.said.contains_key(offset))
            .map(|(offset, _)| *offset)
            .skip(from)
            .take(count)
            .collect();
        let said: Vec<Acknowledgement> = mine
            .iter()
            .map(|offset| Acknowledgement { first: *offset, last: *offset, types: vec![kind] })
            .collect();
        let answer = self.partition.acknowledge(self.now_ms, &member.to_string(), &said);
        let number = answer.expect("held, so it may be said");
        for offset in mine {
            match number {
                Some(number) => {
                    self.said.insert(offset, number);
                }
                None => {
                    self.held.insert(offset, (member, self.now_ms + LIMITS.lock_duration_ms));
                }
            }
        }
    }

    fn save(&mut self, succeeds: bool) {
        let Some(write) = self.in_flight.take() else {
            self.in_flight = self.partition.begin_write();
            return;
        };
        if succeeds {
            self.persisted.1 =
                crate::share_state::merge(&self.persisted.1, &write.batches, write.start_offset);
            self.persisted.0 = write.start_offset;
        }
        self.partition.write_done(succeeds);
        let settled: Vec<i64> = self
            .said
            .iter()
            .filter(|(_, number)| **number <= write.number)
            .map(|(offset, _)| *offset)
            .collect();
        for offset in settled {
            self.said.remove(&offset);
            if !succeeds {
                continue;
            }
            self.held.remove(&offset);
            let state = self.partition.ranges.range(..=offset).next_back();
            let state = state.filter(|(_, range)| range.last >= offset).map(|(_, range)| range.state);
            if state.is_none_or(RecordState::is_final) {
                self.finished.insert(offset);
            }
        }
        self.expire();
    }

    /// Another leader has what was written.
    fn lead(&mut self) {
        self.in_flight = None;
        self.held.clear();
        self.said.clear();
        self.partition = SharePartition::restore(LIMITS, self.persisted.0, &self.persisted.1).unwrap();
    }

    fn check(&self) {
        self.partition.check();
        let unfinished = |offset: i64| {
            let found = self.partition.ranges.range(..=offset).next_back();
            found.is_some_and(|(_, range)| range.last >= offset && !range.state.is_final())
        };
        for offset in self.held.keys() {
            assert!(unfinished(*offset), "{offset} is held and yet settled");
            assert!(*offset >= self.partition.start_offset());
        }
        // What was written is never ahead of what was said.
        for offset in self.partition.start_offset()..self.partition.end_offset() {
            assert!(!(self.finished.contains(&offset) && unfinished(offset)), "{offset} came back");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_record_is_delivered_until_it_is_settled_and_to_one_member_at_a_time(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            match act {
                Act::Fetch { member, records_max, exact } => drop(world.fetch(member, records_max, exact)),
                Act::Say { member, kind, from, count } => {
                    let kind = AcknowledgeType::from_code(i8::try_from(kind).unwrap()).unwrap();
                    world.say(member, kind, from, count);
                }
                Act::Save { succeeds } => world.save(succeeds),
                Act::Wait { ms } => {
                    world.now_ms += ms;
                    world.expire();
                }
                Act::Leave { member } => {
                    world.partition.release_member(&member.to_string());
                    let said = &world.said;
                    world.held.retain(|offset, (holder, _)| *holder != member || said.contains_key(offset));
                }
                Act::Lead => world.lead(),
            }
            world.check();
        }
        // In the end a member that accepts everything gets to the end of the log.
        for _ in 0..200 {
            world.save(true);
            world.now_ms += 30;
            world.expire();
            world.fetch(9, 5, false);
            world.say(9, AcknowledgeType::Accept, 0, 30);
            world.save(true);
        }
        prop_assert_eq!(world.partition.start_offset(), 30);
        for offset in (0..30).filter(|offset| is_record(*offset)) {
            prop_assert!(world.deliveries.contains_key(&offset), "{offset} was never delivered");
        }
    }
}
