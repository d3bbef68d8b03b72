//! FindCoordinator 0-6: which broker coordinates a group, a transactional id or a share-partition
//! (`group:topicId:partition`). The topic of the coordinators is created when first asked for.

use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::share_state::ShareKey;
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::find_coordinator_response::Coordinator;
use ottla_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use ottla_wire::text::Text;

use super::authorization::{Operation, REFUSED};
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::internal_topics::{CONSUMER_OFFSETS, SHARE_GROUP_STATE, TRANSACTION_STATE, new_topic};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;
/// From this version on several keys are asked for at once.
const MANY_FROM: i16 = 4;
const CREATION_PATIENCE: Duration = Duration::from_secs(5);

/// The topic whose partitions' leaders coordinate what is asked for.
fn topic_of(key_type: i8) -> Option<&'static str> {
    match key_type {
        GROUP => Some(CONSUMER_OFFSETS),
        TRANSACTION => Some(TRANSACTION_STATE),
        SHARE => Some(SHARE_GROUP_STATE),
        _ => None,
    }
}

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: FindCoordinatorRequest,
) -> Answer {
    let context = &dispatcher.context;
    let missing =
        topic_of(request.key_type).filter(|topic| context.image.current().topic_by_name(topic).is_none());
    if let Some(topic) = missing {
        let context = Arc::clone(context);
        let at = call.clone();
        return call.exclusive(async move {
            let command = proto::CreateTopics {
                validate_only: false,
                topics: vec![new_topic(&context.options, topic)],
            };
            match super::create_topics::submit(&context, command, CREATION_PATIENCE).await {
                Ok(created) => {
                    for topic in created.iter().filter(|topic| topic.error_code != 0) {
                        tracing::info!(topic = topic.name, reason = topic.message, "not created");
                    }
                }
                Err((code, message)) => {
                    tracing::info!(topic, ?code, message, "the coordinators' topic could not be created");
                }
            }
            answer(&context, &at, &request)
        });
    }
    call.ready(&answer(context, &call, &request))
}

fn answer(context: &BrokerContext, call: &Call, request: &FindCoordinatorRequest) -> FindCoordinatorResponse {
    if call.version >= MANY_FROM {
        let coordinators =
            request.coordinator_keys.iter().map(|key| find(context, call, request.key_type, key)).collect();
        return FindCoordinatorResponse { coordinators, ..Default::default() };
    }
    let found = find(context, call, request.key_type, &request.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..Default::default()
    }
}

fn find(context: &BrokerContext, call: &Call, key_type: i8, key: &Text) -> Coordinator {
    let refused = |error: ErrorCode, why: &str| Coordinator {
        key: key.clone(),
        node_id: -1,
        port: -1,
        error_code: error.code(),
        error_message: Some(why.into()),
        ..Default::default()
    };
    let access = context.access(call);
    let permitted = match key_type {
        GROUP => access.group(Operation::Describe, key),
        TRANSACTION => access.transactional_id(Operation::Describe, key),
        SHARE => access.cluster(Operation::ClusterAction),
        _ => Ok(()),
    };
    if let Err(code) = permitted {
        return refused(code, REFUSED);
    }
    let Some(topic) = topic_of(key_type) else {
        return refused(ErrorCode::InvalidRequest, "the key type is not known");
    };
    if key_type == SHARE && ShareKey::parse(key).is_none() {
        return refused(ErrorCode::InvalidRequest, "the key is not of the form group:topicId:partition");
    }
    let image = context.image.current();
    let node = image.topic_by_name(topic).and_then(|topic| {
        let count = i32::try_from(topic.partitions.len()).ok()?;
        let partition = ottla_coordinator::partitioner::partition_for(key, count);
        let leader = topic.partitions.get(usize::try_from(partition).ok()?)?.leader?;
        context.node(leader.0, &call.listener)
    });
    match node {
        Some(node) => Coordinator {
            key: key.clone(),
            node_id: node.id,
            host: node.host,
            port: node.port,
            ..Default::default()
        },
        None => refused(
            ErrorCode::CoordinatorNotAvailable,
            "the coordinators' topic has no leader for this key now",
        ),
    }
}
