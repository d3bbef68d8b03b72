//! Metadata 0-13: brokers, topics, who leads. Unknown topics are created when the request and the broker allow it. Where a
//! leader may be dead the answer waits for the next one (`metadata_leaders.rs`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use ottla_metadata::image::{BrokerId, MetadataImage, PartitionImage, TopicImage};
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::metadata_response::{Broker, Partition, Topic};
use ottla_wire::messages::{MetadataRequest, MetadataResponse};
use ottla_wire::text::Text;
use uuid::Uuid;

use super::authorization::{Access, OPERATIONS_OMITTED, Operation};
use super::{Answer, Call, Client, Dispatcher, metadata_leaders};
use crate::context::{BrokerContext, NodeAddress};
use crate::internal_topics;

/// In version 0 an empty list, later a null one, asks for all topics.
const NULL_IS_ALL_FROM: i16 = 1;
/// From this version on the client says whether topics may be created.
const CREATION_FLAG_FROM: i16 = 4;
/// From this version on a topic may have no name in the answer.
const NULL_NAME_FROM: i16 = 12;
/// A topic may be created within this time; else the client asks again.
const CREATION_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn handle(
    dispatcher: &Dispatcher,
    client: &mut Client,
    call: Call,
    request: MetadataRequest,
) -> Answer {
    let context = &dispatcher.context;
    let connected_at = client.connected_at;
    let image = context.image.current();
    let may_create = context.options.auto_create_topics_enable
        && (call.version < CREATION_FLAG_FROM || request.allow_auto_topic_creation);
    let mut missing = if may_create { creatable(&image, &request) } else { Vec::new() };
    let forbidden = forbidden(&context.access(&call), &mut missing);
    if missing.is_empty() {
        return existing(context, &image, (call, connected_at), request, forbidden);
    }
    let context = Arc::clone(context);
    let at = call.clone();
    call.exclusive(async move {
        let mut refused = create(&context, missing.clone()).await;
        refused.extend(forbidden);
        let image = context.image.current();
        let mut response = answer(&context, &image, (&at, connected_at), &request);
        // Created a moment ago: as with Kafka the client asks again, when others know of it too.
        for topic in response.topics.iter_mut().filter(|topic| topic.error_code == 0) {
            if missing.iter().any(|missing| Some(missing) == topic.name.as_ref()) {
                topic.partitions.clear();
                topic.error_code = ErrorCode::LeaderNotAvailable.code();
            }
        }
        explain(&mut response, &refused, ErrorCode::LeaderNotAvailable);
        response
    })
}

/// The answer where nothing is to be created: at once, unless a leader has to be asked whether it lives.
fn existing(
    context: &Arc<BrokerContext>,
    image: &MetadataImage,
    (call, connected_at): (Call, Instant),
    request: MetadataRequest,
    forbidden: Vec<(String, ErrorCode)>,
) -> Answer {
    let respond = move |context: &BrokerContext, call: &Call, request: &MetadataRequest| {
        let mut response = answer(context, &context.image.current(), (call, connected_at), request);
        explain(&mut response, &forbidden, ErrorCode::UnknownTopicOrPartition);
        response
    };
    let own = BrokerId(context.options.node_id);
    let to_dial = metadata_leaders::to_dial(image, own, asked(image, call.version, &request));
    if to_dial.is_empty() && context.replicas.shared().unreachable.now().is_empty() {
        return call.ready(&respond(context, &call, &request));
    }
    let context = Arc::clone(context);
    let at = call.clone();
    call.waiting(async move {
        let is_open = |image: &MetadataImage, unreachable: &[i32]| {
            metadata_leaders::await_election(image, unreachable, asked(image, at.version, &request))
        };
        metadata_leaders::settle(&context, to_dial, is_open).await;
        respond(&context, &at, &request)
    })
}

/// The topics that a request is about and that exist.
fn asked<'a>(
    image: &'a MetadataImage,
    version: i16,
    request: &'a MetadataRequest,
) -> Box<dyn Iterator<Item = &'a TopicImage> + Send + 'a> {
    if asks_for_all(request, version) {
        return Box::new(image.topics());
    }
    let by_id = asks_by_id(request);
    Box::new(request.topics.iter().flatten().filter_map(move |topic| match &topic.name {
        Some(name) if !by_id => image.topic_by_name(name),
        _ => image.topic_by_id(topic.topic_id.into()),
    }))
}

