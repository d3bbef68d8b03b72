//! AlterShareGroupOffsets 0: where a share group without members goes on to read (KIP-932).

use std::sync::Arc;

use ottla_coordinator::consumer_group::{Partitions, Refusal};
use ottla_coordinator::group::{Command, Reply};
use ottla_coordinator::share_group::{ShareStateChange, ShareStateCommand};
use ottla_coordinator::share_state::{Command as StateCommand, ShareKey};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::alter_share_group_offsets_request::Topic as Asked;
use ottla_wire::messages::alter_share_group_offsets_response::{Partition, Response as Topic};
use ottla_wire::messages::{AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::{Access, Operation};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: AlterShareGroupOffsetsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let access = context.access(&call);
    call.exclusive(async move {
        match alter(&context, &access, request.group_id, request.topics).await {
            Ok(responses) => AlterShareGroupOffsetsResponse { responses, ..Default::default() },
            Err(refusal) => AlterShareGroupOffsetsResponse {
                error_code: refusal.error.code(),
                error_message: Some(Text::from(refusal.message.as_str())),
                ..Default::default()
            },
        }
    })
}

async fn alter(
    context: &BrokerContext,
    access: &Access,
    group_id: Text,
    topics: Vec<Asked>,
) -> Result<Vec<Topic>, Refusal> {
    access.group(Operation::Read, &group_id).map_err(Refusal::from_code)?;
    let group_id = group_id.detached();
    // The next state epoch outdates what leaders of partitions have read so far.
    change(context, &group_id, ShareStateChange::NextEpoch).await?;
    let found = context.groups.query(&group_id, |machine| Ok(machine.share_partitions(&group_id)));
    let (_, _, state_epoch) = found.map_err(Refusal::from_code)??;
    let mut responses = Vec::with_capacity(topics.len());
    let mut initialized = Partitions::new();
    for topic in topics {
        let image = context.image.current();
        let known = match (
            access.topic(Operation::Read, &topic.topic_name),
            image.topic_by_name(&topic.topic_name),
        ) {
            (Err(code), _) => Err(code),
            (Ok(()), None) => Err(ErrorCode::UnknownTopicOrPartition),
            (Ok(()), Some(found)) => Ok((Uuid::from(found.id), found.partitions.len())),
        };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let number = asked.partition_index;
            let fits = |count: usize| usize::try_from(number).is_ok_and(|index| index < count);
            let outcome = match known {
                Err(code) => Err(code.into()),
                Ok((_, count)) if !fits(count) => Err(ErrorCode::UnknownTopicOrPartition.into()),
                Ok((topic_id, _)) => {
                    let key = ShareKey { group_id: group_id.clone(), topic_id, partition: number };
                    let start_offset = asked.start_offset;
                    let command = StateCommand::Initialize { state_epoch, start_offset };
                    let outcome = context.share.persist(&key, &command).await;
                    if outcome.is_ok() {
                        initialized.entry(topic_id).or_default().insert(number);
                    }
                    outcome
                }
            };
            partitions.push(match outcome {
                Ok(_) => Partition { partition_index: number, ..Default::default() },
                Err(failed) => Partition {
                    partition_index: number,
                    error_code: failed.error.code(),
                    error_message: Some(failed.message),
                },
            });
        }
        let topic_id = known.map(|(id, _)| id).unwrap_or_default();
        responses.push(Topic { topic_name: topic.topic_name, topic_id, partitions });
    }
    let told = ShareStateChange::Initialized { partitions: initialized, create: false };
    change(context, &group_id, told).await?;
    Ok(responses)
}

/// Changes a group that must have no members.
pub(super) async fn change(
    context: &BrokerContext,
    group_id: &Text,
    change: ShareStateChange,
) -> Result<(), Refusal> {
    let command = ShareStateCommand { group_id: group_id.clone(), must_be_empty: true, change };
    match context.groups.submit(Command::ShareState(Box::new(command))).await {
        Reply::ShareState(ErrorCode::None) => Ok(()),
        Reply::ShareState(code) => Err(Refusal::from_code(code)),
        _ => Err(Refusal::from_code(ErrorCode::UnknownServerError)),
    }
}
