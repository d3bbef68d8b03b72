//! The machine of one partition of `__transaction_state`: many transactional ids, each with at most one transaction
//! (KIP-98, KIP-360, KIP-588, KIP-890).
//!
//! How a shell drives it:
//!
//! 1. While it reads the log (as leader to be, or as standby): [`TransactionCoordinator::apply`], in order of offsets.
//! 2. Once the log is applied to its end and this node leads: [`TransactionCoordinator::lead`].
//! 3. Every request: [`TransactionCoordinator::step`] (or a query: `verify`, `describe`, `list`). Then the
//!    [`Effects`]: append each batch, send each reply, send each set of markers.
//! 4. When a batch is committed: `apply` its records, then [`TransactionCoordinator::committed`]; if it failed,
//!    [`TransactionCoordinator::failed`]. Replies and markers that the append makes true come out of these.
//! 5. When partitions answered to markers: [`TransactionCoordinator::markers_answered`].
//! 6. A timer at [`TransactionCoordinator::next_deadline_ms`], then [`TransactionCoordinator::tick`]; every
//!    `transaction.abort.timed.out.transaction.cleanup.interval.ms` [`TransactionCoordinator::abort_timed_out`]; every
//!    `transaction.remove.expired.transaction.cleanup.interval.ms` [`TransactionCoordinator::expire_ids`].
//! 7. When it leads no more: [`TransactionCoordinator::resign`].
//!
//! What makes it safe: a decision is in the log and committed before anyone hears of it, be it by reply or by marker
//! (I62). One change of an id is on its way at a time; whoever comes meanwhile gets CONCURRENT_TRANSACTIONS (I60). An
//! append of which nobody knows whether it took place is a failure here: nothing was said on its strength, and what
//! this leader appends next comes after it in the log and overrides it.

mod command;
mod decide;
mod describe;
mod expire;
mod markers;
mod records;
mod state;
#[cfg(test)]
mod tests;
pub mod verification;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

pub use command::{
    AddPartitions, Append, Command, Effects, EndTxn, InitProducerId, MarkerOutcome, MarkerToken,
    PRODUCER_FENCED_SINCE_ADD_OFFSETS, PRODUCER_FENCED_SINCE_ADD_PARTITIONS, PRODUCER_FENCED_SINCE_END_TXN,
    PRODUCER_FENCED_SINCE_INIT_PRODUCER_ID, ProducerReply, Reply, SendMarkers, for_request_version,
};
pub use describe::{TransactionDescription, TransactionFilter, TransactionListing};
pub use records::RecordError;
pub use state::{
    Applied, DurableState, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_TIME_MS, PRODUCER_EPOCH_FOR_CLIENTS_MAX,
    TransactionMetadata, TransactionState, TransactionVersion,
};
pub use waiting::WAITING_ADDITIONS_MAX;

use crate::group::{CoordinatorRecord, Now, RequestToken, Ticket, TopicPartition};
use decide::{Decision, View};
use markers::MarkersOnTheirWay;
use waiting::Waiter;

/// Transactional ids of one coordinator partition that are kept in memory. More are refused with POLICY_VIOLATION.
pub const TRANSACTIONAL_IDS_MAX: usize = 1_000_000;
/// Partitions of one transaction: all stand in each of its records. One more is refused with POLICY_VIOLATION.
pub const PARTITIONS_PER_TRANSACTION_MAX: usize = 20_000;
/// Pause before markers that were not written, or the record that ends a transaction, are tried again.
pub const MARKER_RETRY_PAUSE_MS: u64 = 100;

/// The settings of transactions; Kafka's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`
    pub timeout_ms_max: i32,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
    /// The cluster's level of the feature `transaction.version`.
    pub version: TransactionVersion,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            timeout_ms_max: 900_000,
            id_expiration_ms: 7 * 24 * 60 * 60 * 1000,
            version: TransactionVersion::V2,
        }
    }
}

/// The coordinator of the transactional ids of one partition of `__transaction_state`.
#[derive(Debug, Clone)]
pub struct TransactionCoordinator {
    config: TransactionConfig,
    durable: DurableState,
    /// The leader epoch of the partition, while this leads it.
    leading: Option<i32>,
    live: BTreeMap<Text, Live>,
    appends: BTreeMap<Ticket, PendingAppend>,
    /// Whose markers a token names.
    tokens: BTreeMap<MarkerToken, Text>,
    /// When markers of ids are to be tried again, on the monotonic clock.
    timers: BTreeSet<(u64, Text)>,
    /// Until when additions wait, on the monotonic clock.
    waiting_until: BTreeSet<(u64, Text)>,
    last_ticket: u64,
    last_token: u64,
}