fn asks_for_all(request: &MetadataRequest, version: i16) -> bool {
    request.topics.as_ref().is_none_or(|topics| topics.is_empty() && version < NULL_IS_ALL_FROM)
}

/// Takes the names out that the client may not create. Those that it may not even see are answered so anyway.
fn forbidden(access: &Access, missing: &mut Vec<Text>) -> Vec<(String, ErrorCode)> {
    let refused = access.take_refused(missing, |access, name| {
        if access.sees_topic(Operation::Describe, name) {
            access.create_topic(name)
        } else {
            Err(ErrorCode::TopicAuthorizationFailed)
        }
    });
    refused.into_iter().map(|(name, code)| (name.to_string(), code)).collect()
}

/// Says of topics that are not there why they are not.
fn explain(response: &mut MetadataResponse, refused: &[(String, ErrorCode)], otherwise: ErrorCode) {
    for topic in &mut response.topics {
        let name = topic.name.as_deref().unwrap_or_default();
        if topic.error_code == ErrorCode::UnknownTopicOrPartition.code() {
            let code = refused.iter().find(|(refused, _)| refused == name).map(|(_, code)| *code);
            topic.error_code = code.unwrap_or(otherwise).code();
        }
    }
}

/// Whether topics are asked for by their ids: then names do not count. Java's client leaves its topics' names empty, not null.
fn asks_by_id(request: &MetadataRequest) -> bool {
    request.topics.iter().flatten().any(|topic| !topic.topic_id.is_nil())
}

