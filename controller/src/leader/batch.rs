//! Several decisions, one entry.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use ottla_metadata::decide::{
    BACKGROUND_PARTITIONS_MAX, Decision, RegistrationDecision, Situation, decide, default_features, register,
};
use ottla_metadata::features::METADATA_VERSION;
use ottla_metadata::image::{BrokerId, LogIndex, MetadataImage};
use ottla_proto::controller as proto;
use ottla_proto::metadata::metadata_record::Record;
use ottla_proto::metadata::{ClusterRecord, CompletedCommandRecord, MetadataBatch, MetadataRecord};
use ottla_wire::error_code::ErrorCode;
use prost::Message;
use tokio::sync::oneshot;

use super::announce::{Decided, announce};
use super::{Ask, Chore, LeaderOptions};
use crate::types::{Batch as EntryBatch, Raft};

/// Records of one entry, after which the next command waits for the next entry.
const RECORDS_MAX: usize = 10_000;
/// Bytes of one entry, likewise.
const BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer that is kept in the log: a longer one is remembered by this leader only.
const KEPT_REPLY_BYTES_MAX: usize = 16 << 10;
/// Switches unclean elections on and off.
const UNCLEAN_ELECTION: &str = "unclean.leader.election.enable";

/// Somebody whose answer the entry makes true.
pub(super) enum Waiting {
    Command {
        id: bytes::Bytes,
        answer: proto::CommandReply,
        changes_isr: bool,
        reply: oneshot::Sender<proto::CommandReply>,
    },
    Register {
        cluster_id: String,
        reply: oneshot::Sender<proto::RegisterBrokerReply>,
    },
}

impl Waiting {
    /// Whether it changes an ISR.
    pub(super) fn changed_isr(&self) -> bool {
        matches!(self, Self::Command { changes_isr: true, .. })
    }

    /// The answer goes out; a command's is given back to be remembered.
    pub(super) fn release(self, index: i64) -> Option<(bytes::Bytes, proto::CommandReply)> {
        // Whoever asked may be gone; the command is done all the same.
        match self {
            Self::Command { id, mut answer, reply, .. } => {
                // It may rest on an earlier entry than this one.
                answer.index = answer.index.max(index);
                drop(reply.send(answer.clone()));
                Some((id, answer))
            }
            Self::Register { cluster_id, reply } => {
                let answer = proto::RegisterBrokerReply { failure: None, broker_epoch: index, cluster_id };
                drop(reply.send(answer));
                None
            }
        }
    }

    /// It is not known whether the entry is committed: the command is to be sent again, under its id.
    pub(super) fn fail(self, failure: proto::Failure) {
        let failure = Some(failure);
        match self {
            Self::Command { reply, .. } => {
                drop(reply.send(proto::CommandReply { failure, ..Default::default() }));
            }
            Self::Register { reply, .. } => {
                drop(reply.send(proto::RegisterBrokerReply { failure, ..Default::default() }));
            }
        }
    }
}

pub(super) enum Outcome {
    Applied { index: i64, waiting: Vec<Waiting> },
    Failed { waiting: Vec<Waiting> },
}

pub(super) type InFlight = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Waits for the entry under way; for ever if there is none.
pub(super) async fn finished(in_flight: &mut Option<InFlight>) -> Outcome {
    match in_flight {
        Some(in_flight) => in_flight.await,
        None => std::future::pending().await,
    }
}

/// What a new cluster's log starts with.
pub(super) fn first_records(
    image: &MetadataImage,
    cluster_id: &str,
    configured: &[MetadataRecord],
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    if image.cluster_id().is_empty() {
        let cluster = ClusterRecord { cluster_id: cluster_id.to_owned() };
        records.push(MetadataRecord { record: Some(Record::Cluster(cluster)) });
        records.extend_from_slice(configured);
    }
    // A cluster without the level of its own metadata is new, or was made before levels were kept.
    if image.feature_level(METADATA_VERSION) == 0 {
        records.extend(default_features());
    }
    records
}

/// Whether a command that is carried out twice would be answered otherwise: its answer is kept in the log, so that the next
/// leader gives it too.
fn must_not_repeat(command: &proto::command::Command) -> bool {
    use proto::command::Command;
    match command {
        Command::CreateTopics(_)
        | Command::DeleteTopics(_)
        | Command::CreatePartitions(_)
        | Command::UnregisterBroker(_)
        | Command::ElectLeaders(_)
        | Command::AlterReassignments(_)
        | Command::DeleteAcls(_)
        | Command::AlterScramCredentials(_)
        | Command::CreateDelegationToken(_)
        | Command::RenewDelegationToken(_)
        | Command::ExpireDelegationToken(_) => true,
        // A second time these change nothing and say the same; producer ids may be left out.
        Command::AlterConfigs(_)
        | Command::AlterPartitions(_)
        | Command::AllocateProducerIds(_)
        | Command::UpdateFeatures(_)
        | Command::AlterClientQuotas(_)
        | Command::CreateAcls(_)
        | Command::AssignReplicasToDirectories(_) => false,
    }
}

