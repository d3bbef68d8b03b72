//! What a partition answers to readers: Fetch, ListOffsets, OffsetForLeaderEpoch, and its state for describe requests.

use std::sync::Arc;

use ottla_log::{LogError, ReadSlice};
use ottla_replica::follower::EpochEnd;
use ottla_replica::{FollowerView, Input};
use ottla_wire::error_code::ErrorCode;

use super::partition::{Partition, State, hint};
use super::waiter::Wakes;
use crate::metrics::PartitionTraffic;

/// What a consumer may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All that is committed in the sense of replication: up to the high watermark.
    ReadUncommitted,
    /// Only what no open transaction may still abort: up to the last stable offset.
    ReadCommitted,
}

/// A follower that fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchingReplica {
    /// Its id.
    pub broker_id: i32,
    /// Its broker epoch; -1: it did not say.
    pub broker_epoch: i64,
}

/// A fetch of one partition.
#[derive(Debug, Clone, Copy)]
pub struct FetchPartition {
    /// First offset wanted.
    pub offset: i64,
    /// Of records.
    pub bytes_max: usize,
    /// The leader epoch that the reader knows; -1: none.
    pub current_leader_epoch: i32,
    /// Epoch of the reader's last record; -1: none.
    pub last_fetched_epoch: i32,
    /// First offset of a follower's log.
    pub log_start_offset: i64,
    /// For consumers.
    pub isolation: Isolation,
    /// None: a consumer.
    pub replica: Option<FetchingReplica>,
    /// Whether the image has that follower registered with this epoch, not fenced and not shutting down.
    pub is_eligible: bool,
    /// Whether a follower may answer (KIP-392).
    pub allow_follower: bool,
    /// A nearer replica that the consumer is to be sent to (KIP-392); -1: none.
    pub preferred_read_replica: i32,
    /// Give the first batch even if it is larger than `bytes_max`: otherwise a large batch stops its readers for ever.
    pub at_least_one_batch: bool,
}

/// The answer for one partition. Offsets are -1 with an error.
#[derive(Debug)]
pub struct FetchResult {
    /// Kafka's error.
    pub error: ErrorCode,
    /// First offset that is not committed.
    pub high_watermark: i64,
    /// First offset that an open transaction holds back, at most the high watermark.
    pub last_stable_offset: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// With read committed: aborted transactions within the slice, as (producer id, first offset).
    pub aborted: Option<Vec<(i64, i64)>>,
    /// Where the records lie; none: there are none.
    pub slice: Option<ReadSlice>,
    /// Counts those bytes once they are on their way to a consumer.
    pub traffic: Option<Arc<PartitionTraffic>>,
    /// The reader's history is not the leader's (epoch, end offset): it truncates and asks again.
    pub diverging: Option<(i32, i64)>,
    /// -1: read here.
    pub preferred_read_replica: i32,
    /// The throttle of replication holds its records back: it is to be looked at again.
    pub is_throttled: bool,
    /// With an error about leadership: the leader and its epoch, -1 where not known.
    pub current_leader: Option<(i32, i32)>,
}

impl FetchResult {
    /// An error without more.
    pub fn refused(error: ErrorCode) -> Self {
        Self {
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted: None,
            slice: None,
            traffic: None,
            diverging: None,
            preferred_read_replica: -1,
            is_throttled: false,
            current_leader: None,
        }
    }
}

/// With this error Kafka tells a consumer nothing more. A follower starts over at the log's start.
fn out_of_range(fetch: &FetchPartition, bounds: &FetchResult) -> FetchResult {
    let log_start_offset = if fetch.replica.is_some() { bounds.log_start_offset } else { -1 };
    FetchResult { log_start_offset, ..FetchResult::refused(ErrorCode::OffsetOutOfRange) }
}

/// What ListOffsets asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The next offset that the reader may reach.
    Latest,
    /// The first offset.
    Earliest,
    /// The record with the greatest time stamp.
    MaxTimestamp,
    /// The first record at or after a time, in milliseconds since 1970.
    AtOrAfter(i64),
}

