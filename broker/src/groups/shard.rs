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
use ottla_wire::records::{BatchBuilder, BatchOptions};
use ottla_wire::text::Text;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{GroupOptions, loading};
use crate::replica::{AckState, AppendedRecords, Clock, Partition, Waiter};

/// Pause before a load that failed is tried again.
const LOAD_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// An append whose commit is awaited.
struct InFlight {
    ticket: Ticket,
    records: Vec<CoordinatorRecord>,
    producer_id: Option<i64>,
    appended: AppendedRecords,
    deadline: Instant,
}

struct State {
    machine: GroupCoordinator,
    is_loaded: bool,
    is_resigned: bool,
    replies: HashMap<RequestToken, (oneshot::Sender<Reply>, Command)>,
    next_token: u64,
    in_flight: VecDeque<InFlight>,
}

/// See the module.
pub(super) struct Shard {
    partition: Arc<Partition>,
    leader_epoch: i32,
    clock: Clock,
    commit_timeout: Duration,
    retention_check: Duration,
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
        machine: GroupCoordinator,
        options: &GroupOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            partition,
            leader_epoch,
            clock: Clock::default(),
            commit_timeout: Duration::from_millis(options.commit_timeout_ms),
            retention_check: Duration::from_millis(options.retention_check_ms.max(1)),
            state: Mutex::new(State {
                machine,
                is_loaded: false,
                is_resigned: false,
                replies: HashMap::new(),
                next_token: 0,
                in_flight: VecDeque::new(),
            }),
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
        if let Err(error) = state.check() {
            return Err(Box::new(command.refusal(error)));
        }
        let token = RequestToken(state.next_token);
        state.next_token += 1;
        let (sender, receiver) = oneshot::channel();
        state.replies.insert(token, (sender, command.clone()));
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
        state.check()?;
        read(&state.machine)
    }

    pub(super) fn topics_deleted(&self, names: &[Text]) {
        self.with_machine(|machine, now, effects| machine.topics_deleted(now, names, effects));
    }

    /// A marker is committed. What lies before it in the log is settled first. Also while the partition is being loaded:
    /// the load may have passed the marker's offset before it was written.
    pub(super) fn marker_written(&self, producer_id: i64, commit: bool) {
        let mut state = self.state.lock();
        if state.is_resigned {
            return;
        }
        let mut effects = Effects::default();
        self.settle(&mut state, &mut effects);
        state.machine.apply_marker(producer_id, commit);
        self.execute(&mut state, effects);
    }

    /// Leadership is lost.
    pub(super) fn resign(&self) {
        let mut state = self.state.lock();
        state.is_resigned = true;
        let mut effects = Effects::default();
        state.machine.resign(&mut effects);
        state.in_flight.clear();
        state.send(effects.replies);
        state.replies.clear();
        drop(state);
        self.changed.notify_one();
    }

    fn with_machine(&self, act: impl FnOnce(&mut GroupCoordinator, Now, &mut Effects)) {
        let mut state = self.state.lock();
        if state.check().is_ok() {
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
        self.changed.notify_one();
    }

    fn append(&self, state: &mut State, append: Append, effects: &mut Effects) {
        let Append { ticket, records, transaction } = append;
        let outcome =
            encode(&records, transaction.map(|t| (t.producer_id, t.producer_epoch))).and_then(|batch| {
                self.partition
                    .append_as_coordinator(batch, -1, self.leader_epoch, Clock::wall_ms())
                    .map_err(|refusal| coordinator_error(refusal.code))
            });
        match outcome {
            Ok(appended) => state.in_flight.push_back(InFlight {
                ticket,
                records,
                producer_id: transaction.map(|t| t.producer_id),
                appended,
                deadline: Instant::now() + self.commit_timeout,
            }),
            Err(error) => state.machine.failed(self.now(), ticket, error, effects),
        }
    }

    /// Takes appends whose fate is known from the front of the queue: the log commits in order.
    fn settle(&self, state: &mut State, effects: &mut Effects) {
        while let Some(front) = state.in_flight.front() {
            let fate = match self.partition.ack_result(&front.appended) {
                AckState::Done => None,
                AckState::Failed(code) => Some(coordinator_error(code)),
                AckState::Pending if Instant::now() >= front.deadline => Some(ErrorCode::RequestTimedOut),
                AckState::Pending => return,
            };
            let Some(done) = state.in_flight.pop_front() else { return };
            match fate {
                None => {
                    for (offset, record) in (done.appended.base_offset..).zip(&done.records) {
                        let value = record.value.as_ref();
                        if let Err(error) = state.machine.apply(offset, done.producer_id, &record.key, value)
                        {
                            tracing::error!(%error, offset, "a record of this coordinator's own cannot be read");
                        }
                    }
                    state.machine.committed(self.now(), done.ticket, effects);
                }
                Some(error) => state.machine.failed(self.now(), done.ticket, error, effects),
            }
        }
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

    async fn load(self: &Arc<Self>) -> bool {
        let started = Instant::now();
        loop {
            let shard = Arc::clone(self);
            let loaded = tokio::task::spawn_blocking(move || {
                let mut state = shard.state.lock();
                if state.is_resigned {
                    return Ok(None);
                }
                loading::load(&shard.partition, &mut state.machine, 0).map(Some)
            })
            .await;
            match loaded {
                Ok(Ok(None)) => return false,
                Ok(Ok(Some(loaded))) => {
                    let mut state = self.state.lock();
                    if state.is_resigned {
                        return false;
                    }
                    state.is_loaded = true;
                    let mut effects = Effects::default();
                    state.machine.lead(self.now(), &mut effects);
                    self.execute(&mut state, effects);
                    tracing::info!(
                        partition = self.partition.index(),
                        leader_epoch = self.leader_epoch,
                        records = loaded.records,
                        unknown = loaded.unknown,
                        elapsed = ?started.elapsed(),
                        "group coordinator loaded"
                    );
                    return true;
                }
                Ok(Err(error)) => {
                    tracing::warn!(partition = self.partition.index(), %error, "groups cannot be loaded yet; trying again");
                }
                Err(error) => tracing::error!(%error, "loading groups failed"),
            }
            tokio::time::sleep(LOAD_RETRY_PAUSE).await;
            if self.state.lock().is_resigned {
                return false;
            }
        }
    }

    async fn serve(&self) {
        let mut next_expiry = Instant::now() + self.retention_check;
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
                next_expiry = Instant::now() + self.retention_check;
            }
            let mut state = self.state.lock();
            if state.is_resigned {
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

    /// What to wait for: the commit of the oldest append, and the next deadline of timers or of that append.
    fn next_event(&self) -> Option<(Option<Arc<Waiter>>, Option<Instant>)> {
        let state = self.state.lock();
        if state.is_resigned {
            return None;
        }
        let mut deadline = state.machine.next_deadline_ms().map(|at_ms| {
            Instant::now() + Duration::from_millis(at_ms.saturating_sub(self.clock.monotonic_ms()))
        });
        let mut wait = None;
        if let Some(front) = state.in_flight.front() {
            let waiter = Waiter::new(1);
            if self.partition.await_ack(&front.appended, &waiter) != AckState::Pending {
                waiter.complete_one();
            }
            wait = Some(waiter);
            deadline = Some(deadline.map_or(front.deadline, |at| at.min(front.deadline)));
        }
        Some((wait, deadline))
    }
}

async fn wait_for(waiter: Option<Arc<Waiter>>) {
    match waiter {
        Some(waiter) => waiter.wait().await,
        None => std::future::pending().await,
    }
}

impl State {
    fn check(&self) -> Result<(), ErrorCode> {
        if self.is_resigned {
            Err(ErrorCode::NotCoordinator)
        } else if self.is_loaded {
            Ok(())
        } else {
            Err(ErrorCode::CoordinatorLoadInProgress)
        }
    }

    fn send(&mut self, replies: Vec<(RequestToken, Reply)>) {
        for (token, reply) in replies {
            if let Some((sender, _)) = self.replies.remove(&token) {
                // The client may be gone.
                drop(sender.send(reply));
            }
        }
    }
}

/// What a group's client is told of an append that failed.
fn coordinator_error(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}

/// One batch of a coordinator's records.
fn encode(records: &[CoordinatorRecord], producer: Option<(i64, i16)>) -> Result<bytes::Bytes, ErrorCode> {
    let mut options = BatchOptions::default();
    if let Some((producer_id, producer_epoch)) = producer {
        options.producer_id = producer_id;
        options.producer_epoch = producer_epoch;
        options.transactional = true;
    }
    let mut builder = BatchBuilder::new(options);
    let now_ms = Clock::wall_ms();
    for record in records {
        builder
            .add(now_ms, Some(&record.key), record.value.as_deref(), &[])
            .map_err(|_| ErrorCode::RecordListTooLarge)?;
    }
    builder.finish().map_err(|_| ErrorCode::RecordListTooLarge)
}