/// The record that keeps an answer, if it is to be kept.
fn kept_reply(
    id: &bytes::Bytes,
    command: &proto::command::Command,
    decision: &Decision<proto::command_reply::Reply>,
) -> Option<MetadataRecord> {
    if id.is_empty() || decision.records.is_empty() || !must_not_repeat(command) {
        return None;
    }
    let reply = proto::CommandReply { failure: None, index: 0, reply: Some(decision.reply.clone()) };
    if reply.encoded_len() > KEPT_REPLY_BYTES_MAX {
        return None;
    }
    let completed =
        CompletedCommandRecord { command_id: id.clone(), reply: reply.encode_to_vec().into(), index: 0 };
    Some(MetadataRecord { record: Some(Record::CompletedCommand(completed)) })
}

/// Whether a command may bring replicas back that leadership is to return to: not when all that it is about is being
/// reassigned, for then whoever asked for that says when leaders change.
fn brings_replicas_back(image: &MetadataImage, command: &proto::command::Command) -> bool {
    let proto::command::Command::AlterPartitions(command) = command else { return false };
    command.partitions.iter().any(|asked| {
        let topic_id = uuid::Uuid::from_slice(&asked.topic_id).unwrap_or_default();
        let partition = image.partition(topic_id.into(), asked.partition);
        partition.is_some_and(|partition| !partition.is_reassigning())
    })
}

/// Whether records may let partitions elect that could not before.
fn switches_unclean_elections(records: &[MetadataRecord]) -> bool {
    records.iter().any(|record| match &record.record {
        Some(Record::Config(config)) => config.name == UNCLEAN_ELECTION,
        _ => false,
    })
}

pub(super) struct Batch {
    /// The applied image and what was decided since. Indices in it run ahead of the log; nothing that is decided here
    /// depends on them.
    image: Arc<MetadataImage>,
    records: Vec<MetadataRecord>,
    bytes: usize,
    waiting: Vec<Waiting>,
    /// Index of the applied image: what lies behind it is decided but not committed.
    applied: LogIndex,
    elects: bool,
    decided: Arc<Decided>,
}

impl Batch {
    /// Decides what waits, as much as fits one entry.
    pub(super) fn decide(
        image: Arc<MetadataImage>,
        options: &LeaderOptions,
        chores: &mut VecDeque<Chore>,
        asks: &mut VecDeque<Ask>,
        remembered: &HashMap<bytes::Bytes, proto::CommandReply>,
        is_held: impl Fn(BrokerId) -> bool,
    ) -> Self {
        let applied = image.index();
        let mut batch = Self {
            image,
            records: Vec::new(),
            bytes: 0,
            waiting: Vec::new(),
            applied,
            elects: false,
            decided: Arc::clone(&options.decided),
        };
        while !batch.is_full()
            && let Some(chore) = chores.pop_front()
        {
            let image = Arc::clone(&batch.image);
            let records = chore.decide(situation(&image, options), options);
            // An election in the background stops at a limit: the rest follows.
            if records.len() >= BACKGROUND_PARTITIONS_MAX && chore.comes_in_parts() {
                chores.push_back(chore.clone());
            }
            if let Err(error) = batch.add(records) {
                tracing::error!(?chore, "a decision of the controller does not fit its own state: {error}");
            }
        }
        while !batch.is_full()
            && let Some(ask) = asks.pop_front()
        {
            match ask {
                Ask::Command(command, reply) => batch.command(command, reply, options, remembered),
                Ask::Register(request, reply) => {
                    // Its epoch is the entry's index: nothing that could look at it is decided behind it.
                    if batch.register(&request, reply, options, &is_held) {
                        break;
                    }
                }
            }
        }
        if batch.elects {
            chores.push_back(Chore::ElectLeaderless);
        }
        batch
    }

    fn is_full(&self) -> bool {
        self.records.len() >= RECORDS_MAX || self.bytes >= BYTES_MAX
    }

    fn add(&mut self, records: Vec<MetadataRecord>) -> Result<(), ottla_metadata::apply::ApplyError> {
        if records.is_empty() {
            return Ok(());
        }
        let (image, _) = self.image.apply(LogIndex(self.image.index().0 + 1), &records)?;
        announce(&self.image, &records, &self.decided);
        self.image = Arc::new(image);
        self.bytes += records.iter().map(Message::encoded_len).sum::<usize>();
        self.records.extend(records);
        Ok(())
    }