/// A found offset. All -1: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The record's time stamp; -1 with latest and earliest.
    pub timestamp: i64,
    /// The offset.
    pub offset: i64,
    /// Leader epoch of the offset; -1: not known.
    pub leader_epoch: i32,
}

/// A partition for describe requests and metrics.
#[derive(Debug, Clone)]
pub struct PartitionView {
    /// First offset.
    pub log_start_offset: i64,
    /// Next offset.
    pub log_end_offset: i64,
    /// First offset that is not committed.
    pub high_watermark: i64,
    /// Bytes of all segments.
    pub size_bytes: u64,
    /// Whether this replica leads.
    pub is_leader: bool,
    /// Whether the replica has no log: its directory is offline.
    pub is_offline: bool,
    /// The leader epoch that it knows.
    pub leader_epoch: i32,
    /// The committed ISR; empty: not the leader.
    pub isr: Vec<i32>,
    /// Replicas; 0: not the leader.
    pub replica_count: usize,
    /// Fewer in the ISR than `min.insync.replicas`.
    pub is_under_min_isr: bool,
    /// Just as many in the ISR as `min.insync.replicas` wants.
    pub is_at_min_isr: bool,
    /// Where transactions that are not over begin, or the high watermark.
    pub last_stable_offset: i64,
    /// Producers with sequence numbers whose state the log keeps.
    pub producers: usize,
    /// What the leader knows of its followers.
    pub followers: Vec<FollowerView>,
    /// The log directory.
    pub log_dir: Arc<super::shared::LogDir>,
}

impl Partition {
    /// Reads for a consumer or a follower; a follower's fetch also says how far it is.
    pub fn fetch(&self, fetch: &FetchPartition) -> FetchResult {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        let result = self.fetch_locked(&mut state, fetch, &mut wakes);
        drop(state);
        wakes.run();
        let result = result.unwrap_or_else(|refused| *refused);
        // A follower is told where to start over; a consumer asks for that by itself.
        if result.error == ErrorCode::OffsetOutOfRange && fetch.replica.is_none() {
            return FetchResult::refused(ErrorCode::OffsetOutOfRange);
        }
        result
    }

    fn fetch_locked(
        &self,
        state: &mut State,
        fetch: &FetchPartition,
        wakes: &mut Wakes,
    ) -> Result<FetchResult, Box<FetchResult>> {
        self.check_reader(state, fetch.current_leader_epoch, fetch.replica.is_none() && fetch.allow_follower)
            .map_err(|error| {
                Box::new(FetchResult { current_leader: Some(hint(state)), ..FetchResult::refused(error) })
            })?;
        if let Some(replica) = fetch.replica
            && !state.machine.is_replica(replica.broker_id)
        {
            return Err(Box::new(FetchResult::refused(ErrorCode::UnknownLeaderEpoch)));
        }
        let is_doubtful = fetch.replica.is_none() && self.may_be_replaced(state);
        let not_leader = || Box::new(FetchResult::refused(ErrorCode::NotLeaderOrFollower));
        let diverging = Self::divergence(state, fetch);
        if is_doubtful && !matches!(diverging, Ok(None)) {
            return Err(not_leader());
        }
        if let Some(diverging) = diverging? {
            let diverging = Some(diverging);
            return Ok(FetchResult { diverging, ..Self::offsets(state) });
        }
        let bounds = Self::offsets(state);
        let log_end = state.log.as_deref().map_or(0, ottla_log::Log::end_offset);
        let end = match (fetch.replica, fetch.isolation) {
            (Some(_), _) => log_end,
            (None, Isolation::ReadUncommitted) => bounds.high_watermark,
            (None, Isolation::ReadCommitted) => bounds.last_stable_offset,
        };
        // A consumer may ask for what is written and not yet committed: it waits, it is not out of range.
        if fetch.offset > log_end && is_doubtful {
            return Err(not_leader());
        }
        if fetch.offset < bounds.log_start_offset || fetch.offset > log_end {
            return Err(Box::new(out_of_range(fetch, &bounds)));
        }
        if let Some(replica) = fetch.replica {
            let input = Input::FollowerFetched {
                broker: replica.broker_id,
                broker_epoch: replica.broker_epoch,
                fetch_offset: fetch.offset,
                log_start: fetch.log_start_offset,
                eligible: fetch.is_eligible,
            };
            self.step(state, input, wakes);
            Self::release_low_watermark(state, wakes);
        }
        let mut result = Self::offsets(state);
        if fetch.preferred_read_replica >= 0 && fetch.replica.is_none() {
            result.preferred_read_replica = fetch.preferred_read_replica;
            return Ok(result);
        }
        if fetch.offset >= end || (fetch.bytes_max == 0 && !fetch.at_least_one_batch) {
            result.aborted = (fetch.isolation == Isolation::ReadCommitted).then(Vec::new);
            return Ok(result);
        }
        let is_throttled = fetch.replica.is_some_and(|replica| self.is_throttled(state, replica.broker_id));
        if !is_throttled {
            return self.read_slice(state, fetch, end, result, wakes);
        }
        let (throttle, now_ms) = (&self.shared.throttles.leader, self.shared.grant.clock().monotonic_ms());
        if throttle.is_exceeded(now_ms) {
            result.is_throttled = true;
            return Ok(result);
        }
        let fetch = FetchPartition { bytes_max: fetch.bytes_max.min(throttle.bytes_max(now_ms)), ..*fetch };
        let result = self.read_slice(state, &fetch, end, result, wakes)?;
        throttle.count(now_ms, result.slice.as_ref().map_or(0, |slice| slice.length as u64));
        Ok(result)
    }

