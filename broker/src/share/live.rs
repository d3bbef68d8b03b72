//! One share-partition of a partition that this broker leads: its machine behind a small lock, its writes to the share
//! coordinator one after the other, and who waits for them or for records.
//!
//! It is made by the first fetch, loaded from the share coordinator, and given up with the leadership, with the group's
//! last session here, or when the share coordinator says that somebody else has taken over.

use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::share_partition::{AcknowledgeType, Acknowledgement, SharePartition, StateWrite};
use ottla_coordinator::share_state::{Command, NO_START_OFFSET, ShareKey};
use ottla_wire::error_code::ErrorCode;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::settings::{self, GroupSettings, OffsetReset};
use super::{Refused, ShareService};
use crate::replica::waiter::FetchInterest;
use crate::replica::{Clock, Isolation, OffsetQuery, Partition};

/// While members have locks, these are looked at so often at least.
const LOCK_CHECK_MAX: Duration = Duration::from_millis(500);
/// And not more often than that.
const LOCK_CHECK_MIN: Duration = Duration::from_millis(10);

/// What became of what a member said.
pub(crate) type AcknowledgeOutcome = Result<(), ErrorCode>;

/// Somebody who waits for a write of this number, or a later one.
type SaveWait = (u64, oneshot::Sender<AcknowledgeOutcome>);

/// What the lock guards.
pub(super) struct Inner {
    /// None: it is being loaded.
    pub(super) machine: Option<SharePartition>,
    state_epoch: i32,
    /// It is of no use any more.
    pub(super) ended: Option<ErrorCode>,
    saves: Vec<SaveWait>,
    interests: Vec<(Arc<FetchInterest>, u32)>,
}

/// See the module.
pub(super) struct LivePartition {
    pub(super) key: ShareKey,
    pub(super) leader_epoch: i32,
    pub(super) replica: Arc<Partition>,
    inner: Mutex<Inner>,
}

