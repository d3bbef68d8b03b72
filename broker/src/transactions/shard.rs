//! One partition of `__transaction_state`: its machine behind a small lock, its appends in order, its replies, its markers.
//!
//! Whatever changes the machine happens under the lock, and the appends that a step asks for are made under it too, so
//! that the log has them in the order of the decisions. The lock is never held across an await. One task waits for
//! commits and timers; markers go to the [`MarkerSender`], which tells what became of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::group::{CoordinatorRecord, Now, RequestToken, Ticket, TopicPartition};
use ottla_coordinator::transaction::{
    Append, Command, Effects, MarkerOutcome, MarkerToken, Reply, TransactionConfig, TransactionCoordinator,
};
use ottla_wire::error_code::ErrorCode;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::TransactionOptions;
use super::markers::MarkerSender;
use crate::coordinator_log::{Phase, encode, load_machine, wait_for};
use crate::replica::{AckState, AppendedRecords, Clock, Partition, Waiter};

/// An append whose commit is awaited.
struct InFlight {
    ticket: Ticket,
    records: Vec<CoordinatorRecord>,
    appended: AppendedRecords,
    deadline: Instant,
}

struct State {
    machine: TransactionCoordinator,
    phase: Phase,
    replies: HashMap<RequestToken, oneshot::Sender<Reply>>,
    next_token: u64,
    in_flight: VecDeque<InFlight>,
}

/// See the module.
pub(super) struct Shard {
    partition: Arc<Partition>,
    leader_epoch: i32,
    clock: Clock,
    commit_timeout: Duration,
    abort_check: Duration,
    expiry_check: Duration,
    markers: Arc<MarkerSender>,
    state: Mutex<State>,
    /// Something for the task: a first append in flight, an earlier timer, the end.
    changed: Notify,
}

