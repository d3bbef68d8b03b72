//! Asking the share coordinator of a share-partition, here or on another broker. The topic of share states is created on
//! first use.

use std::collections::HashMap;
use std::time::Duration;

use ottla_coordinator::share_state::{Command, ReadState, ShareKey, StateBatch};
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    DeleteShareGroupStateRequest, InitializeShareGroupStateRequest, ReadShareGroupStateRequest,
    ReadShareGroupStateSummaryRequest, Request, WriteShareGroupStateRequest,
    delete_share_group_state_request as delete, initialize_share_group_state_request as initialize,
    read_share_group_state_request as read, read_share_group_state_summary_request as summary,
    write_share_group_state_request as write,
};
use ottla_wire::text::Text;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Refused, ShareService};
use crate::internal_topics::SHARE_GROUP_STATE;
use crate::replication::peer::Peer;

/// How long one share coordinator may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long another one is looked for, while nobody coordinates or the one asked is not (yet) it.
const SEARCH_MAX: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the creation of the topic may take.
const CREATION_PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to create the topic.
const CREATION_PAUSE: Duration = Duration::from_millis(500);
/// Connections to one coordinator that are kept while nobody needs them.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// Connections to brokers that coordinate, while nobody needs them.
#[derive(Default)]
pub(super) struct Persister {
    idle: Mutex<HashMap<i32, Vec<Peer>>>,
    creation: tokio::sync::Mutex<()>,
}

/// One question: a command, or `None` for what is known.
struct Question<'a> {
    key: &'a ShareKey,
    command: Option<&'a Command>,
}

impl ShareService {
    /// Has a command carried out by the share coordinator; tries again while it is being looked for.
    pub(crate) async fn persist(&self, key: &ShareKey, command: &Command) -> Result<ReadState, Refused> {
        self.ask(&Question { key, command: Some(command) }).await
    }

    /// What the share coordinator knows of a share-partition.
    pub(crate) async fn summary(&self, key: &ShareKey) -> Result<ReadState, Refused> {
        self.ask(&Question { key, command: None }).await
    }