    /// Whether what a follower is sent counts against the leader's throttle: only while it catches up (KIP-73).
    fn is_throttled(&self, state: &State, broker: i32) -> bool {
        self.rules().is_throttled_as_leader(self.index())
            && !state.machine.followers().any(|follower| follower.broker == broker && follower.in_isr)
    }

    /// The in-sync follower that has most of the log, of those that `is_near` and that have this offset (KIP-392); -1: none.
    pub fn nearest_follower(&self, offset: i64, is_near: impl Fn(i32) -> bool) -> i32 {
        let state = self.lock();
        if !state.machine.is_leader() {
            return -1;
        }
        let has_it = |view: &FollowerView| view.in_isr && view.log_end >= offset && view.log_start <= offset;
        let near = state.machine.followers().filter(|view| has_it(view) && is_near(view.broker));
        near.max_by_key(|view| (view.log_end, std::cmp::Reverse(view.broker))).map_or(-1, |view| view.broker)
    }

    fn read_slice(
        &self,
        state: &mut State,
        fetch: &FetchPartition,
        end: i64,
        mut result: FetchResult,
        wakes: &mut Wakes,
    ) -> Result<FetchResult, Box<FetchResult>> {
        let offline = || Box::new(FetchResult::refused(ErrorCode::KafkaStorageError));
        let log = state.log.as_ref().ok_or_else(offline)?;
        match log.read(fetch.offset, fetch.bytes_max, end, fetch.at_least_one_batch) {
            Ok(slice) => {
                if fetch.isolation == Isolation::ReadCommitted && fetch.replica.is_none() {
                    let aborted = log.aborted_transactions(fetch.offset, slice.next_offset_max.min(end));
                    result.aborted = Some(
                        aborted
                            .unwrap_or_default()
                            .iter()
                            .map(|one| (one.producer_id, one.first_offset))
                            .collect(),
                    );
                }
                result.traffic = (slice.length > 0).then(|| Arc::clone(&self.traffic));
                result.slice = (slice.length > 0).then_some(slice);
                Ok(result)
            }
            Err(LogError::OffsetOutOfRange { .. }) => Err(Box::new(out_of_range(fetch, &result))),
            Err(error) => {
                if error.is_fatal() {
                    self.broken(state, &error, wakes);
                }
                Err(Box::new(FetchResult::refused(error.code())))
            }
        }
    }