impl LivePartition {
    fn new(key: ShareKey, leader_epoch: i32, replica: Arc<Partition>) -> Arc<Self> {
        let inner =
            Inner { machine: None, state_epoch: 0, ended: None, saves: Vec::new(), interests: Vec::new() };
        Arc::new(Self { key, leader_epoch, replica, inner: Mutex::new(inner) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Offsets that members have now.
    pub(super) fn acquired(&self) -> i64 {
        self.inner.lock().machine.as_ref().map_or(0, SharePartition::acquired)
    }

    pub(super) fn add_interest(&self, interest: &Arc<FetchInterest>, slot: u32) {
        self.inner.lock().interests.push((Arc::clone(interest), slot));
    }

    pub(super) fn remove_interest(&self, interest: &Arc<FetchInterest>, slot: u32) {
        let is_it = |(other, at): &(Arc<FetchInterest>, u32)| *at == slot && Arc::ptr_eq(other, interest);
        let mut inner = self.inner.lock();
        if let Some(at) = inner.interests.iter().position(is_it) {
            inner.interests.swap_remove(at);
        }
    }

    /// Whoever waits for records is to look again.
    fn wake(&self) {
        let interests = self.inner.lock().interests.clone();
        for (interest, slot) in interests {
            interest.mark(slot);
            interest.wake();
        }
    }

    /// Nobody gets anything from it any more.
    fn end(&self, error: ErrorCode) {
        let saves = {
            let mut inner = self.inner.lock();
            inner.ended.get_or_insert(error);
            std::mem::take(&mut inner.saves)
        };
        for (_, waiting) in saves {
            // Its client may be gone.
            let _ = waiting.send(Err(error));
        }
        self.wake();
    }

    /// Whether nothing of it would be lost by giving it up.
    fn is_saved(&self) -> bool {
        let inner = self.inner.lock();
        inner.machine.as_ref().is_none_or(|machine| !machine.is_writing() && !machine.has_unsaved())
    }
}

impl ShareService {
    /// The share-partition as this leadership has it; made and loaded if it is not there.
    pub(super) fn live(
        self: &Arc<Self>,
        key: &ShareKey,
        replica: &Arc<Partition>,
        leader_epoch: i32,
    ) -> Arc<LivePartition> {
        let mut all = self.live.lock();
        if let Some(known) = all.get(key)
            && known.leader_epoch == leader_epoch
            && Arc::ptr_eq(&known.replica, replica)
        {
            return Arc::clone(known);
        }
        let key = ShareKey { group_id: key.group_id.detached(), ..*key };
        let live = LivePartition::new(key.clone(), leader_epoch, Arc::clone(replica));
        let former = all.insert(key, Arc::clone(&live));
        drop(all);
        if let Some(former) = former {
            former.end(ErrorCode::NotLeaderOrFollower);
        }
        let (service, loading) = (Arc::clone(self), Arc::clone(&live));
        self.foundation.tasks.spawn(async move {
            let stopping = service.foundation.stopping.clone();
            tokio::select! {
                () = service.load(&loading) => {}
                () = stopping.cancelled() => {}
            }
        });
        live
    }

    /// The share-partition, if it is there and of use.
    pub(super) fn known(&self, key: &ShareKey) -> Option<Arc<LivePartition>> {
        self.live.lock().get(key).cloned()
    }

    pub(super) fn settings(&self, group_id: &str) -> GroupSettings {
        settings::of(&self.foundation.replicas.image(), group_id, self.options.limits)
    }

    async fn load(&self, live: &Arc<LivePartition>) {
        match self.restored(live).await {
            Ok((machine, state_epoch)) => {
                let mut inner = live.lock();
                inner.machine = Some(machine);
                inner.state_epoch = state_epoch;
                drop(inner);
                live.wake();
            }
            Err(refused) => {
                let key = live.key.coordinator_key();
                tracing::info!(key, error = %refused.error, message = &*refused.message, "a share-partition cannot be loaded");
                // The next look tells, and forgets it.
                live.end(partition_error(refused.error));
            }
        }
    }

    /// What the share coordinator has. A start offset that is found here is written before anything is given to anybody:
    /// another leader would find another one, and leave out what came between.
    async fn restored(&self, live: &LivePartition) -> Result<(SharePartition, i32), Refused> {
        let leader_epoch = live.leader_epoch;
        let state = self.persist(&live.key, &Command::Read { leader_epoch }).await?;
        let settings = self.settings(&live.key.group_id);
        let mut start_offset = state.start_offset;
        if start_offset == NO_START_OFFSET {
            start_offset = first_offset(&live.replica, settings)?;
            let begins = Command::Write {
                state_epoch: state.state_epoch,
                leader_epoch,
                start_offset,
                delivery_complete_count: 0,
                batches: Vec::new(),
            };
            self.persist(&live.key, &begins).await?;
        }
        let machine = SharePartition::restore(settings.limits, start_offset, &state.batches);
        let mut machine = machine.map_err(|error| {
            tracing::error!(key = live.key.coordinator_key(), %error, "share state");
            ErrorCode::UnknownServerError
        })?;
        let view = live.replica.view();
        machine.log_ends_at(view.log_end_offset.max(0));
        machine.log_starts_at(view.log_start_offset);
        Ok((machine, state.state_epoch))
    }

    /// Takes what a member says of one partition; answers when it is written.
    pub(crate) async fn acknowledge(
        self: &Arc<Self>,
        key: &ShareKey,
        member: &str,
        said: &[Acknowledgement],
    ) -> AcknowledgeOutcome {
        self.check_led(key)?;
        // Who has nothing from here has nothing to say here.
        let live = self.known(key).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let renews = said.iter().any(|said| said.types.contains(&AcknowledgeType::Renew));
        if renews && !self.settings(&key.group_id).may_renew {
            return Err(ErrorCode::InvalidRecordState);
        }
        let waiting = {
            let mut inner = live.lock();
            if let Some(error) = inner.ended {
                return Err(error);
            }
            let machine = inner.machine.as_mut().ok_or(ErrorCode::InvalidRecordState)?;
            let number = machine.acknowledge(self.clock.monotonic_ms(), member, said)?;
            number.map(|number| {
                let (sender, receiver) = oneshot::channel();
                inner.saves.push((number, sender));
                receiver
            })
        };
        for one in said {
            let records = usize::try_from(one.last.saturating_sub(one.first).saturating_add(1)).unwrap_or(0);
            match one.types[..] {
                [all] => self.counters.acknowledged[all as usize].add(records),
                _ => one.types.iter().for_each(|kind| self.counters.acknowledged[*kind as usize].add(1)),
            }
        }
        let Some(waiting) = waiting else { return Ok(()) };
        self.save(&live);
        waiting.await.unwrap_or(Err(ErrorCode::NotLeaderOrFollower))
    }

    /// Whether this broker leads the partition.
    fn check_led(&self, key: &ShareKey) -> Result<(), ErrorCode> {
        let topic = self.foundation.replicas.topic_by_id(key.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
        let replica = topic.partition(key.partition)?;
        if replica.is_leader() { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
    }

    /// A member's session is over: what it has goes to others.
    pub(super) fn release(self: &Arc<Self>, group_id: &str, member: &str) {
        for live in self.of_group(group_id) {
            let mut inner = live.lock();
            let released = inner.machine.as_mut().is_some_and(|machine| machine.release_member(member));
            drop(inner);
            if released {
                self.save(&live);
                live.wake();
            }
        }
    }

    fn of_group(&self, group_id: &str) -> Vec<Arc<LivePartition>> {
        let all = self.live.lock();
        all.values().filter(|live| *live.key.group_id == *group_id).cloned().collect()
    }

    /// Writes what there is to write, if nothing is on its way.
    pub(super) fn save(self: &Arc<Self>, live: &Arc<LivePartition>) {
        let write = live.lock().machine.as_mut().and_then(SharePartition::begin_write);
        let Some(write) = write else { return };
        let (service, live) = (Arc::clone(self), Arc::clone(live));
        self.foundation.tasks.spawn(async move {
            let stopping = service.foundation.stopping.clone();
            tokio::select! {
                () = service.write(&live, write) => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    async fn write(self: &Arc<Self>, live: &Arc<LivePartition>, first: StateWrite) {
        let mut next = Some(first);
        while let Some(write) = next {
            let state_epoch = live.lock().state_epoch;
            let command = Command::Write {
                state_epoch,
                leader_epoch: live.leader_epoch,
                start_offset: write.start_offset,
                delivery_complete_count: write.delivery_complete_count,
                batches: write.batches,
            };
            let outcome = self.persist(&live.key, &command).await.map(drop);
            let error = outcome.err().map(|refused| refused.error);
            let answered: Vec<SaveWait> = {
                let mut inner = live.lock();
                let Inner { machine, saves, .. } = &mut *inner;
                let Some(machine) = machine else { return };
                machine.write_done(error.is_none());
                let (answered, left) =
                    std::mem::take(saves).into_iter().partition(|(at, _)| *at <= write.number);
                *saves = left;
                // What nobody waits for goes with the next that somebody does.
                let goes_on = error.is_none() || !saves.is_empty();
                next = if goes_on { machine.begin_write() } else { None };
                answered
            };
            for (_, waiting) in answered {
                // Its client may be gone.
                let _ = waiting.send(error.map_or(Ok(()), |error| Err(partition_error(error))));
            }
            live.wake();
            if let Some(error) = error {
                tracing::info!(key = live.key.coordinator_key(), %error, "a share-partition's state was not written");
                if is_outdated(error) {
                    self.give_up(live, partition_error(error));
                    return;
                }
            }
        }
        self.drop_unused(&live.key.group_id);
    }

    /// The share-partition is not to be used any more; the next fetch makes another.
    pub(super) fn give_up(&self, live: &Arc<LivePartition>, error: ErrorCode) {
        let mut all = self.live.lock();
        if all.get(&live.key).is_some_and(|known| Arc::ptr_eq(known, live)) {
            all.remove(&live.key);
        }
        drop(all);
        live.end(error);
    }

    /// Gives up what belongs to leaderships that are over.
    pub(super) fn drop_lost_partitions(&self) {
        let all: Vec<Arc<LivePartition>> = self.live.lock().values().cloned().collect();
        for live in all {
            if live.replica.is_deleted() || !live.replica.is_leader() {
                self.give_up(&live, ErrorCode::NotLeaderOrFollower);
            }
        }
    }

    /// Gives up what a group without sessions here has: who changes its offsets meanwhile is not to be met by old ones.
    pub(super) fn drop_unused(&self, group_id: &ottla_wire::text::Text) {
        if self.sessions.lock().has_group(group_id) {
            return;
        }
        for live in self.of_group(group_id) {
            if live.is_saved() {
                self.give_up(&live, ErrorCode::NotLeaderOrFollower);
            }
        }
    }

    /// Takes back what members have had for too long, for as long as the broker runs.
    pub(super) async fn expire_locks(self: Arc<Self>) {
        loop {
            let all: Vec<Arc<LivePartition>> = self.live.lock().values().cloned().collect();
            let mut next_ms: Option<u64> = None;
            let now_ms = self.clock.monotonic_ms();
            for live in &all {
                let mut inner = live.lock();
                let Some(machine) = &mut inner.machine else { continue };
                let before = machine.acquired();
                let is_changed = machine.expire_locks(now_ms);
                let expired = before - machine.acquired();
                next_ms = next_ms.into_iter().chain(machine.next_expiry_ms()).min();
                drop(inner);
                if is_changed {
                    self.counters.expired_locks.add(usize::try_from(expired).unwrap_or(0));
                    self.save(live);
                    live.wake();
                }
            }
            match next_ms {
                Some(at_ms) => {
                    let wait = Duration::from_millis(at_ms.saturating_sub(now_ms));
                    tokio::time::sleep(wait.clamp(LOCK_CHECK_MIN, LOCK_CHECK_MAX)).await;
                }
                None => self.lock_taken.notified().await,
            }
        }
    }
}

/// Where a group begins that has never read the partition.
fn first_offset(replica: &Partition, settings: GroupSettings) -> Result<i64, ErrorCode> {
    let latest = || {
        let found = replica.list_offset(OffsetQuery::Latest, Some(Isolation::ReadUncommitted), -1);
        found.map(|found| found.offset)
    };
    match settings.reset {
        OffsetReset::Latest => latest(),
        OffsetReset::Earliest => Ok(replica.view().log_start_offset.max(0)),
        OffsetReset::By(duration_ms) => {
            let since_ms = Clock::wall_ms().saturating_sub(duration_ms).max(0);
            let query = OffsetQuery::AtOrAfter(since_ms);
            let found = replica.list_offset(query, Some(Isolation::ReadUncommitted), -1)?;
            if found.offset >= 0 { Ok(found.offset) } else { latest() }
        }
    }
}

/// Whether the share coordinator knows of somebody newer.
fn is_outdated(error: ErrorCode) -> bool {
    !matches!(
        error,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NetworkException
    )
}

/// What a member is told when the share coordinator refuses.
fn partition_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NotCoordinator
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::OffsetNotAvailable
        | ErrorCode::NetworkException => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::UnknownTopicOrPartition | ErrorCode::GroupIdNotFound => ErrorCode::UnknownTopicOrPartition,
        ErrorCode::FencedLeaderEpoch | ErrorCode::NotLeaderOrFollower => ErrorCode::NotLeaderOrFollower,
        ErrorCode::FencedStateEpoch => ErrorCode::FencedStateEpoch,
        _ => ErrorCode::UnknownServerError,
    }
}
