//! Between Kafka's messages and the machine's commands: StreamsGroupHeartbeat and StreamsGroupDescribe.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse,
    streams_group_describe_response as described, streams_group_heartbeat_response as response,
};
use ottla_wire::text::Text;

use super::convert::Client;
use super::convert_consumer::why_not;
use super::describe_streams::StreamsGroupDescription;
use crate::streams_group::records::{list_of, tasks_of};
use crate::streams_group::{
    Endpoint, EndpointPartitions, InternalTopic, Status, StreamsHeartbeat, StreamsHeartbeatReply,
    StreamsMember, Subtopology, TaskSet, Topology,
};

/// What stands for "as before" in a rebalance timeout.
const NO_TIMEOUT: i32 = -1;

impl StreamsHeartbeat {
    /// From a StreamsGroupHeartbeat.
    pub fn from_request(request: StreamsGroupHeartbeatRequest, client: Client) -> Self {
        let told =
            [request.active_tasks.is_some(), request.standby_tasks.is_some(), request.warmup_tasks.is_some()];
        let owned = told.contains(&true).then(|| TaskSet {
            active: tasks_of!(request.active_tasks.iter().flatten()),
            standby: tasks_of!(request.standby_tasks.iter().flatten()),
            warmup: tasks_of!(request.warmup_tasks.iter().flatten()),
        });
        let subtopologies = request.topology.iter().flat_map(|topology| &topology.subtopologies);
        let mut patterns = subtopologies.map(|subtopology| &subtopology.source_topic_regex);
        let tags = request.client_tags.map(|tags| {
            let tag = |tag: &ottla_wire::messages::streams_group_heartbeat_request::ClientTag| {
                (tag.key.detached(), tag.value.detached())
            };
            tags.iter().map(tag).collect()
        });
        Self {
            has_patterns: patterns.any(|patterns| !patterns.is_empty()),
            topology: request.topology.as_ref().map(Topology::from_request),
            owned,
            owns_in_part: told.contains(&true) && told.contains(&false),
            group_id: request.group_id,
            member_id: request.member_id,
            member_epoch: request.member_epoch,
            endpoint_epoch: request.endpoint_information_epoch,
            instance_id: request.instance_id,
            rack_id: request.rack_id,
            rebalance_timeout_ms: (request.rebalance_timeout_ms != NO_TIMEOUT)
                .then_some(request.rebalance_timeout_ms),
            process_id: request.process_id,
            user_endpoint: request
                .user_endpoint
                .map(|endpoint| Endpoint { host: endpoint.host.detached(), port: endpoint.port }),
            client_tags: tags,
            has_offsets: request.task_offsets.is_some() || request.task_end_offsets.is_some(),
            shutdown_application: request.shutdown_application,
            client_id: client.id,
            client_host: client.host,
        }
    }
}

impl StreamsHeartbeatReply {
    /// To a StreamsGroupHeartbeat's response.
    pub fn into_response(self) -> StreamsGroupHeartbeatResponse {
        let status = |status: Status| response::Statu {
            // The number that the kind is declared with.
            status_code: status.code as i8,
            status_detail: status.detail,
        };
        let tasks = self.tasks.as_ref();
        StreamsGroupHeartbeatResponse {
            throttle_time_ms: 0,
            error_code: self.error.code(),
            error_message: self.message,
            member_id: self.member_id,
            member_epoch: self.member_epoch,
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            acceptable_recovery_lag: 0,
            task_offset_interval_ms: 0,
            status: (self.error == ErrorCode::None).then(|| self.status.into_iter().map(status).collect()),
            active_tasks: tasks.map(|tasks| list_of!(tasks.active, response::ActiveTask)),
            standby_tasks: tasks.map(|tasks| list_of!(tasks.standby, response::StandbyTask)),
            warmup_tasks: tasks.map(|tasks| list_of!(tasks.warmup, response::WarmupTask)),
            endpoint_information_epoch: self.endpoint_epoch,
            partitions_by_user_endpoint: self
                .endpoints
                .map(|endpoints| endpoints.into_iter().map(endpoint_partitions).collect()),
        }
    }
}

