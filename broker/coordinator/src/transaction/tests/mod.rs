//! Tests of the machine, driven as a shell would drive it: a log that commits at once or when told to.

mod end;
mod expiry;
mod exploration;
mod failover;
mod init;
mod limits;
mod markers;
mod model;
mod queries;
mod states;
mod waiting;

use std::collections::BTreeMap;

use ottla_wire::error_code::ErrorCode;
use ottla_wire::text::Text;

use super::*;

pub(super) const ID: &str = "orders";
pub(super) const TIMEOUT_MS: i32 = 60_000;
pub(super) const COORDINATOR_EPOCH: i32 = 3;
pub(super) const V0: TransactionVersion = TransactionVersion::V0;
pub(super) const V2: TransactionVersion = TransactionVersion::V2;

pub(super) fn partition(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition { topic: Text::from(topic), partition }
}

pub(super) fn granted(producer_id: i64, producer_epoch: i16) -> ProducerReply {
    ProducerReply::granted(producer_id, producer_epoch)
}

pub(super) fn refused(error: ErrorCode) -> ProducerReply {
    ProducerReply::refused(error)
}

/// A coordinator with its log.
#[derive(Debug)]
pub(super) struct Harness {
    pub(super) machine: TransactionCoordinator,
    /// What is committed, in order.
    pub(super) log: Vec<CoordinatorRecord>,
    /// Appends that wait for their fate, in order.
    pub(super) held: Vec<Append>,
    pub(super) replies: BTreeMap<RequestToken, Reply>,
    pub(super) markers: Vec<SendMarkers>,
    /// Appends are held until `commit` or `fail`.
    pub(super) holds: bool,
    pub(super) now: Now,
    last_token: u64,
    last_producer_id: i64,
}

impl Harness {
    pub(super) fn new(version: TransactionVersion) -> Self {
        let config = TransactionConfig { version, ..TransactionConfig::default() };
        let mut harness = Self::not_leading(config, Vec::new());
        harness.lead();
        harness
    }

    pub(super) fn not_leading(config: TransactionConfig, log: Vec<CoordinatorRecord>) -> Self {
        let mut machine = TransactionCoordinator::new(config);
        for record in &log {
            machine.apply(&record.key, record.value.as_ref()).unwrap();
        }
        Self {
            machine,
            log,
            held: Vec::new(),
            replies: BTreeMap::new(),
            markers: Vec::new(),
            holds: false,
            now: Now { monotonic_ms: 50, wall_ms: 1_000_000 },
            last_token: 0,
            last_producer_id: 1000,
        }
    }

    pub(super) fn lead(&mut self) {
        let mut effects = Effects::default();
        self.machine.lead(self.now, COORDINATOR_EPOCH, &mut effects);
        self.execute(effects);
    }

    /// A new coordinator that has read this one's committed log.
    pub(super) fn failover(&self) -> Self {
        let mut next = Self::not_leading(self.machine.config.clone(), self.log.clone());
        next.now = self.now;
        next.last_producer_id = self.last_producer_id + 100;
        next.lead();
        next
    }

    pub(super) fn execute(&mut self, effects: Effects) {
        for (token, reply) in effects.replies {
            assert_eq!(self.replies.insert(token, reply), None, "{token:?} is answered twice");
        }
        self.markers.extend(effects.markers);
        self.held.extend(effects.appends);
        while !self.holds && !self.held.is_empty() {
            self.commit();
        }
    }

    /// The oldest append that is held is committed.
    pub(super) fn commit(&mut self) {
        let append = self.held.remove(0);
        assert!(!append.records.is_empty());
        for record in &append.records {
            self.machine.apply(&record.key, record.value.as_ref()).unwrap();
        }
        self.log.extend(append.records);
        let mut effects = Effects::default();
        self.machine.committed(self.now, append.ticket, &mut effects);
        self.execute(effects);
    }

    /// The oldest append that is held fails.
    pub(super) fn fail(&mut self, error: ErrorCode) {
        let append = self.held.remove(0);
        let mut effects = Effects::default();
        self.machine.failed(self.now, append.ticket, error, &mut effects);
        self.execute(effects);
    }

    pub(super) fn fresh(&mut self) -> i64 {
        self.last_producer_id += 1;
        self.last_producer_id
    }

