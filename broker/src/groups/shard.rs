//! One partition of `__consumer_offsets`: its machine behind a small lock, its appends in order, its replies.
//!
//! Whatever changes the machine happens under the lock, and the appends that a step asks for are made under it too, so
//! that the log has them in the order of the decisions. The lock is never held across an await. One task waits for
//! commits and timers.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ottla_coordinator::group::{
    Append, Command, CoordinatorRecord, Effects, GroupCoordinator, Now, Reply, RequestToken, Ticket,
};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::topics::ClusterView;
use super::{GroupOptions, WrittenMarker};
use crate::coordinator_log::{Phase, append_refusal, encode, fate, load_machine, wait_for};
use crate::replica::{AckState, AppendedRecords, Clock, Partition, Waiter};

/// Appends of one shard that may wait for their commit. While there are more, requests are refused with
/// COORDINATOR_NOT_AVAILABLE: a follower that hangs must not fill the memory of its leader.
const APPENDS_IN_FLIGHT_MAX: usize = 100_000;

/// An append whose commit is awaited, for as long as this node leads: one that is late may be committed yet.
struct InFlight {
    ticket: Ticket,
    records: Vec<CoordinatorRecord>,
    producer_id: Option<i64>,
    appended: AppendedRecords,
    /// Whoever waits for it is answered by then.
    deadline: Instant,
}

struct State {
    machine: GroupCoordinator,
    phase: Phase,
    replies: HashMap<RequestToken, oneshot::Sender<Reply>>,
    next_token: u64,
    in_flight: VecDeque<InFlight>,
    /// How many of these, from the front, are over their deadline and answered for.
    late: usize,
    /// Told when the append that ends at this offset is committed.
    awaited: Option<(i64, Arc<Waiter>)>,
    /// What the task sleeps on.
    watched: Watched,
    view: ClusterView,
    /// Markers whose commit is awaited, by offset.
    markers: VecDeque<WrittenMarker>,
}

/// What the task sleeps on: most heartbeats change nothing of it, and need not wake it.
#[derive(Debug, Clone, Copy, Default)]
struct Watched {
    /// The machine's next deadline.
    timer_ms: Option<u64>,
    /// Whether the commit of an append is awaited.
    commit: bool,
    /// Whether an append's answer has a deadline.
    answer: bool,
}

/// See the module.
pub(super) struct Shard {
    partition: Arc<Partition>,
    leader_epoch: i32,
    clock: Clock,
    options: GroupOptions,
    state: Mutex<State>,
    /// Something for the task: a first append in flight, an earlier timer, the end.
    changed: Notify,
}

/// A reply that comes later.
pub(super) struct PendingReply {
    receiver: oneshot::Receiver<Reply>,
    command: Option<Command>,
}

/// The coordinator went away without an answer.
pub(super) struct Closed(Option<Command>);

impl Closed {
    pub(super) fn into_refusal(self) -> Reply {
        self.0.map_or(Reply::Heartbeat(ErrorCode::NotCoordinator), |command| {
            command.refusal(ErrorCode::NotCoordinator)
        })
    }
}

impl Future for PendingReply {
    type Output = Result<Reply, Closed>;