/// What is known of an id beside the log; a failover loses it.
#[derive(Debug, Clone)]
struct Live {
    /// See [`Transition`].
    last_producer_epoch: i16,
    /// A change is on its way.
    is_changing: bool,
    markers: Option<MarkersOnTheirWay>,
    waiters: Vec<Waiter>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            last_producer_epoch: NO_PRODUCER_EPOCH,
            is_changing: false,
            markers: None,
            waiters: Vec::new(),
        }
    }
}

/// An append on its way.
#[derive(Debug, Clone)]
struct PendingAppend {
    transactional_ids: Vec<Text>,
    then: Then,
}

/// What follows from an append's fate.
#[derive(Debug, Clone)]
enum Then {
    /// The requests' reply if it is committed; refused if not.
    Reply { tokens: Vec<RequestToken>, reply: Reply, last_producer_epoch: i16 },
    /// A transaction that ran out of time is aborted.
    TimedOut,
    /// A transaction is over; tried again if not.
    Completed,
    /// The ids are gone.
    Expired,
}

impl TransactionCoordinator {
    /// An empty one, not leading.
    pub fn new(config: TransactionConfig) -> Self {
        Self {
            config,
            durable: DurableState::default(),
            leading: None,
            live: BTreeMap::new(),
            appends: BTreeMap::new(),
            tokens: BTreeMap::new(),
            timers: BTreeSet::new(),
            waiting_until: BTreeSet::new(),
            last_ticket: 0,
            last_token: 0,
        }
    }

    /// What the log says.
    pub fn durable(&self) -> &DurableState {
        &self.durable
    }

    /// The settings; new ones count from the next step on.
    pub fn set_config(&mut self, config: TransactionConfig) {
        self.config = config;
    }

    /// The limits that it goes by.
    pub fn config(&self) -> &TransactionConfig {
        &self.config
    }

    /// One committed record of the log.
    pub fn apply(&mut self, key: &Bytes, value: Option<&Bytes>) -> Result<Applied, RecordError> {
        self.durable.apply(key, value)
    }

    /// Leadership begins: the log is applied to its end. What is decided is carried on: markers are sent again, also
    /// to partitions that have them, where they change nothing.
    pub fn lead(&mut self, now: Now, coordinator_epoch: i32, effects: &mut Effects) {
        self.forget_soft_state();
        self.leading = Some(coordinator_epoch);
        let prepared = self.durable.transactions().filter(|(_, found)| found.state.is_prepared());
        let prepared: Vec<Text> = prepared.map(|(id, _)| id.clone()).collect();
        for id in prepared {
            self.begin_markers(now, &id, effects);
        }
    }

    /// Leadership is lost: whoever waits is sent to the new coordinator. Appends on their way may yet be committed; if
    /// they are, they come back through `apply`. Answers to markers are of no interest any more.
    pub fn resign(&mut self, effects: &mut Effects) {
        for (_, pending) in std::mem::take(&mut self.appends) {
            if let Then::Reply { tokens, reply, .. } = pending.then {
                let gone = reply.failed(ErrorCode::NotCoordinator);
                effects.replies.extend(tokens.into_iter().map(|token| (token, gone)));
            }
        }
        self.send_waiters_away(effects);
        self.forget_soft_state();
    }

    fn forget_soft_state(&mut self) {
        self.leading = None;
        self.live.clear();
        self.appends.clear();
        self.tokens.clear();
        self.timers.clear();
        self.waiting_until.clear();
    }

    /// A request that may change something. Its answer, under its token, is among these effects or later ones.
    pub fn step(&mut self, now: Now, token: RequestToken, command: &Command, effects: &mut Effects) {
        match self.decide(now, command) {
            Err(ErrorCode::ConcurrentTransactions) if matches!(command, Command::AddPartitions(command) if self.wait(now, token, command)) =>
                {}
            Err(error) => effects.replies.push((token, command.refusal(error))),
            Ok(Decision::Answer(reply)) => effects.replies.push((token, reply)),
            Ok(Decision::Write(transition)) => {
                let id = command.transactional_id().detached();
                self.write_for(vec![token], &id, transition, effects);
            }
        }
    }

    fn decide(&self, now: Now, command: &Command) -> Result<Decision, ErrorCode> {
        if self.leading.is_none() {
            return Err(ErrorCode::NotCoordinator);
        }
        let id = command.transactional_id();
        let view = self.view(now, id);
        let decision = match command {
            Command::InitProducerId(command) => view.init_producer_id(command),
            Command::AddPartitions(command) => view.add_partitions(command),
            Command::EndTxn(command) => view.end(command),
        }?;
        let is_new = view.current.is_none() && matches!(decision, Decision::Write(_));
        if is_new && self.durable.transactions_count() >= TRANSACTIONAL_IDS_MAX {
            return Err(ErrorCode::PolicyViolation);
        }
        Ok(decision)
    }

