//! DescribeShareGroupOffsets 0-1: how far share groups have read, and (version 1) how much is left (KIP-932, KIP-1226).

use std::collections::HashMap;
use std::sync::Arc;

use ottla_coordinator::consumer_group::Refusal;
use ottla_coordinator::share_state::ShareKey;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::describe_share_group_offsets_request::Group as Asked;
use ottla_wire::messages::describe_share_group_offsets_response::{Group, Partition, Topic};
use ottla_wire::messages::{DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::{Access, Operation};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::groups::partition_ends;

/// Share-partitions that are asked for at a time.
const QUESTIONS_AT_ONCE: usize = 32;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: DescribeShareGroupOffsetsRequest,
) -> Answer {
    let context = Arc::clone(&dispatcher.context);
    let access = context.access(&call);
    call.waiting(async move {
        let mut groups = Vec::with_capacity(request.groups.len());
        for asked in request.groups {
            let group_id = asked.group_id.clone();
            groups.push(match describe(&context, &access, asked).await {
                Ok(topics) => Group { group_id, topics, ..Default::default() },
                Err(refusal) => Group {
                    group_id,
                    error_code: refusal.error.code(),
                    error_message: Some(Text::from(refusal.message.as_str())),
                    ..Default::default()
                },
            });
        }
        DescribeShareGroupOffsetsResponse { groups, ..Default::default() }
    })
}

async fn describe(context: &BrokerContext, access: &Access, asked: Asked) -> Result<Vec<Topic>, Refusal> {
    access.group(Operation::Describe, &asked.group_id).map_err(Refusal::from_code)?;
    let found =
        context.groups.query(&asked.group_id, |machine| Ok(machine.share_partitions(&asked.group_id)));
    let (kept, _, _) = found.map_err(Refusal::from_code)??;
    let image = context.image.current();
    // Those that were not asked for by name are left out where they may not be seen.
    let wanted: Vec<(Text, Vec<i32>)> = match asked.topics {
        Some(topics) => topics.into_iter().map(|topic| (topic.topic_name, topic.partitions)).collect(),
        None => kept
            .initialized
            .iter()
            .filter(|(id, (name, _))| {
                image.topic_by_name(name).is_some_and(|topic| Uuid::from(topic.id) == **id)
                    && access.sees_topic(Operation::Describe, name)
            })
            .map(|(_, (name, numbers))| (name.clone(), numbers.iter().copied().collect()))
            .collect(),
    };
    let mut topics = Vec::with_capacity(wanted.len());
    for (name, numbers) in wanted {
        let known = match (access.topic(Operation::Describe, &name), image.topic_by_name(&name)) {
            (Err(code), _) => Err(code),
            (Ok(()), None) => Err(ErrorCode::UnknownTopicOrPartition),
            (Ok(()), Some(topic)) => Ok(topic),
        };
        topics.push(match known {
            Ok(topic) => {
                let id = Uuid::from(topic.id);
                let partitions = offsets(context, &asked.group_id, (id, &name), numbers).await;
                Topic { topic_name: name, topic_id: id, partitions }
            }
            Err(code) => Topic {
                topic_name: name,
                partitions: numbers.into_iter().map(|number| refused(number, code, code.message())).collect(),
                ..Default::default()
            },
        });
    }
    Ok(topics)
}

async fn offsets(
    context: &BrokerContext,
    group_id: &Text,
    (topic_id, name): (Uuid, &Text),
    numbers: Vec<i32>,
) -> Vec<Partition> {
    use futures_util::stream::StreamExt;
    let positions: Vec<_> =
        numbers.iter().map(|number| (group_id.clone(), name.clone(), *number, 0)).collect();
    let ends = partition_ends(&context.replicas, &positions).await;
    let questions = numbers.into_iter().map(|number| {
        let key = ShareKey { group_id: group_id.clone(), topic_id, partition: number };
        let ends: &HashMap<(Text, i32), i64> = &ends;
        async move {
            match context.share.summary(&key).await {
                Ok(summary) => {
                    let end = ends.get(&(name.clone(), number)).copied();
                    let is_known = summary.start_offset >= 0 && summary.delivery_complete_count >= 0;
                    let left = end
                        .filter(|_| is_known)
                        .map(|end| end - summary.start_offset - i64::from(summary.delivery_complete_count));
                    Partition {
                        partition_index: number,
                        start_offset: summary.start_offset,
                        leader_epoch: summary.leader_epoch,
                        lag: left.map_or(-1, |left| left.max(0)),
                        ..Default::default()
                    }
                }
                Err(failed) => refused(number, failed.error, &failed.message),
            }
        }
    });
    futures_util::stream::iter(questions).buffered(QUESTIONS_AT_ONCE).collect().await
}

fn refused(partition_index: i32, code: ErrorCode, message: &str) -> Partition {
    Partition {
        partition_index,
        start_offset: -1,
        lag: -1,
        error_code: code.code(),
        error_message: Some(Text::from(message)),
        ..Default::default()
    }
}