    fn poll(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Self::Output> {
        match Pin::new(&mut self.receiver).poll(task) {
            Poll::Ready(Ok(reply)) => Poll::Ready(Ok(reply)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Closed(self.command.take()))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Shard {
    pub(super) fn new(
        partition: Arc<Partition>,
        leader_epoch: i32,
        options: &GroupOptions,
        view: ClusterView,
    ) -> Arc<Self> {
        Arc::new(Self {
            partition,
            leader_epoch,
            clock: Clock::default(),
            state: Mutex::new(State {
                machine: GroupCoordinator::new(options.machine.clone()),
                phase: Phase::Loading,
                replies: HashMap::new(),
                next_token: 0,
                in_flight: VecDeque::new(),
                late: 0,
                awaited: None,
                watched: Watched::default(),
                view,
                markers: VecDeque::new(),
            }),
            options: options.clone(),
            changed: Notify::new(),
        })
    }

    pub(super) fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    fn now(&self) -> Now {
        Now { monotonic_ms: self.clock.monotonic_ms(), wall_ms: Clock::wall_ms() }
    }

    /// Carries a command out; its reply now (refused) or later.
    pub(super) fn submit(&self, command: Command) -> Result<PendingReply, Box<Reply>> {
        let mut state = self.state.lock();
        if let Err(error) = state.phase.check() {
            return Err(Box::new(command.refusal(error)));
        }
        if state.in_flight.len() >= APPENDS_IN_FLIGHT_MAX {
            return Err(Box::new(command.refusal(ErrorCode::CoordinatorNotAvailable)));
        }
        let token = RequestToken(state.next_token);
        state.next_token += 1;
        let (sender, receiver) = oneshot::channel();
        state.replies.insert(token, sender);
        let mut effects = Effects::default();
        state.machine.step(self.now(), token, command.clone(), &mut effects);
        self.execute(&mut state, effects);
        drop(state);
        Ok(PendingReply { receiver, command: Some(command) })
    }

    pub(super) fn query<T>(
        &self,
        read: impl FnOnce(&GroupCoordinator) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        let state = self.state.lock();
        state.phase.check()?;
        read(&state.machine)
    }

    pub(super) fn topics_deleted(&self, names: &[Text]) {
        self.with_machine(|machine, now, effects| machine.topics_deleted(now, names, effects));
    }

    /// A marker is in the log. It counts when it is committed and what lies before it is settled. While the partition is
    /// being loaded it is kept: the load may have passed the marker's offset before it was written. A marker that the load
    /// has seen too changes nothing the second time, because no offset is taken before the load is done.
    pub(super) fn marker_appended(&self, marker: WrittenMarker) {
        let mut state = self.state.lock();
        if !state.phase.is_resigned() {
            let later = |other: &WrittenMarker| other.appended.base_offset > marker.appended.base_offset;
            let at = state.markers.iter().position(later).unwrap_or(state.markers.len());
            state.markers.insert(at, marker);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Whatever is committed counts from now on.
    pub(super) fn settle_now(&self) {
        let mut state = self.state.lock();
        if state.phase.check().is_ok() {
            let mut effects = Effects::default();
            self.settle(&mut state, &mut effects);
            self.execute(&mut state, effects);
        }
    }

    /// The cluster has changed. Where the changes were not told one by one, offsets of whatever is gone are looked for.
    pub(super) fn set_view(&self, view: &ClusterView, look_for_gone: bool) {
        let mut state = self.state.lock();
        state.view = view.clone();
        if state.phase.check().is_ok() {
            state.machine.set_topics(Arc::clone(&view.topics));
            state.machine.set_overrides(Arc::clone(&view.overrides));
            if look_for_gone {
                let mut effects = Effects::default();
                self.forget_gone(&mut state, &mut effects);
                self.execute(&mut state, effects);
            }
        }
    }

    /// Offsets of topics that were deleted while nobody was here to hear of it. The image is at least as new as this
    /// leadership, and an offset is taken only of a topic that is there: one that is missing is gone.
    fn forget_gone(&self, state: &mut State, effects: &mut Effects) {
        let groups = state.machine.durable().groups().map(|(_, group)| group);
        let committed =
            groups.flat_map(|group| group.offsets.keys().chain(group.pending.keys())).map(|key| &key.topic);
        let gone = state.view.missing(committed.cloned().collect());
        if !gone.is_empty() {
            state.machine.topics_deleted(self.now(), &gone, effects);
        }
    }

    /// Leadership is lost.
    pub(super) fn resign(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Resigned;
        let mut effects = Effects::default();
        state.machine.resign(&mut effects);
        state.in_flight.clear();
        state.markers.clear();
        state.late = 0;
        state.awaited = None;
        state.send(effects.replies);
        state.replies.clear();
        drop(state);
        self.changed.notify_one();
    }

    fn with_machine(&self, act: impl FnOnce(&mut GroupCoordinator, Now, &mut Effects)) {
        let mut state = self.state.lock();
        if state.phase.check().is_ok() {
            let mut effects = Effects::default();
            act(&mut state.machine, self.now(), &mut effects);
            self.execute(&mut state, effects);
        }
    }

    /// Appends and answers; an append that is committed at once (a single replica) or refused feeds the machine again.
    fn execute(&self, state: &mut State, mut effects: Effects) {
        loop {
            state.send(std::mem::take(&mut effects.replies));
            let appends = std::mem::take(&mut effects.appends);
            if appends.is_empty() {
                break;
            }
            for append in appends {
                self.append(state, append, &mut effects);
            }
            self.settle(state, &mut effects);
        }
        if state.has_news() {
            self.changed.notify_one();
        }
    }

    fn append(&self, state: &mut State, append: Append, effects: &mut Effects) {
        let Append { ticket, records, transaction } = append;
        let outcome =
            encode(&records, transaction.map(|t| (t.producer_id, t.producer_epoch))).and_then(|batch| {
                self.partition
                    .append_as_coordinator(batch, -1, self.leader_epoch, Clock::wall_ms())
                    .map_err(|refusal| append_refusal(refusal.code))
            });
        match outcome {
            Ok(appended) => state.in_flight.push_back(InFlight {
                ticket,
                records,
                producer_id: transaction.map(|t| t.producer_id),
                appended,
                deadline: Instant::now() + Duration::from_millis(self.options.commit_timeout_ms),
            }),
            Err(error) => state.machine.failed(self.now(), ticket, error, effects),
        }
    }

    /// Takes appends whose fate is known from the front of the queue: the log commits in order. Whoever waits for one that
    /// is over its time is told; the append itself goes on being awaited, because it may be committed yet.
    fn settle(&self, state: &mut State, effects: &mut Effects) {
        loop {
            if state.is_marker_first() {
                if !self.settle_marker(state) {
                    break;
                }
                continue;
            }
            let Some(front) = state.in_flight.front() else { break };
            let fate = match fate(&self.partition, &front.appended) {
                AckState::Done => Ok(()),
                AckState::Failed(code) => Err(code),
                AckState::Pending => break,
            };
            let Some(done) = state.in_flight.pop_front() else { break };
            state.late = state.late.saturating_sub(1);
            // With too small an ISR it is in the log for everybody all the same, it is only not safe enough to say so.
            if fate != Err(ErrorCode::NotLeaderOrFollower) {
                apply(&mut state.machine, &done);
            }
            match fate {
                Ok(()) => state.machine.committed(self.now(), done.ticket, effects),
                Err(code) => {
                    state.machine.failed(self.now(), done.ticket, append_refusal(code), effects);
                }
            }
        }
        let now = Instant::now();
        while let Some(late) = state.in_flight.get(state.late).filter(|append| now >= append.deadline) {
            state.machine.timed_out(self.now(), late.ticket, effects);
            state.late += 1;
        }
    }

    /// Takes the first marker if its fate is known; false: it is not.
    fn settle_marker(&self, state: &mut State) -> bool {
        let Some(marker) = state.markers.front().copied() else { return false };
        let fate = fate(&self.partition, &marker.appended);
        if fate == AckState::Pending {
            return false;
        }
        state.markers.pop_front();
        // As for appends: with too small an ISR it is in the log for everybody all the same.
        if fate != AckState::Failed(ErrorCode::NotLeaderOrFollower) {
            let WrittenMarker { appended, producer_id, commit } = marker;
            state.machine.apply_marker(appended.base_offset, producer_id, commit);
        }
        true
    }

    /// Loads, then waits for commits and timers until leadership ends.
    pub(super) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let served = async {
            if self.load().await {
                self.serve().await;
            }
        };
        tokio::select! {
            () = served => {}
            () = stopping.cancelled() => self.resign(),
        }
    }

    /// Reads the partition and takes up the lead; false: the leadership is over.
    async fn load(&self) -> bool {
        let empty = || GroupCoordinator::new(self.options.machine.clone());
        let is_resigned = || self.state.lock().phase.is_resigned();
        let loaded = load_machine(&self.partition, self.leader_epoch, empty, is_resigned).await;
        let Some(machine) = loaded else { return false };
        let mut state = self.state.lock();
        if state.phase.is_resigned() {
            return false;
        }
        state.machine = machine;
        state.phase = Phase::Serving;
        let mut effects = Effects::default();
        let (topics, overrides) = (Arc::clone(&state.view.topics), Arc::clone(&state.view.overrides));
        state.machine.set_topics(topics);
        state.machine.set_overrides(overrides);
        state.machine.lead(self.now(), &mut effects);
        self.settle(&mut state, &mut effects);
        self.forget_gone(&mut state, &mut effects);
        self.execute(&mut state, effects);
        true
    }

    async fn serve(&self) {
        let retention_check = Duration::from_millis(self.options.retention_check_ms.max(1));
        let mut next_expiry = Instant::now() + retention_check;
        loop {
            let Some((wait, deadline)) = self.next_event() else { return };
            let deadline = deadline.map_or(next_expiry, |deadline| deadline.min(next_expiry));
            tokio::select! {
                () = wait_for(wait) => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = self.changed.notified() => {}
            }
            let expire = Instant::now() >= next_expiry;
            if expire {
                next_expiry = Instant::now() + retention_check;
            }
            let mut state = self.state.lock();
            if state.phase.is_resigned() {
                return;
            }
            let mut effects = Effects::default();
            self.settle(&mut state, &mut effects);
            let is_due =
                state.machine.next_deadline_ms().is_some_and(|at_ms| at_ms <= self.clock.monotonic_ms());
            if is_due {
                state.machine.tick(self.now(), &mut effects);
            }
            if expire {
                state.machine.expire_offsets(self.now(), &mut effects);
            }
            if effects != Effects::default() {
                self.execute(&mut state, effects);
            }
        }
    }

    /// What to wait for: the commit of the oldest append, and the next deadline of timers or of an append's answer.
    fn next_event(&self) -> Option<(Option<Arc<Waiter>>, Option<Instant>)> {
        let mut state = self.state.lock();
        if state.phase.is_resigned() {
            return None;
        }
        let timer_ms = state.machine.next_deadline_ms();
        state.watched = Watched {
            timer_ms,
            commit: !state.in_flight.is_empty() || !state.markers.is_empty(),
            answer: state.in_flight.len() > state.late,
        };
        let timer = timer_ms.map(|at_ms| {
            Instant::now() + Duration::from_millis(at_ms.saturating_sub(self.clock.monotonic_ms()))
        });
        let answer = state.in_flight.get(state.late).map(|append| append.deadline);
        let deadline = timer.into_iter().chain(answer).min();
        let state = &mut *state;
        let Some(front) = state.first_awaited() else {
            state.awaited = None;
            return Some((None, deadline));
        };
        // One waiter for one append, however often something else happens while it waits.
        let offset = front.last_offset;
        let same = state.awaited.as_ref().filter(|(at, waiter)| *at == offset && !waiter.is_complete());
        let waiter = if let Some((_, waiter)) = same {
            Arc::clone(waiter)
        } else {
            let waiter = Waiter::new(1);
            if self.partition.await_ack(&front, &waiter) != AckState::Pending {
                waiter.complete_one();
            }
            state.awaited = Some((offset, Arc::clone(&waiter)));
            waiter
        };
        Some((Some(waiter), deadline))
    }
}

/// A committed append's records count.
fn apply(machine: &mut GroupCoordinator, append: &InFlight) {
    for (offset, record) in (append.appended.base_offset..).zip(&append.records) {
        if let Err(error) = machine.apply(offset, append.producer_id, &record.key, record.value.as_ref()) {
            tracing::error!(%error, offset, "a record of this coordinator's own cannot be read");
        }
    }
}

impl State {
    /// Whether a marker comes before the first append in the log.
    fn is_marker_first(&self) -> bool {
        self.markers.front().is_some_and(|marker| {
            let append = self.in_flight.front();
            append.is_none_or(|append| marker.appended.base_offset < append.appended.base_offset)
        })
    }

    /// What is awaited first.
    fn first_awaited(&self) -> Option<AppendedRecords> {
        if self.is_marker_first() {
            return self.markers.front().map(|marker| marker.appended);
        }
        self.in_flight.front().map(|append| append.appended)
    }

    /// Whether something comes earlier than what the task sleeps on.
    fn has_news(&self) -> bool {
        let earlier = self
            .machine
            .next_deadline_ms()
            .is_some_and(|at_ms| self.watched.timer_ms.is_none_or(|watched_ms| at_ms < watched_ms));
        earlier
            || (!self.watched.commit && (!self.in_flight.is_empty() || !self.markers.is_empty()))
            || (!self.watched.answer && self.in_flight.len() > self.late)
    }

    fn send(&mut self, replies: Vec<(RequestToken, Reply)>) {
        for (token, reply) in replies {
            if let Some(sender) = self.replies.remove(&token) {
                // The client may be gone.
                drop(sender.send(reply));
            }
        }
    }
}
