//! A partition as a follower: appends what its leader sent, truncates where histories part, starts over when it is out of
//! the leader's range. Called by the fetcher of the leader's broker.

use bytes::Bytes;
use ottla_replica::Input;
use ottla_replica::follower::{EpochEnd, truncation_offset};

use super::partition::{Partition, State};
use super::waiter::Wakes;

/// Where a follower fetches next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPosition {
    /// Next offset of the log. With `flush.messages=1` all before it is on disk.
    pub offset: i64,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// Epoch of the last record; -1: none.
    pub last_fetched_epoch: i32,
    /// The epoch to fetch under.
    pub leader_epoch: i32,
}

/// Why an answer was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The replica does not follow in this epoch any more: drop the answer.
    #[error("the partition does not follow leader epoch {0} any more")]
    Outdated(i32),
    /// The replica has no log.
    #[error("the partition is offline")]
    Offline,
    /// The records are not well formed, or do not continue the log, or there is no room: try again later.
    #[error("the leader's records were not appended: {0}")]
    Refused(String),
}

impl Partition {
    /// Where to fetch next.
    pub fn fetch_position(&self, leader_epoch: i32) -> Result<FetchPosition, FollowError> {
        let state = self.lock();
        let log = Self::following(&state, leader_epoch)?;
        Ok(FetchPosition {
            offset: log.end_offset(),
            log_start_offset: log.log_start_offset(),
            last_fetched_epoch: log.latest_epoch().unwrap_or(-1),
            leader_epoch,
        })
    }

    fn following(state: &State, leader_epoch: i32) -> Result<&ottla_log::Log, FollowError> {
        if !state.machine.is_follower() || state.machine.leader_epoch() != leader_epoch {
            return Err(FollowError::Outdated(leader_epoch));
        }
        state.log.as_deref().ok_or(FollowError::Offline)
    }

    /// Appends what the leader sent and adopts its high watermark and log start. Gives the next position.
    pub fn append_as_follower(
        &self,
        leader_epoch: i32,
        records: &Bytes,
        leader_high_watermark: i64,
        leader_log_start: i64,
    ) -> Result<FetchPosition, FollowError> {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        let result = self.follow_locked(
            &mut state,
            leader_epoch,
            records,
            (leader_high_watermark, leader_log_start),
            &mut wakes,
        );
        drop(state);
        wakes.run();
        result?;
        self.fetch_position(leader_epoch)
    }

    fn follow_locked(
        &self,
        state: &mut State,
        leader_epoch: i32,
        records: &Bytes,
        (leader_high_watermark, leader_log_start): (i64, i64),
        wakes: &mut Wakes,
    ) -> Result<(), FollowError> {
        Self::following(state, leader_epoch)?;
        let room = state.log_dir.take_room(records.len());
        let Some(log) = &mut state.log else { return Err(FollowError::Offline) };
        if !records.is_empty() {
            if let Err(error) = room.and_then(|()| log.append_as_follower(records, leader_epoch)) {
                let refused = FollowError::Refused(error.to_string());
                if error.is_fatal() {
                    self.broken(state, &error, wakes);
                    return Err(FollowError::Offline);
                }
                if error.is_no_space() {
                    self.tell_of_no_space(state);
                }
                return Err(refused);
            }
            self.shared.counters.replicated_bytes.add(records.len());
        }
        let log_end = log.end_offset();
        if !records.is_empty() {
            self.sync_later(state);
        }
        self.step(
            state,
            Input::LeaderAnswered { leader_epoch, high_watermark: leader_high_watermark, log_end },
            wakes,
        );
        // The leader deleted records: so does every replica, after it has what comes behind them.
        if leader_log_start <= log_end {
            self.move_log_start(state, leader_log_start, wakes).map_err(|_| FollowError::Offline)?;
        }
        Ok(())
    }

    /// The leader says where histories part: cut there. Gives the next position.
    pub fn truncate_to_leader(
        &self,
        leader_epoch: i32,
        diverging: EpochEnd,
    ) -> Result<FetchPosition, FollowError> {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        let result = self.truncate_locked(&mut state, leader_epoch, diverging, &mut wakes);
        drop(state);
        wakes.run();
        result?;
        self.fetch_position(leader_epoch)
    }

    fn truncate_locked(
        &self,
        state: &mut State,
        leader_epoch: i32,
        diverging: EpochEnd,
        wakes: &mut Wakes,
    ) -> Result<(), FollowError> {
        Self::following(state, leader_epoch)?;
        let Some(log) = &mut state.log else { return Err(FollowError::Offline) };
        let own = log
            .end_offset_for_epoch(diverging.epoch)
            .map(|(epoch, end_offset)| EpochEnd { epoch, end_offset });
        let offset = truncation_offset(diverging, own, (log.log_start_offset(), log.end_offset()));
        let high_watermark = state.machine.high_watermark();
        if offset < high_watermark {
            tracing::warn!(topic = %self.topic(), partition = self.index(), offset, high_watermark, "truncates committed records: an unclean election, or data loss at the leader");
        }
        tracing::info!(topic = %self.topic(), partition = self.index(), offset, log_end = log.end_offset(), diverging_epoch = diverging.epoch, diverging_end = diverging.end_offset, own_epoch = log.latest_epoch(), "truncates to its leader's history");
        self.shared.counters.truncations.add(1);
        if let Err(error) = log.truncate_to(offset) {
            self.broken(state, &error, wakes);
            return Err(FollowError::Offline);
        }
        let (log_start, log_end) = (log.log_start_offset(), log.end_offset());
        self.shared.log_was_cut.notify_one();
        self.step(state, Input::Truncated { log_start, log_end }, wakes);
        Ok(())
    }

    /// The leader does not have the offset, nor an epoch that this log shares: start over where its log begins. The
    /// leader has all that is committed, so nothing committed is lost.
    pub fn start_over(&self, leader_epoch: i32, leader_start: i64) -> Result<FetchPosition, FollowError> {
        let mut wakes = Wakes::default();
        let mut state = self.lock();
        let result = self.start_over_locked(&mut state, leader_epoch, leader_start, &mut wakes);
        drop(state);
        wakes.run();
        result?;
        self.fetch_position(leader_epoch)
    }

    fn start_over_locked(
        &self,
        state: &mut State,
        leader_epoch: i32,
        leader_start: i64,
        wakes: &mut Wakes,
    ) -> Result<(), FollowError> {
        Self::following(state, leader_epoch)?;
        let Some(log) = &mut state.log else { return Err(FollowError::Offline) };
        let own_end = log.end_offset();
        if log.log_start_offset() == own_end {
            // A new replica of a log of which the beginning is gone: nothing is lost, and nothing is wrong.
            tracing::debug!(topic = %self.topic(), partition = self.index(), own_end, leader_start, "begins where its leader's log does");
        } else {
            tracing::warn!(topic = %self.topic(), partition = self.index(), own_end, leader_start, "is out of its leader's range and starts over");
            self.shared.counters.truncations.add(1);
        }
        if let Err(error) = log.truncate_fully_and_start_at(leader_start) {
            self.broken(state, &error, wakes);
            return Err(FollowError::Offline);
        }
        let (log_start, log_end) = (log.log_start_offset(), log.end_offset());
        self.shared.log_was_cut.notify_one();
        self.step(state, Input::Truncated { log_start, log_end }, wakes);
        Ok(())
    }
}
