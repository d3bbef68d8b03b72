//! StreamsGroupHeartbeat 0: a member of a streams group tells what it runs, lives, leaves, and is told its tasks
//! (KIP-1071). The internal topics that its topology needs are created on the way, if the client may.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ottla_coordinator::consumer_group::Refusal;
use ottla_coordinator::group::{Command, Reply};
use ottla_coordinator::streams_group::{
    MissingTopic, StatusCode, StreamsHeartbeat, StreamsHeartbeatReply, Topology,
};
use ottla_metadata::features::STREAMS_VERSION;
use ottla_proto::controller as proto;
use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::StreamsGroupHeartbeatRequest;
use ottla_wire::text::Text;

use super::authorization::{Access, Operation};
use super::groups::client_of;
use super::{Answer, Call, Client, Dispatcher};
use crate::context::BrokerContext;
use crate::internal_topics::is_internal;

/// Topics may be created within this time; else a later heartbeat asks again.
const CREATION_PATIENCE: Duration = Duration::from_secs(30);
/// Why a topic could not be created is told for so many heartbeats.
const FAILURES_TOLD_HEARTBEATS: u32 = 2;

pub(super) fn handle(
    dispatcher: &Dispatcher,
    _: &mut Client,
    call: Call,
    request: StreamsGroupHeartbeatRequest,
) -> Answer {
    let context = &dispatcher.context;
    if !is_served(context) {
        return call.ready(&StreamsHeartbeatReply::failed(ErrorCode::UnsupportedVersion).into_response());
    }
    let access = context.access(&call);
    if let Err(code) = access.group(Operation::Read, &request.group_id) {
        return call.ready(&StreamsHeartbeatReply::failed(code).into_response());
    }
    let heartbeat = StreamsHeartbeat::from_request(request, client_of(&call));
    if let Some(Ok(topology)) = &heartbeat.topology
        && let Err(refusal) = check_topics(&access, topology)
    {
        return call.ready(&StreamsHeartbeatReply::refused(refusal).into_response());
    }
    let context = Arc::clone(context);
    let reply = context.groups.begin(Command::StreamsHeartbeat(Box::new(heartbeat)));
    call.waiting(async move {
        let mut reply = match reply.await {
            Reply::StreamsHeartbeat(reply) => *reply,
            _ => StreamsHeartbeatReply::failed(ErrorCode::UnknownServerError),
        };
        if !reply.missing.is_empty() {
            create_missing(&context, &access, &mut reply);
        }
        reply.into_response()
    })
}

/// Whether the cluster and this node serve streams groups.
pub(super) fn is_served(context: &BrokerContext) -> bool {
    context.groups.serves_streams() && context.image.current().feature_level(STREAMS_VERSION) > 0
}

/// Topics of a topology are ordinary ones that the client may know of.
fn check_topics(access: &Access, topology: &Topology) -> Result<(), Refusal> {
    let names: BTreeSet<&Text> = topology
        .subtopologies
        .values()
        .flat_map(|subtopology| {
            let sources = subtopology.source_topics.iter().chain(&subtopology.repartition_sink_topics);
            sources
                .chain(subtopology.repartition_source_topics.keys())
                .chain(subtopology.state_changelog_topics.keys())
        })
        .collect();
    let invalid = |of: Vec<&str>, what: (&str, &str)| Refusal {
        error: ErrorCode::StreamsInvalidTopology,
        message: format!("{} {} {}", what.0, of.join(","), what.1),
    };
    let filtered = |unfit: &dyn Fn(&str) -> bool| -> Vec<&str> {
        names.iter().map(|name| &***name).filter(|name| unfit(name)).collect()
    };
    let internal = filtered(&is_internal);
    if !internal.is_empty() {
        let what = ("Use of Kafka internal topics", "in a Kafka Streams topology is prohibited.");
        return Err(invalid(internal, what));
    }
    let unnamed = filtered(&|name| ottla_metadata::topic_name::validate(name).is_err());
    if !unnamed.is_empty() {
        return Err(invalid(unnamed, ("Topic names", "are not valid topic names.")));
    }
    for name in names {
        let refused = |error: ErrorCode| Refusal { error, message: error.message().to_owned() };
        access.topic(Operation::Describe, name).map_err(refused)?;
    }
    Ok(())
}