    fn view(&self, now: Now, transactional_id: &str) -> View<'_> {
        let live = self.live.get(transactional_id);
        View {
            config: &self.config,
            now_ms: now.wall_ms,
            current: self.durable.transaction(transactional_id),
            last_producer_epoch: live.map_or(NO_PRODUCER_EPOCH, |live| live.last_producer_epoch),
            is_changing: live.is_some_and(|live| live.is_changing),
        }
    }

    /// Whether these partitions are part of the transaction that this producer has open: one code each (KIP-890 part 1;
    /// AddPartitionsToTxn 4 and 5 with `verify_only`).
    pub fn verify(
        &self,
        transactional_id: &str,
        producer_id: i64,
        producer_epoch: i16,
        partitions: &[TopicPartition],
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        if self.leading.is_none() {
            return Err(ErrorCode::NotCoordinator);
        }
        // No time is involved.
        let now = Now { monotonic_ms: 0, wall_ms: 0 };
        self.view(now, transactional_id).verify(transactional_id, producer_id, producer_epoch, partitions)
    }

    /// Appends a change of an id; false if it cannot be put into a record.
    fn write(&mut self, id: &Text, next: &TransactionMetadata, then: Then, effects: &mut Effects) -> bool {
        let Ok(record) = records::transaction(id, next, self.config.version) else { return false };
        self.append(vec![id.clone()], vec![record], then, effects);
        true
    }

    fn append(
        &mut self,
        transactional_ids: Vec<Text>,
        records: Vec<CoordinatorRecord>,
        then: Then,
        effects: &mut Effects,
    ) {
        for id in &transactional_ids {
            self.live.entry(id.clone()).or_default().is_changing = true;
        }
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        self.appends.insert(ticket, PendingAppend { transactional_ids, then });
        effects.appends.push(Append { ticket, records });
    }

    /// The records of this append are committed and have been applied.
    pub fn committed(&mut self, now: Now, ticket: Ticket, effects: &mut Effects) {
        let Some(pending) = self.appends.remove(&ticket) else { return };
        for id in &pending.transactional_ids {
            let live = self.live.entry(id.clone()).or_default();
            live.is_changing = false;
            match &pending.then {
                Then::Reply { last_producer_epoch, .. } => live.last_producer_epoch = *last_producer_epoch,
                Then::TimedOut => live.last_producer_epoch = NO_PRODUCER_EPOCH,
                Then::Completed => self.end_markers(id),
                Then::Expired => {}
            }
            if self.durable.transaction(id).is_some_and(|found| found.state.is_prepared()) {
                self.begin_markers(now, id, effects);
            }
        }
        if let Then::Reply { tokens, reply, .. } = &pending.then {
            effects.replies.extend(tokens.iter().map(|token| (*token, *reply)));
        }
        self.go_on(now, &pending.transactional_ids, effects);
    }

    /// The append failed with this code of Produce. If it is not known whether it took place, that is a failure too;
    /// the head of this module says why that is safe.
    pub fn failed(&mut self, now: Now, ticket: Ticket, error: ErrorCode, effects: &mut Effects) {
        let Some(pending) = self.appends.remove(&ticket) else { return };
        for id in &pending.transactional_ids {
            if let Some(live) = self.live.get_mut(id) {
                live.is_changing = false;
            }
            if matches!(pending.then, Then::Completed) {
                self.retry_later(now, id);
            }
        }
        if let Then::Reply { tokens, reply, .. } = &pending.then {
            let refused = reply.failed(append_error(error));
            effects.replies.extend(tokens.iter().map(|token| (*token, refused)));
        }
        self.go_on(now, &pending.transactional_ids, effects);
    }

    /// A change of these ids is through, or not.
    fn go_on(&mut self, now: Now, ids: &[Text], effects: &mut Effects) {
        for id in ids {
            self.serve_waiters(now, id, effects);
            self.drop_if_nothing(id);
        }
    }

    /// Keeps the map of what is live as small as what is going on.
    fn drop_if_nothing(&mut self, id: &Text) {
        let is_nothing = |live: &Live| {
            live.last_producer_epoch == NO_PRODUCER_EPOCH
                && !live.is_changing
                && live.markers.is_none()
                && live.waiters.is_empty()
        };
        let is_unknown = self.durable.transaction(id).is_none();
        if self.live.get(id).is_some_and(|live| is_nothing(live) || (is_unknown && !live.is_changing)) {
            self.live.remove(id);
        }
    }

    /// When something may be due, on the monotonic clock. Possibly earlier than anything is.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let first = |timers: &BTreeSet<(u64, Text)>| timers.first().map(|(at_ms, _)| *at_ms);
        first(&self.timers).into_iter().chain(first(&self.waiting_until)).min()
    }
}

/// What a client is told of an append that failed.
fn append_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => ErrorCode::UnknownServerError,
        other => other,
    }
}