    /// Leadership and epoch, the same for all readers (KIP-320).
    fn check_reader(
        &self,
        state: &State,
        current_leader_epoch: i32,
        allow_follower: bool,
    ) -> Result<(), ErrorCode> {
        if state.log.is_none() {
            return Err(if self.is_deleted() {
                ErrorCode::UnknownTopicOrPartition
            } else {
                ErrorCode::KafkaStorageError
            });
        }
        if current_leader_epoch >= 0 {
            let known = state.machine.leader_epoch();
            if current_leader_epoch < known {
                return Err(ErrorCode::FencedLeaderEpoch);
            }
            if current_leader_epoch > known {
                return Err(ErrorCode::UnknownLeaderEpoch);
            }
        }
        let may_answer = state.machine.is_leader() || (allow_follower && state.machine.is_follower());
        if may_answer { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
    }

    /// A leader without a lease: what is committed here stays so and can be read, but another may have committed more. Nobody is told
    /// by it where the log ends: a consumer that has read further elsewhere would start over.
    fn may_be_replaced(&self, state: &State) -> bool {
        state.machine.is_leader() && !self.shared.grant.now().has_lease()
    }

    /// Where the reader's history parts from this log's, if it does.
    fn divergence(state: &State, fetch: &FetchPartition) -> Result<Option<(i32, i64)>, Box<FetchResult>> {
        if fetch.last_fetched_epoch < 0 {
            return Ok(None);
        }
        let Some(log) = &state.log else { return Ok(None) };
        let Some((epoch, end_offset)) = log.end_offset_for_epoch(fetch.last_fetched_epoch) else {
            // Nothing is known as far back as the reader's last record: it starts over at the log's start.
            return Err(Box::new(FetchResult { error: ErrorCode::OffsetOutOfRange, ..Self::offsets(state) }));
        };
        let diverges = epoch < fetch.last_fetched_epoch || end_offset < fetch.offset;
        Ok(diverges.then_some((epoch, end_offset)))
    }

    fn offsets(state: &State) -> FetchResult {
        let Some(log) = &state.log else { return FetchResult::refused(ErrorCode::KafkaStorageError) };
        let high_watermark = state.machine.high_watermark();
        FetchResult {
            high_watermark,
            last_stable_offset: log.last_stable_offset(high_watermark),
            log_start_offset: log.log_start_offset(),
            ..FetchResult::refused(ErrorCode::None)
        }
    }

    /// ListOffsets. `isolation` none: a follower, which sees the whole log.
    pub fn list_offset(
        &self,
        query: OffsetQuery,
        isolation: Option<Isolation>,
        current_leader_epoch: i32,
    ) -> Result<FoundOffset, ErrorCode> {
        let state = self.lock();
        self.check_reader(&state, current_leader_epoch, false)?;
        let log = state.log.as_ref().ok_or(ErrorCode::KafkaStorageError)?;
        let high_watermark = state.machine.high_watermark();
        let reachable = match isolation {
            None => log.end_offset(),
            Some(Isolation::ReadUncommitted) => high_watermark,
            Some(Isolation::ReadCommitted) => log.last_stable_offset(high_watermark),
        };
        // An earlier leader may have told a higher end: until this one has caught up with what it began with, it does not
        // know the end (KIP-207).
        let is_behind = isolation.is_some()
            && state.machine.leader_epoch_start_offset().is_some_and(|start| start > high_watermark);
        // Another may lead by now, and have told a higher end.
        let is_doubtful = isolation.is_some() && self.may_be_replaced(&state);
        match query {
            OffsetQuery::Latest if is_doubtful => Err(ErrorCode::NotLeaderOrFollower),
            OffsetQuery::Latest if is_behind => Err(ErrorCode::OffsetNotAvailable),
            OffsetQuery::Latest => {
                let leader_epoch = state.machine.leader_epoch();
                Ok(FoundOffset { timestamp: -1, offset: reachable, leader_epoch })
            }
            OffsetQuery::Earliest => {
                let offset = log.log_start_offset();
                Ok(FoundOffset {
                    timestamp: -1,
                    offset,
                    leader_epoch: log.epoch_for_offset(offset).unwrap_or(-1),
                })
            }
            OffsetQuery::MaxTimestamp | OffsetQuery::AtOrAfter(_) => {
                let found = match query {
                    OffsetQuery::AtOrAfter(timestamp) => log.offset_for_timestamp(timestamp),
                    _ => log.max_timestamp(),
                };
                let found = found.map_err(|error| error.code())?.map(|found| FoundOffset {
                    timestamp: found.timestamp,
                    offset: found.offset,
                    leader_epoch: found.leader_epoch,
                });
                match found {
                    Some(found) if found.offset < reachable => Ok(found),
                    _ if is_doubtful => Err(ErrorCode::NotLeaderOrFollower),
                    _ if is_behind => Err(ErrorCode::OffsetNotAvailable),
                    _ => Ok(FoundOffset { timestamp: -1, offset: -1, leader_epoch: -1 }),
                }
            }
        }
    }

    /// OffsetForLeaderEpoch: the largest epoch not above the one asked for and where it ends; none: not known. Of an epoch of which
    /// all records are gone the end is where the first one that is left begins: who has read up to there reads on.
    pub fn end_offset_for_leader_epoch(
        &self,
        leader_epoch: i32,
        current_leader_epoch: i32,
    ) -> Result<Option<EpochEnd>, ErrorCode> {
        let state = self.lock();
        self.check_reader(&state, current_leader_epoch, false)?;
        let log = state.log.as_ref().ok_or(ErrorCode::KafkaStorageError)?;
        let is_unknown = leader_epoch < 0 || leader_epoch > log.latest_epoch().unwrap_or(-1);
        let gone = || log.start_of_next_epoch(leader_epoch).map(|start| (leader_epoch, start));
        let found = if is_unknown { None } else { log.end_offset_for_epoch(leader_epoch).or_else(gone) };
        Ok(found.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset }))
    }

    /// A picture of the partition.
    pub fn view(&self) -> PartitionView {
        let state = self.lock();
        let log = state.log.as_deref();
        PartitionView {
            log_start_offset: log.map_or(-1, ottla_log::Log::log_start_offset),
            log_end_offset: log.map_or(-1, ottla_log::Log::end_offset),
            high_watermark: state.machine.high_watermark(),
            size_bytes: log.map_or(0, ottla_log::Log::size_bytes),
            is_leader: state.machine.is_leader(),
            is_offline: log.is_none(),
            leader_epoch: state.machine.leader_epoch(),
            isr: state.machine.isr().to_vec(),
            replica_count: state.machine.replica_count(),
            is_under_min_isr: state.machine.is_under_min_isr(),
            is_at_min_isr: state.machine.is_at_min_isr(),
            last_stable_offset: log.map_or(-1, |log| log.last_stable_offset(state.machine.high_watermark())),
            producers: log.map_or(0, |log| log.producers().len()),
            followers: state.machine.followers().collect(),
            log_dir: Arc::clone(&state.log_dir),
        }
    }

    /// What is committed lies below it.
    pub fn high_watermark(&self) -> i64 {
        self.lock().machine.high_watermark()
    }

    /// Reads committed batches of one's own partition, for coordinators that load their state: at most `bytes_max` from
    /// `offset` on, below the high watermark or, with `up_to_log_end`, all that there is.
    pub fn read_own(
        &self,
        offset: i64,
        bytes_max: usize,
        up_to_log_end: bool,
    ) -> Result<Option<ReadSlice>, ErrorCode> {
        let state = self.lock();
        let log = state.log.as_ref().ok_or(ErrorCode::KafkaStorageError)?;
        if !state.machine.is_leader() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let end = if up_to_log_end { log.end_offset() } else { state.machine.high_watermark() };
        let offset = offset.max(log.log_start_offset());
        if offset >= end {
            return Ok(None);
        }
        let slice = log.read(offset, bytes_max, end, true).map_err(|error| error.code())?;
        Ok((slice.length > 0).then_some(slice))
    }
}