    async fn ask(&self, question: &Question<'_>) -> Result<ReadState, Refused> {
        let deadline = Instant::now() + SEARCH_MAX;
        loop {
            let answer = self.ask_once(question).await;
            match answer {
                Err(refused) if may_pass(refused.error) && Instant::now() < deadline => {
                    tracing::debug!(key = question.key.coordinator_key(), error = %refused.error, "no share coordinator yet");
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn ask_once(&self, question: &Question<'_>) -> Result<ReadState, Refused> {
        let replicas = &self.foundation.replicas;
        let Some(index) = self.state_partition_of(question.key) else {
            self.create_state_topic().await;
            return Err(ErrorCode::CoordinatorNotAvailable.into());
        };
        let leader = replicas
            .image()
            .topic_by_name(SHARE_GROUP_STATE)
            .and_then(|topic| topic.partitions.get(usize::try_from(index).ok()?)?.leader)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?
            .0;
        if leader == replicas.shared().options.broker_id {
            return match question.command {
                Some(command) => Ok(self.state_here(question.key, command).await?.unwrap_or_default()),
                None => self.summary_here(question.key).await,
            };
        }
        let idle = self.persister.idle.lock().get_mut(&leader).and_then(Vec::pop);
        let mut peer = match idle {
            Some(peer) => peer,
            None => self.connect(leader).await?,
        };
        let mut answer = call(&mut peer, question).await;
        if answer.is_err() {
            // An idle connection may have been closed by the other end since; whatever is asked may be asked twice.
            peer = self.connect(leader).await?;
            answer = call(&mut peer, question).await;
        }
        let answer = answer.map_err(|error| {
            tracing::warn!(leader, %error, "a share coordinator cannot be asked");
            Refused::from(ErrorCode::NetworkException)
        })?;
        let mut idle = self.persister.idle.lock();
        let kept = idle.entry(leader).or_default();
        if kept.len() < IDLE_CONNECTIONS_MAX {
            kept.push(peer);
        }
        drop(idle);
        answer
    }

    async fn connect(&self, broker: i32) -> Result<Peer, Refused> {
        let replicas = &self.foundation.replicas;
        let (host, port) = replicas.broker_endpoint(broker).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let security = &replicas.shared().options.peer_security;
        Peer::connect(&host, port, "ottla-share", ANSWER_TIMEOUT, security).await.map_err(|error| {
            tracing::warn!(broker, %error, "a share coordinator cannot be reached");
            ErrorCode::NetworkException.into()
        })
    }

    /// Creates the topic of share states, if nobody else of this broker is at it.
    async fn create_state_topic(&self) {
        let Ok(_alone) = self.persister.creation.try_lock() else { return };
        let command =
            proto::CreateTopics { validate_only: false, topics: vec![self.foundation.state_topic.clone()] };
        let command = proto::command::Command::CreateTopics(command);
        match self.foundation.controller.submit_within(command, CREATION_PATIENCE).await {
            Ok(proto::CommandReply {
                reply: Some(proto::command_reply::Reply::CreateTopics(reply)), ..
            }) => {
                for topic in reply.topics.iter().filter(|topic| topic.error_code != 0) {
                    tracing::info!(reason = topic.message, "the topic of share states is not created");
                }
                // It is in the image soon, or cannot be created now.
                tokio::time::sleep(CREATION_PAUSE).await;
            }
            Ok(_) => tracing::info!("the topic of share states could not be created"),
            Err(error) => tracing::info!(%error, "the topic of share states could not be created"),
        }
    }
}

/// Whether another attempt may find the coordinator.
fn may_pass(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NetworkException
    )
}

type Answer = Result<Result<ReadState, Refused>, crate::replication::peer::PeerError>;

/// The one partition of an answer.
fn outcome(code: i16, message: Option<Text>) -> Result<ReadState, Refused> {
    let error = ErrorCode::from_code(code);
    if error == ErrorCode::None {
        return Ok(ReadState::default());
    }
    Err(Refused { error, message: message.unwrap_or_else(|| Text::from(error.message())) })
}

/// An answer that does not have the partition that was asked for.
fn missing() -> Result<ReadState, Refused> {
    Err(ErrorCode::UnknownServerError.into())
}

async fn call(peer: &mut Peer, question: &Question<'_>) -> Answer {
    let ShareKey { group_id, topic_id, partition } = question.key;
    let (group_id, topic_id, partition) = (group_id.clone(), *topic_id, *partition);
    match question.command {
        None => {
            let partitions = vec![summary::Partition { partition, leader_epoch: -1 }];
            let request = ReadShareGroupStateSummaryRequest {
                group_id,
                topics: vec![summary::Topic { topic_id, partitions }],
            };
            let answer = newest(peer, &request).await?;
            let found = answer.results.into_iter().flat_map(|result| result.partitions).next();
            Ok(found.map_or_else(missing, |found| {
                outcome(found.error_code, found.error_message).map(|_| ReadState {
                    state_epoch: found.state_epoch,
                    leader_epoch: found.leader_epoch,
                    start_offset: found.start_offset,
                    delivery_complete_count: found.delivery_complete_count,
                    batches: Vec::new(),
                })
            }))
        }
        Some(Command::Initialize { state_epoch, start_offset }) => {
            let asked =
                initialize::Partition { partition, state_epoch: *state_epoch, start_offset: *start_offset };
            let topics = vec![initialize::Topic { topic_id, partitions: vec![asked] }];
            let answer = newest(peer, &InitializeShareGroupStateRequest { group_id, topics }).await?;
            let found = answer.results.into_iter().flat_map(|result| result.partitions).next();
            Ok(found.map_or_else(missing, |found| outcome(found.error_code, found.error_message)))
        }
        Some(Command::Read { leader_epoch }) => {
            let asked = read::Partition { partition, leader_epoch: *leader_epoch };
            let topics = vec![read::Topic { topic_id, partitions: vec![asked] }];
            let answer = newest(peer, &ReadShareGroupStateRequest { group_id, topics }).await?;
            let found = answer.results.into_iter().flat_map(|result| result.partitions).next();
            Ok(found.map_or_else(missing, |found| {
                let batches = found.state_batches.iter().map(|batch| StateBatch {
                    first_offset: batch.first_offset,
                    last_offset: batch.last_offset,
                    delivery_state: batch.delivery_state,
                    delivery_count: batch.delivery_count,
                });
                let batches = batches.collect();
                outcome(found.error_code, found.error_message).map(|_| ReadState {
                    state_epoch: found.state_epoch,
                    leader_epoch: *leader_epoch,
                    start_offset: found.start_offset,
                    delivery_complete_count: -1,
                    batches,
                })
            }))
        }
        Some(Command::Write {
            state_epoch,
            leader_epoch,
            start_offset,
            delivery_complete_count,
            batches,
        }) => {
            let batch = |batch: &StateBatch| write::StateBatch {
                first_offset: batch.first_offset,
                last_offset: batch.last_offset,
                delivery_state: batch.delivery_state,
                delivery_count: batch.delivery_count,
            };
            let asked = write::Partition {
                partition,
                state_epoch: *state_epoch,
                leader_epoch: *leader_epoch,
                start_offset: *start_offset,
                delivery_complete_count: *delivery_complete_count,
                state_batches: batches.iter().map(batch).collect(),
            };
            let topics = vec![write::Topic { topic_id, partitions: vec![asked] }];
            let answer = newest(peer, &WriteShareGroupStateRequest { group_id, topics }).await?;
            let found = answer.results.into_iter().flat_map(|result| result.partitions).next();
            Ok(found.map_or_else(missing, |found| outcome(found.error_code, found.error_message)))
        }
        Some(Command::Delete) => {
            let topics = vec![delete::Topic { topic_id, partitions: vec![delete::Partition { partition }] }];
            let answer = newest(peer, &DeleteShareGroupStateRequest { group_id, topics }).await?;
            let found = answer.results.into_iter().flat_map(|result| result.partitions).next();
            Ok(found.map_or_else(missing, |found| outcome(found.error_code, found.error_message)))
        }
    }
}

/// Brokers of one cluster speak the newest version.
async fn newest<R: Request>(
    peer: &mut Peer,
    request: &R,
) -> Result<R::Response, crate::replication::peer::PeerError> {
    peer.call(request, *R::KEY.versions().end()).await
}
