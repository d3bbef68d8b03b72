//! DeleteShareGroupOffsets 0: a share group without members forgets how far it has read topics (KIP-932). Also what
//! DeleteGroups needs of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ottla_coordinator::consumer_group::Refusal;
use ottla_coordinator::share_group::{ShareStateChange, StatePartitions};
use ottla_coordinator::share_state::{Command as StateCommand, ShareKey};
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::delete_share_group_offsets_response::Response as Topic;
use ottla_wire::messages::{DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::alter_share_group_offsets::change;
use super::authorization::{Access, Operation};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::share::Refused;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DeleteShareGroupOffsetsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let access = context.access(&call);
    call.exclusive(async move {
        let names = request.topics.into_iter().map(|topic| topic.topic_name).collect();
        match delete(&context, &access, request.group_id, names).await {
            Ok(responses) => DeleteShareGroupOffsetsResponse { responses, ..Default::default() },
            Err(refusal) => DeleteShareGroupOffsetsResponse {
                error_code: refusal.error.code(),
                error_message: Some(Text::from(refusal.message.as_str())),
                ..Default::default()
            },
        }
    })
}

async fn delete(
    context: &BrokerContext,
    access: &Access,
    group_id: Text,
    names: Vec<Text>,
) -> Result<Vec<Topic>, Refusal> {
    access.group(Operation::Delete, &group_id).map_err(Refusal::from_code)?;
    let group_id = group_id.detached();
    let found = context.groups.query(&group_id, |machine| Ok(machine.share_partitions(&group_id)));
    let (kept, is_empty, _) = found.map_err(Refusal::from_code)??;
    if !is_empty {
        return Err(Refusal::from_code(ErrorCode::NonEmptyGroup));
    }
    let mut responses = Vec::with_capacity(names.len());
    for name in names {
        let image = context.image.current();
        let known = match (access.topic(Operation::Read, &name), image.topic_by_name(&name)) {
            (Err(code), _) => Err(code),
            (Ok(()), None) => Err(ErrorCode::UnknownTopicOrPartition),
            (Ok(()), Some(topic)) => Ok(Uuid::from(topic.id)),
        };
        let outcome = match known {
            Err(code) => Err(Refused::from(code)),
            Ok(id) => forget(context, &group_id, &kept, id).await,
        };
        responses.push(Topic {
            topic_name: name,
            topic_id: known.unwrap_or_default(),
            error_code: outcome.as_ref().err().map_or(0, |failed| failed.error.code()),
            error_message: outcome.err().map(|failed| failed.message),
        });
    }
    Ok(responses)
}

/// The group says first that it forgets a topic, then the share coordinator does, then the group has forgotten it.
async fn forget(
    context: &BrokerContext,
    group_id: &Text,
    kept: &StatePartitions,
    topic_id: Uuid,
) -> Result<(), Refused> {
    let told =
        |refusal: Refusal| Refused { error: refusal.error, message: Text::from(refusal.message.as_str()) };
    change(context, group_id, ShareStateChange::Forget(vec![topic_id])).await.map_err(told)?;
    delete_state(context, group_id, kept, topic_id).await?;
    change(context, group_id, ShareStateChange::Forgotten(vec![topic_id])).await.map_err(told)
}

async fn delete_state(
    context: &BrokerContext,
    group_id: &Text,
    kept: &StatePartitions,
    topic_id: Uuid,
) -> Result<(), Refused> {
    let of = [kept.initialized.get(&topic_id), kept.initializing.get(&topic_id)];
    let mut numbers: BTreeSet<i32> =
        of.into_iter().flatten().flat_map(|(_, numbers)| numbers).copied().collect();
    if kept.deleting.contains_key(&topic_id) {
        // Which partitions it had is not known any more.
        let image = context.image.current();
        let count = image.topic_by_id(topic_id.into()).map_or(0, |topic| topic.partitions.len());
        numbers.extend(0..i32::try_from(count).unwrap_or(i32::MAX));
    }
    for partition in numbers {
        let key = ShareKey { group_id: group_id.clone(), topic_id, partition };
        context.share.persist(&key, &StateCommand::Delete).await?;
    }
    Ok(())
}

/// Has the share coordinator forget everything of a group that is to be deleted; of one that is no share group, or has
/// members, nothing.
pub(super) async fn forget_group(context: &BrokerContext, group_id: &Text) -> Result<(), ErrorCode> {
    let found = context.groups.query(group_id, |machine| Ok(machine.share_partitions(group_id)));
    let Ok(Ok((kept, true, _))) = found else { return Ok(()) };
    let ids = kept.initialized.keys().chain(kept.initializing.keys()).chain(kept.deleting.keys());
    let ids: BTreeSet<Uuid> = ids.copied().collect();
    for topic_id in ids {
        delete_state(context, group_id, &kept, topic_id).await.map_err(|failed| failed.error)?;
    }
    Ok(())
}
