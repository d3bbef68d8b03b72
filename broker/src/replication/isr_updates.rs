//! Sends the ISR proposals of all partitions led here to the controller, in batches, and brings the answers back.
//!
//! While one batch is on its way the next one gathers. A batch without an answer may be committed or not: its partitions
//! hear "unknown" and propose again; the compare-and-set on the partition epoch makes that harmless.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_proto::controller::command::Command as Kind;
use ottla_proto::controller::command_reply::Reply;
use ottla_proto::controller::{
    AlterPartitions, AlterPartitionsReply, AlteredPartition, IsrMember, PartitionAlteration,
};
use ottla_replica::{Input, IsrAnswer, IsrState};
use ottla_wire::error_code::ErrorCode;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::controller_link::ControllerClient;
use crate::replica::manager::ReplicaManager;
use crate::replica::shared::{IsrProposal, PartitionId};

/// Partitions in one request: a broker that loses a peer shrinks the ISR of all that it leads.
const BATCH_PARTITIONS_MAX: usize = 1_000;

/// Sends proposals until cancelled.
pub async fn run(manager: Arc<ReplicaManager>, client: Arc<ControllerClient>, stop: CancellationToken) {
    loop {
        let proposals = tokio::select! {
            () = stop.cancelled() => return,
            proposals = manager.shared().isr_queue.take() => proposals,
        };
        let mut proposals: Vec<IsrProposal> = proposals.into_values().collect();
        proposals.sort_by_key(|proposal| proposal.id);
        for batch in proposals.chunks(BATCH_PARTITIONS_MAX) {
            let grant = &manager.shared().grant;
            let command = alter_partitions(manager.shared().options.broker_id, grant.broker_epoch(), batch);
            let reply = tokio::select! {
                () = stop.cancelled() => return,
                reply = client.submit(command) => reply,
            };
            let answers = match reply {
                Ok(reply) => {
                    let failure = reply.failure.map_or(0, |failure| failure.error_code);
                    match reply.reply {
                        Some(Reply::AlterPartitions(reply)) if failure == 0 => by_partition(reply),
                        _ => {
                            tracing::warn!(error = %error_of(failure).name(), "the controller refused ISR changes");
                            HashMap::new()
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "ISR changes were not answered; they are proposed again");
                    HashMap::new()
                }
            };
            deliver(&manager, batch, &answers);
        }
    }
}

fn alter_partitions(broker_id: i32, broker_epoch: i64, batch: &[IsrProposal]) -> Kind {
    let partitions = batch
        .iter()
        .map(|proposal| PartitionAlteration {
            topic_id: Bytes::copy_from_slice(proposal.id.topic_id.as_bytes()),
            partition: proposal.id.index,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal
                .isr
                .iter()
                .map(|member| IsrMember {
                    broker_id: member.broker,
                    broker_epoch: if member.broker == broker_id { broker_epoch } else { member.broker_epoch },
                })
                .collect(),
            // A leader that proposes has taken over with what it has: an unclean election is over.
            recovering: false,
        })
        .collect();
    Kind::AlterPartitions(AlterPartitions { broker_id, broker_epoch, partitions })
}

fn by_partition(reply: AlterPartitionsReply) -> HashMap<PartitionId, AlteredPartition> {
    reply
        .partitions
        .into_iter()
        .filter_map(|altered| {
            let topic_id = Uuid::from_slice(&altered.topic_id).ok()?;
            Some((PartitionId { topic_id, index: altered.partition }, altered))
        })
        .collect()
}

fn deliver(
    manager: &ReplicaManager,
    batch: &[IsrProposal],
    answers: &HashMap<PartitionId, AlteredPartition>,
) {
    for proposal in batch {
        let Some(partition) = manager.by_id(proposal.id) else { continue };
        let answer = answers.get(&proposal.id).map_or(IsrAnswer::Unknown, |altered| {
            if altered.error_code != 0 {
                manager.shared().counters.isr_refusals.add(1);
                tracing::debug!(
                    topic = %partition.topic(), partition = proposal.id.index, isr = ?proposal.isr,
                    error = error_of(altered.error_code).name(), "an ISR change was refused"
                );
            }
            answer_of(altered)
        });
        partition.report(Input::IsrAnswered {
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            answer,
        });
    }
}

fn error_of(code: i32) -> ErrorCode {
    ErrorCode::from_code(i16::try_from(code).unwrap_or(-1))
}

/// The controller's answer for one partition in the machine's words.
fn answer_of(altered: &AlteredPartition) -> IsrAnswer {
    let state = altered.state.as_ref().map(|state| IsrState {
        leader_epoch: state.leader_epoch,
        partition_epoch: state.partition_epoch,
        isr: state.isr.clone(),
    });
    match (error_of(altered.error_code), state) {
        (ErrorCode::None, Some(state)) => IsrAnswer::Accepted(state),
        (ErrorCode::None, None) => IsrAnswer::Outdated(None),
        (ErrorCode::IneligibleReplica | ErrorCode::OperationNotAttempted, _) => IsrAnswer::Ineligible,
        (
            ErrorCode::InvalidUpdateVersion
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::NewLeaderElected
            | ErrorCode::InvalidRequest
            | ErrorCode::UnknownTopicId
            | ErrorCode::UnknownTopicOrPartition,
            state,
        ) => IsrAnswer::Outdated(state),
        _ => IsrAnswer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_proto::metadata::PartitionRecord;

    fn altered(error_code: i32) -> AlteredPartition {
        let state =
            PartitionRecord { leader_epoch: 3, partition_epoch: 9, isr: vec![1, 2], ..Default::default() };
        AlteredPartition { error_code, state: Some(state), ..Default::default() }
    }

    #[test]
    fn answers_are_told_apart() {
        let state = IsrState { leader_epoch: 3, partition_epoch: 9, isr: vec![1, 2] };
        assert_eq!(answer_of(&altered(0)), IsrAnswer::Accepted(state.clone()));
        assert_eq!(answer_of(&altered(95)), IsrAnswer::Outdated(Some(state)));
        assert_eq!(answer_of(&altered(107)), IsrAnswer::Ineligible);
        assert_eq!(answer_of(&altered(41)), IsrAnswer::Unknown);
    }

    #[test]
    fn the_own_epoch_is_filled_in() {
        let member = |broker, broker_epoch| ottla_replica::IsrMember { broker, broker_epoch };
        let proposal = IsrProposal {
            id: PartitionId { topic_id: Uuid::from_u128(7), index: 2 },
            isr: vec![member(1, -1), member(2, 40)],
            leader_epoch: 3,
            partition_epoch: 8,
        };
        let Kind::AlterPartitions(command) = alter_partitions(1, 77, &[proposal]) else {
            panic!("another command")
        };
        let epochs: Vec<i64> = command.partitions[0].isr.iter().map(|member| member.broker_epoch).collect();
        assert_eq!(epochs, [77, 40]);
    }
}