fn endpoint_partitions(told: EndpointPartitions) -> response::PartitionsByUserEndpoint {
    let active = |(topic, partitions)| response::ActivePartition { topic, partitions };
    let standby = |(topic, partitions)| response::StandbyPartition { topic, partitions };
    response::PartitionsByUserEndpoint {
        user_endpoint: response::UserEndpoint { host: told.endpoint.host, port: told.endpoint.port },
        active_partitions: told.active.into_iter().map(active).collect(),
        standby_partitions: told.standby.into_iter().map(standby).collect(),
    }
}

impl StreamsGroupDescription {
    /// To a group of a StreamsGroupDescribe response; authorised operations are the shell's.
    pub fn into_response(self, group_id: Text) -> described::Group {
        described::Group {
            group_id,
            group_state: Text::from(self.state.name()),
            group_epoch: self.group_epoch,
            assignment_epoch: self.assignment_epoch,
            topology: self.topology.map(|topology| described_topology(&topology)),
            members: self.members.into_iter().map(described_member).collect(),
            ..Default::default()
        }
    }

    /// The answer for a group that cannot be described.
    pub fn refused(group_id: Text, error: ErrorCode) -> described::Group {
        described::Group {
            error_code: error.code(),
            error_message: Some(why_not(&group_id, error)),
            group_id,
            ..Default::default()
        }
    }
}

fn described_topology(topology: &Topology) -> described::Topology {
    let changelog = |(name, topic): (&Text, &InternalTopic)| described::StateChangelogTopic {
        name: name.clone(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        topic_configs: topic
            .configs
            .iter()
            .map(|(key, value)| described::TopicConfig { key: key.clone(), value: value.clone() })
            .collect(),
    };
    let repartition = |(name, topic): (&Text, &InternalTopic)| described::RepartitionSourceTopic {
        name: name.clone(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        topic_configs: topic
            .configs
            .iter()
            .map(|(key, value)| described::RepartitionSourceTopicTopicConfig {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
    };
    let subtopology = |(id, subtopology): (&Text, &Subtopology)| described::Subtopology {
        subtopology_id: id.clone(),
        source_topics: subtopology.source_topics.iter().cloned().collect(),
        repartition_sink_topics: subtopology.repartition_sink_topics.iter().cloned().collect(),
        state_changelog_topics: subtopology.state_changelog_topics.iter().map(changelog).collect(),
        repartition_source_topics: subtopology.repartition_source_topics.iter().map(repartition).collect(),
    };
    described::Topology {
        epoch: topology.epoch,
        subtopologies: Some(topology.subtopologies.iter().map(subtopology).collect()),
    }
}

fn described_member((member_id, member, target): (Text, StreamsMember, TaskSet)) -> described::Member {
    let metadata = member.metadata;
    let has = member.current.assigned.tasks();
    described::Member {
        member_id,
        member_epoch: member.current.epoch,
        instance_id: metadata.instance_id,
        rack_id: metadata.rack_id,
        client_id: metadata.client_id,
        client_host: metadata.client_host,
        topology_epoch: metadata.topology_epoch,
        process_id: metadata.process_id,
        user_endpoint: metadata
            .user_endpoint
            .map(|endpoint| described::UserEndpoint { host: endpoint.host, port: endpoint.port }),
        client_tags: metadata
            .client_tags
            .into_iter()
            .map(|(key, value)| described::ClientTag { key, value })
            .collect(),
        task_offsets: Vec::new(),
        task_end_offsets: Vec::new(),
        assignment: described::Assignment {
            active_tasks: list_of!(has.active, described::ActiveTask),
            standby_tasks: list_of!(has.standby, described::StandbyTask),
            warmup_tasks: list_of!(has.warmup, described::WarmupTask),
        },
        target_assignment: described::TargetAssignment {
            active_tasks: list_of!(target.active, described::TargetAssignmentActiveTask),
            standby_tasks: list_of!(target.standby, described::TargetAssignmentStandbyTask),
            warmup_tasks: list_of!(target.warmup, described::TargetAssignmentWarmupTask),
        },
        is_classic: false,
    }
}