impl Shard {
    pub(super) fn new(
        partition: Arc<Partition>,
        leader_epoch: i32,
        config: TransactionConfig,
        options: &TransactionOptions,
        markers: Arc<MarkerSender>,
    ) -> Arc<Self> {
        Arc::new(Self {
            partition,
            leader_epoch,
            clock: Clock::default(),
            commit_timeout: Duration::from_millis(options.commit_timeout_ms),
            abort_check: Duration::from_millis(options.abort_check_ms.max(1)),
            expiry_check: Duration::from_millis(options.expiry_check_ms.max(1)),
            markers,
            state: Mutex::new(State {
                machine: TransactionCoordinator::new(config),
                phase: Phase::Loading,
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

    /// Begins a command; its reply comes by the channel, which is closed without one when leadership is lost.
    pub(super) fn submit(self: &Arc<Self>, command: &Command) -> Result<oneshot::Receiver<Reply>, ErrorCode> {
        let mut state = self.state.lock();
        state.phase.check()?;
        let token = RequestToken(state.next_token);
        state.next_token += 1;
        let (sender, receiver) = oneshot::channel();
        state.replies.insert(token, sender);
        let mut effects = Effects::default();
        state.machine.step(self.now(), token, command, &mut effects);
        self.execute(&mut state, effects);
        Ok(receiver)
    }

    pub(super) fn query<T>(
        &self,
        read: impl FnOnce(&TransactionCoordinator) -> Result<T, ErrorCode>,
    ) -> Result<T, ErrorCode> {
        let state = self.state.lock();
        state.phase.check()?;
        read(&state.machine)
    }

    pub(super) fn set_config(&self, config: TransactionConfig) {
        self.state.lock().machine.set_config(config);
    }

    /// What became of markers.
    pub(super) fn markers_answered(
        self: &Arc<Self>,
        token: MarkerToken,
        outcomes: &[(TopicPartition, MarkerOutcome)],
    ) {
        let mut state = self.state.lock();
        if state.phase.check().is_ok() {
            let mut effects = Effects::default();
            state.machine.markers_answered(self.now(), token, outcomes, &mut effects);
            self.execute(&mut state, effects);
        }
    }

    /// Leadership is lost.
    pub(super) fn resign(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Resigned;
        let mut effects = Effects::default();
        state.machine.resign(&mut effects);
        state.in_flight.clear();
        state.send(effects.replies);
        state.replies.clear();
        drop(state);
        self.changed.notify_one();
    }

    /// Appends, answers, sends; an append that is committed at once (a single replica) or refused feeds the machine again.
    fn execute(self: &Arc<Self>, state: &mut State, mut effects: Effects) {
        loop {
            state.send(std::mem::take(&mut effects.replies));
            for markers in std::mem::take(&mut effects.markers) {
                self.markers.send(self, markers);
            }
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
        let Append { ticket, records } = append;
        let outcome = encode(&records, None).and_then(|batch| {
            self.partition
                .append_as_coordinator(batch, -1, self.leader_epoch, Clock::wall_ms())
                .map_err(|refusal| refusal.code)
        });
        match outcome {
            Ok(appended) => state.in_flight.push_back(InFlight {
                ticket,
                records,
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
                AckState::Failed(code) => Some(code),
                AckState::Pending if Instant::now() >= front.deadline => Some(ErrorCode::RequestTimedOut),
                AckState::Pending => return,
            };
            let Some(done) = state.in_flight.pop_front() else { return };
            if let Some(error) = fate {
                state.machine.failed(self.now(), done.ticket, error, effects);
                continue;
            }
            for record in &done.records {
                if let Err(error) = state.machine.apply(&record.key, record.value.as_ref()) {
                    tracing::error!(%error, "a record of this coordinator's own cannot be read");
                }
            }
            state.machine.committed(self.now(), done.ticket, effects);
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

    /// Reads the partition and takes up the lead; false: the leadership is over.
    async fn load(self: &Arc<Self>) -> bool {
        let config = self.state.lock().machine.config().clone();
        let empty = || TransactionCoordinator::new(config.clone());
        let is_resigned = || self.state.lock().phase.is_resigned();
        let loaded = load_machine(&self.partition, self.leader_epoch, empty, is_resigned).await;
        let Some(mut machine) = loaded else { return false };
        let mut state = self.state.lock();
        if state.phase.is_resigned() {
            return false;
        }
        // It may have been changed while the partition was read.
        machine.set_config(state.machine.config().clone());
        state.machine = machine;
        state.phase = Phase::Serving;
        let mut effects = Effects::default();
        state.machine.lead(self.now(), self.leader_epoch, &mut effects);
        self.execute(&mut state, effects);
        true
    }

    async fn serve(self: &Arc<Self>) {
        let mut next_abort = Instant::now() + self.abort_check;
        let mut next_expiry = Instant::now() + self.expiry_check;
        loop {
            let Some((wait, deadline)) = self.next_event() else { return };
            let regular = next_abort.min(next_expiry);
            let deadline = deadline.map_or(regular, |deadline| deadline.min(regular));
            tokio::select! {
                () = wait_for(wait) => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = self.changed.notified() => {}
            }
            let now = Instant::now();
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
            if now >= next_abort {
                next_abort = now + self.abort_check;
                state.machine.abort_timed_out(self.now(), &mut effects);
            }
            if now >= next_expiry {
                next_expiry = now + self.expiry_check;
                state.machine.expire_ids(self.now(), &mut effects);
            }
            if effects != Effects::default() {
                self.execute(&mut state, effects);
            }
        }
    }

    /// What to wait for: the commit of the oldest append, and the next deadline of timers or of that append.
    fn next_event(&self) -> Option<(Option<Arc<Waiter>>, Option<Instant>)> {
        let state = self.state.lock();
        if state.phase.is_resigned() {
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

impl State {
    fn send(&mut self, replies: Vec<(RequestToken, Reply)>) {
        for (token, reply) in replies {
            if let Some(sender) = self.replies.remove(&token) {
                // The client may be gone.
                let _ = sender.send(reply);
            }
        }
    }
}