    fn command(
        &mut self,
        command: proto::Command,
        reply: oneshot::Sender<proto::CommandReply>,
        options: &LeaderOptions,
        remembered: &HashMap<bytes::Bytes, proto::CommandReply>,
    ) {
        let id = command.command_id;
        // The first of two may have been decided while the second waited.
        if let Some(answer) = remembered.get(&id).filter(|_| !id.is_empty()) {
            drop(reply.send(answer.clone()));
            return;
        }
        let image = Arc::clone(&self.image);
        // An earlier leader may have carried it out, or this very entry does.
        if let Some(completed) = image.completed_command(&id).filter(|_| !id.is_empty())
            && let Ok(mut answer) = proto::CommandReply::decode(completed.reply.clone())
        {
            answer.index = if completed.index > self.applied { 0 } else { completed.index.0 };
            self.waiting.push(Waiting::Command { id, answer, changes_isr: false, reply });
            return;
        }
        let failed = |failure| proto::CommandReply { failure: Some(failure), index: 0, reply: None };
        let mut changes_isr = false;
        let answer = match &command.command {
            None => {
                failed(failure(ErrorCode::InvalidRequest, "a command that this controller does not know"))
            }
            Some(command) => match decide(situation(&image, options), command) {
                Err(refusal) => failed(refusal.to_failure()),
                Ok(mut decision) => {
                    decision.records.extend(kept_reply(&id, command, &decision));
                    self.elects |= switches_unclean_elections(&decision.records);
                    changes_isr = brings_replicas_back(&image, command) && !decision.records.is_empty();
                    match self.add(decision.records) {
                        Ok(()) => {
                            proto::CommandReply { failure: None, index: 0, reply: Some(decision.reply) }
                        }
                        Err(error) => failed(failure(ErrorCode::UnknownServerError, &error.to_string())),
                    }
                }
            },
        };
        self.waiting.push(Waiting::Command { id, answer, changes_isr, reply });
    }

    /// True: it is part of the entry.
    fn register(
        &mut self,
        request: &proto::RegisterBrokerRequest,
        reply: oneshot::Sender<proto::RegisterBrokerReply>,
        options: &LeaderOptions,
        is_held: &impl Fn(BrokerId) -> bool,
    ) -> bool {
        let image = Arc::clone(&self.image);
        let id = BrokerId(request.registration.as_ref().map_or(-1, |registration| registration.broker_id));
        let cluster_id = image.cluster_id().to_owned();
        let failed = |failure| proto::RegisterBrokerReply { failure: Some(failure), ..Default::default() };
        let answer = match register(situation(&image, options), request, is_held(id)) {
            Err(refusal) => failed(refusal.to_failure()),
            Ok(RegistrationDecision::Already(epoch)) => {
                proto::RegisterBrokerReply { failure: None, broker_epoch: epoch.0, cluster_id }
            }
            Ok(RegistrationDecision::Register(records)) => match self.add(records) {
                Ok(()) => {
                    self.waiting.push(Waiting::Register { cluster_id, reply });
                    return true;
                }
                Err(error) => failed(failure(ErrorCode::UnknownServerError, &error.to_string())),
            },
        };
        drop(reply.send(answer));
        false
    }

    /// Sends the entry on its way. Without records the answers rest on what is committed already and go out at once.
    pub(super) fn propose(self, raft: &Raft) -> Option<InFlight> {
        if self.records.is_empty() {
            for waiting in self.waiting {
                drop(waiting.release(0));
            }
            return None;
        }
        let entry = EntryBatch(MetadataBatch { records: self.records }.encode_to_vec().into());
        let (raft, waiting) = (raft.clone(), self.waiting);
        Some(Box::pin(async move {
            match raft.client_write(entry).await {
                Ok(written) => {
                    Outcome::Applied { index: crate::types::image_index(&written.log_id), waiting }
                }
                Err(error) => {
                    tracing::warn!("an entry of the metadata log was not confirmed: {error}");
                    Outcome::Failed { waiting }
                }
            }
        }))
    }
}

fn situation<'a>(image: &'a MetadataImage, options: &'a LeaderOptions) -> Situation<'a> {
    Situation { image, properties: &options.properties, seed: rand::random() }
}

fn failure(code: ErrorCode, message: &str) -> proto::Failure {
    proto::Failure {
        error_code: code.code().into(),
        message: message.to_owned(),
        leader_id: -1,
        leader_endpoint: String::new(),
    }
}