/// Names that are asked for, do not exist, and could be created.
fn creatable(image: &MetadataImage, request: &MetadataRequest) -> Vec<Text> {
    if asks_by_id(request) {
        return Vec::new();
    }
    let mut names: Vec<Text> = request
        .topics
        .iter()
        .flatten()
        .filter_map(|topic| topic.name.clone())
        .filter(|name| {
            image.topic_by_name(name).is_none() && ottla_metadata::topic_name::validate(name).is_ok()
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

async fn create(context: &BrokerContext, names: Vec<Text>) -> Vec<(String, ErrorCode)> {
    let topics = names.iter().map(|name| internal_topics::new_topic(&context.options, name)).collect();
    let command = proto::CreateTopics { validate_only: false, topics };
    match super::create_topics::submit(context, command, CREATION_PATIENCE).await {
        Ok(created) => created
            .into_iter()
            .filter(|topic| topic.error_code != 0)
            .map(|topic| (topic.name, super::forward::code_of(topic.error_code)))
            .filter(|(_, code)| *code != ErrorCode::TopicAlreadyExists)
            .collect(),
        Err((code, message)) => {
            tracing::info!(?code, message, "topics could not be created on demand");
            Vec::new()
        }
    }
}

fn answer(
    context: &BrokerContext,
    image: &MetadataImage,
    (call, connected_at): (&Call, Instant),
    request: &MetadataRequest,
) -> MetadataResponse {
    let nodes = context.nodes_known(image, &call.listener, connected_at);
    let unreachable = context.replicas.shared().unreachable.now();
    let all = asks_for_all(request, call.version);
    let access = context.access(call);
    let describe = |topic: &TopicImage| Topic {
        topic_authorized_operations: if request.include_topic_authorized_operations {
            access.topic_operations(&topic.name)
        } else {
            OPERATIONS_OMITTED
        },
        ..describe(image, &nodes, &unreachable, topic)
    };
    let topics = if all {
        image
            .topics()
            .filter(|topic| access.sees_topic(Operation::Describe, &topic.name))
            .map(&describe)
            .collect()
    } else {
        let by_id = asks_by_id(request);
        request
            .topics
            .iter()
            .flatten()
            .filter(|asked| !by_id || !asked.topic_id.is_nil())
            .map(|asked| match asked.name.as_ref().filter(|_| !by_id) {
                Some(name) => match access.topic(Operation::Describe, name) {
                    Ok(()) => image.topic_by_name(name).map_or_else(|| unknown(name), &describe),
                    Err(code) => {
                        Topic { error_code: code.code(), name: Some(name.clone()), ..Default::default() }
                    }
                },
                None => {
                    let by_id = |code: ErrorCode| Topic {
                        error_code: code.code(),
                        topic_id: asked.topic_id,
                        // Not to be told; before version 12 there is no word for that.
                        name: (call.version < NULL_NAME_FROM).then(Text::default),
                        ..Default::default()
                    };
                    match access.topic_by_id(Operation::Describe, asked.topic_id) {
                        Ok(()) => image
                            .topic_by_id(asked.topic_id.into())
                            .map_or_else(|| by_id(ErrorCode::UnknownTopicId), &describe),
                        Err(code) => by_id(code),
                    }
                }
            })
            .collect()
    };
    MetadataResponse {
        controller_id: context.controller_id(&nodes),
        brokers: nodes
            .iter()
            .map(|node| Broker {
                node_id: node.id,
                host: node.host.clone(),
                port: node.port,
                rack: node.rack.as_deref().map(Text::from),
            })
            .collect(),
        cluster_id: Some(Text::from(image.cluster_id())),
        topics,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            access.cluster_operations()
        } else {
            OPERATIONS_OMITTED
        },
        ..Default::default()
    }
}

fn unknown(name: &Text) -> Topic {
    let code = if ottla_metadata::topic_name::validate(name).is_ok() {
        ErrorCode::UnknownTopicOrPartition
    } else {
        ErrorCode::InvalidTopicException
    };
    Topic { error_code: code.code(), name: Some(name.clone()), ..Default::default() }
}

fn describe(image: &MetadataImage, nodes: &[NodeAddress], unreachable: &[i32], topic: &TopicImage) -> Topic {
    Topic {
        name: Some(Text::from(&*topic.name)),
        topic_id: Uuid::from(topic.id),
        is_internal: internal_topics::is_internal(&topic.name),
        partitions: topic
            .partitions
            .iter()
            .zip(0..)
            .map(|(partition, index)| describe_partition(image, nodes, unreachable, partition, index))
            .collect(),
        ..Default::default()
    }
}

fn describe_partition(
    image: &MetadataImage,
    nodes: &[NodeAddress],
    unreachable: &[i32],
    partition: &PartitionImage,
    partition_index: i32,
) -> Partition {
    let leader = partition.leader.map_or(-1, |leader| leader.0);
    let leader = if unreachable.contains(&leader) { -1 } else { leader };
    let code = if leader < 0 {
        ErrorCode::LeaderNotAvailable
    } else if nodes.iter().any(|node| node.id == leader) {
        ErrorCode::None
    } else {
        // The leader lives but has no listener of this name.
        ErrorCode::ListenerNotFound
    };
    Partition {
        error_code: code.code(),
        partition_index,
        leader_id: leader,
        leader_epoch: partition.leader_epoch.0,
        replica_nodes: partition.replicas.iter().map(|broker| broker.0).collect(),
        isr_nodes: partition.isr.iter().map(|broker| broker.0).collect(),
        offline_replicas: partition
            .replicas
            .iter()
            .filter(|replica| {
                image.broker(**replica).is_none_or(|broker| broker.fenced)
                    || !image.is_replica_online(partition, **replica)
            })
            .map(|broker| broker.0)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use ottla_wire::messages::metadata_request;

    use super::*;

    fn asked(name: Option<&str>, id: u128) -> metadata_request::Topic {
        metadata_request::Topic { topic_id: Uuid::from_u128(id), name: name.map(Text::from) }
    }

    #[test]
    fn one_id_makes_names_count_for_nothing() {
        let request = |topics: Vec<metadata_request::Topic>| MetadataRequest {
            topics: Some(topics),
            allow_auto_topic_creation: true,
            ..Default::default()
        };
        // Java's client asks so for the topics of a subscription by a regular expression.
        assert!(asks_by_id(&request(vec![asked(Some(""), 7)])));
        assert!(asks_by_id(&request(vec![asked(Some("t"), 0), asked(None, 7)])));
        assert!(!asks_by_id(&request(vec![asked(Some("t"), 0)])));
        assert!(!asks_by_id(&MetadataRequest::default()));
    }
}