    pub(super) fn submit(&mut self, command: &Command) -> RequestToken {
        self.last_token += 1;
        let token = RequestToken(self.last_token);
        let mut effects = Effects::default();
        self.machine.step(self.now, token, command, &mut effects);
        self.execute(effects);
        token
    }

    pub(super) fn call(&mut self, command: &Command) -> Reply {
        let token = self.submit(command);
        *self.replies.get(&token).expect("answered at once")
    }

    pub(super) fn init_command(&mut self, producer_id: i64, producer_epoch: i16) -> Command {
        Command::InitProducerId(InitProducerId {
            transactional_id: Text::from(ID),
            timeout_ms: TIMEOUT_MS,
            producer_id,
            producer_epoch,
            enable_two_phase_commit: false,
            keep_prepared: false,
            fresh_producer_id: Some(self.fresh()),
        })
    }

    pub(super) fn init_as(&mut self, producer_id: i64, producer_epoch: i16) -> ProducerReply {
        let command = self.init_command(producer_id, producer_epoch);
        match self.call(&command) {
            Reply::InitProducerId(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn init(&mut self) -> ProducerReply {
        self.init_as(NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
    }

    pub(super) fn add_command(
        producer: ProducerReply,
        partitions: &[TopicPartition],
        version: TransactionVersion,
    ) -> Command {
        Command::AddPartitions(AddPartitions {
            transactional_id: Text::from(ID),
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            client_version: version,
            partitions: partitions.to_vec(),
            wait_ms_max: 0,
        })
    }

    pub(super) fn add(
        &mut self,
        producer: ProducerReply,
        partitions: &[TopicPartition],
        version: TransactionVersion,
    ) -> ErrorCode {
        match self.call(&Self::add_command(producer, partitions, version)) {
            Reply::AddPartitions(error) => error,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn end_command(
        &mut self,
        producer: ProducerReply,
        commit: bool,
        version: TransactionVersion,
    ) -> Command {
        Command::EndTxn(EndTxn {
            transactional_id: Text::from(ID),
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            commit,
            client_version: version,
            fresh_producer_id: Some(self.fresh()),
        })
    }

    pub(super) fn end(
        &mut self,
        producer: ProducerReply,
        commit: bool,
        version: TransactionVersion,
    ) -> ProducerReply {
        let command = self.end_command(producer, commit, version);
        match self.call(&command) {
            Reply::EndTxn(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// Every partition of the newest markers answers alike.
    pub(super) fn answer_markers(&mut self, outcome: MarkerOutcome) {
        let sent = self.markers.last().expect("markers were sent").clone();
        let outcomes: Vec<_> = sent.partitions.iter().map(|partition| (partition.clone(), outcome)).collect();
        self.answer(sent.token, &outcomes);
    }

    pub(super) fn answer(&mut self, token: MarkerToken, outcomes: &[(TopicPartition, MarkerOutcome)]) {
        let mut effects = Effects::default();
        self.machine.markers_answered(self.now, token, outcomes, &mut effects);
        self.execute(effects);
    }

    pub(super) fn written(&mut self) {
        self.answer_markers(MarkerOutcome::Answered(ErrorCode::None));
    }

    pub(super) fn pass(&mut self, elapsed_ms: u64) {
        self.now.monotonic_ms += elapsed_ms;
        self.now.wall_ms += i64::try_from(elapsed_ms).unwrap();
        let mut effects = Effects::default();
        self.machine.tick(self.now, &mut effects);
        self.execute(effects);
    }

    pub(super) fn abort_timed_out(&mut self) {
        let mut effects = Effects::default();
        self.machine.abort_timed_out(self.now, &mut effects);
        self.execute(effects);
    }

    pub(super) fn expire_ids(&mut self) {
        let mut effects = Effects::default();
        self.machine.expire_ids(self.now, &mut effects);
        self.execute(effects);
    }

    pub(super) fn known(&self) -> &TransactionMetadata {
        self.machine.durable().transaction(ID).expect("the id is known")
    }

    pub(super) fn state(&self) -> TransactionState {
        self.known().state
    }

    /// What a reader of the log alone knows is what the machine knows (I56 of the coordinator's log).
    pub(super) fn assert_replay_equals_live(&self) {
        let replayed = Self::not_leading(self.machine.config.clone(), self.log.clone());
        assert_eq!(replayed.machine.durable(), self.machine.durable());
    }
}