/// Has the missing topics created, or tells why they cannot be.
fn create_missing(context: &Arc<BrokerContext>, access: &Access, reply: &mut StreamsHeartbeatReply) {
    let mut missing = std::mem::take(&mut reply.missing);
    let names: Vec<Text> = missing.iter().map(|topic| topic.name.clone()).collect();
    let refused = access.take_refused(&mut missing, |access, topic| access.create_topic(&topic.name));
    let why = if refused.is_empty() {
        let told_for = Duration::from_millis(u64::try_from(reply.heartbeat_interval_ms).unwrap_or(0));
        begin_creation(context, missing, told_for * FAILURES_TOLD_HEARTBEATS);
        let failures = context.groups.creations().failures(names.iter());
        (!failures.is_empty()).then(|| format!("; Creation failed: {}.", failures.join(", ")))
    } else {
        let names: Vec<&str> = refused.iter().map(|(topic, _)| &*topic.name).collect();
        Some(format!("; Unauthorized to CREATE on topics {}.", names.join(",")))
    };
    let told = reply.status.iter_mut().find(|status| status.code == StatusCode::MissingInternalTopics);
    if let (Some(why), Some(status)) = (why, told) {
        status.detail = Text::from(format!("{}{why}", status.detail));
    }
}

fn begin_creation(context: &Arc<BrokerContext>, missing: Vec<MissingTopic>, told_for: Duration) {
    let begun = context.groups.creations().begin(missing);
    if begun.is_empty() {
        return;
    }
    let context = Arc::clone(context);
    context.groups.clone().spawn(async move {
        let command =
            proto::CreateTopics { validate_only: false, topics: begun.iter().map(to_command).collect() };
        let outcome = super::create_topics::submit(&context, command, CREATION_PATIENCE).await;
        let creations = context.groups.creations();
        match outcome {
            Ok(created) => {
                for topic in &created {
                    let code = super::forward::code_of(topic.error_code);
                    let outcome = match code {
                        ErrorCode::None | ErrorCode::TopicAlreadyExists => Ok(()),
                        other if topic.message.is_empty() => Err(other.message().to_owned()),
                        _ => Err(topic.message.clone()),
                    };
                    creations.finish(&topic.name, outcome, told_for);
                }
                let answered = |name: &Text| created.iter().any(|topic| topic.name == **name);
                for topic in begun.iter().filter(|topic| !answered(&topic.name)) {
                    creations.finish(&topic.name, Ok(()), told_for);
                }
            }
            Err((code, message)) => {
                tracing::info!(?code, message, "internal topics of a streams group could not be created");
                for topic in &begun {
                    creations.finish(&topic.name, Err(message.clone()), told_for);
                }
            }
        }
    });
}

fn to_command(topic: &MissingTopic) -> proto::NewTopic {
    let config = |(name, value): (&Text, &Text)| proto::ConfigValue {
        name: name.to_string(),
        value: Some(value.to_string()),
    };
    proto::NewTopic {
        name: topic.name.to_string(),
        partitions: topic.partitions,
        replication_factor: i32::from(topic.replication_factor),
        assignments: Vec::new(),
        configs: topic.configs.iter().map(config).collect(),
    }
}

#[cfg(test)]
mod tests {
    use ottla_coordinator::streams_group::Subtopology;

    use super::*;

    #[test]
    fn topics_of_the_cluster_and_names_that_are_none_are_refused() {
        let check = |name: &str| {
            let sinks = BTreeSet::from([Text::from(name)]);
            let subtopology = Subtopology { repartition_sink_topics: sinks, ..Subtopology::default() };
            let subtopologies = [(Text::from("0"), subtopology)].into_iter().collect();
            check_topics(&Access::everything(), &Topology { epoch: 0, subtopologies })
        };
        assert_eq!(check("words"), Ok(()));
        for (name, said) in [("__consumer_offsets", "prohibited"), ("a word", "not valid topic names")] {
            let refusal = check(name).unwrap_err();
            assert_eq!(refusal.error, ErrorCode::StreamsInvalidTopology);
            assert!(refusal.message.contains(name) && refusal.message.contains(said), "{refusal}");
        }
    }
}
