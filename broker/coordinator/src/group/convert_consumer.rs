//! Between Kafka's messages and the machine's commands: ConsumerGroupHeartbeat and ConsumerGroupDescribe.

use ottla_wire::error_code::ErrorCode;
use ottla_wire::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    consumer_group_describe_response as described, consumer_group_heartbeat_response as response,
};
use ottla_wire::text::Text;

use super::convert::Client;
use super::describe_consumer::{ConsumerGroupDescription, ConsumerMemberDescription, DescribedPartitions};
use crate::consumer_group::{ConsumerHeartbeat, ConsumerHeartbeatReply, Partitions};

/// Since this version the client makes the member id (KIP-1082).
const HEARTBEAT_REQUIRES_MEMBER_ID: i16 = 1;
/// What stands for "as before" in a rebalance timeout.
const NO_TIMEOUT: i32 = -1;
/// The types of members since version 1 of ConsumerGroupDescribe.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl ConsumerHeartbeat {
    /// From a ConsumerGroupHeartbeat. `uuid` is random and is the member id, if the client did not make one.
    pub fn from_request(
        request: ConsumerGroupHeartbeatRequest,
        version: i16,
        client: Client,
        uuid: uuid::Uuid,
    ) -> Self {
        let owned = request.topic_partitions.map(|topics| {
            let mut owned = Partitions::new();
            for topic in topics {
                owned.entry(topic.topic_id).or_default().extend(topic.partitions);
            }
            owned
        });
        Self {
            group_id: request.group_id,
            member_id: request.member_id,
            member_epoch: request.member_epoch,
            instance_id: request.instance_id,
            rack_id: request.rack_id,
            rebalance_timeout_ms: (request.rebalance_timeout_ms != NO_TIMEOUT)
                .then_some(request.rebalance_timeout_ms),
            topics: request.subscribed_topic_names,
            regex: request.subscribed_topic_regex,
            server_assignor: request.server_assignor,
            owned,
            client_id: client.id,
            client_host: client.host,
            member_id_required: version >= HEARTBEAT_REQUIRES_MEMBER_ID,
            new_member_id: Text::from(uuid.to_string()),
        }
    }
}

impl ConsumerHeartbeatReply {
    /// To a ConsumerGroupHeartbeat's response.
    pub fn into_response(self) -> ConsumerGroupHeartbeatResponse {
        let topic = |(topic_id, numbers): (uuid::Uuid, std::collections::BTreeSet<i32>)| {
            response::TopicPartition { topic_id, partitions: numbers.into_iter().collect() }
        };
        let assignment = self.assignment.map(|partitions| response::Assignment {
            topic_partitions: partitions.into_iter().map(topic).collect(),
        });
        ConsumerGroupHeartbeatResponse {
            throttle_time_ms: 0,
            error_code: self.error.code(),
            error_message: self.message,
            member_id: self.member_id,
            member_epoch: self.member_epoch,
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            assignment,
        }
    }
}

impl ConsumerGroupDescription {
    /// To a group of a ConsumerGroupDescribe response; authorised operations are the shell's.
    pub fn into_response(self, group_id: Text) -> described::Group {
        described::Group {
            group_id,
            group_state: Text::from_static(self.state.name()),
            group_epoch: self.group_epoch,
            assignment_epoch: self.assignment_epoch,
            assignor_name: self.assignor,
            members: self.members.into_iter().map(described_member).collect(),
            ..Default::default()
        }
    }

    /// A group that cannot be described.
    pub fn refused(group_id: Text, error: ErrorCode) -> described::Group {
        described::Group {
            error_code: error.code(),
            error_message: Some(why_not(&group_id, error)),
            group_id,
            ..Default::default()
        }
    }
}

/// Why a group cannot be described.
pub(super) fn why_not(group_id: &Text, error: ErrorCode) -> Text {
    match error {
        ErrorCode::GroupIdNotFound => Text::from(format!("Group {group_id} not found.")),
        other => Text::from(other.message()),
    }
}

fn described_member(member: ConsumerMemberDescription) -> described::Member {
    let member_type = if member.is_classic() { CLASSIC_MEMBER } else { CONSUMER_MEMBER };
    let topic = |topic: DescribedPartitions| described::TopicPartition {
        topic_id: topic.topic_id,
        topic_name: topic.topic_name,
        partitions: topic.partitions,
    };
    let target = |topic: DescribedPartitions| described::TargetAssignmentTopicPartition {
        topic_id: topic.topic_id,
        topic_name: topic.topic_name,
        partitions: topic.partitions,
    };
    described::Member {
        member_id: member.member_id,
        instance_id: member.metadata.instance_id,
        rack_id: member.metadata.rack_id,
        member_epoch: member.member_epoch,
        client_id: member.metadata.client_id,
        client_host: member.metadata.client_host,
        subscribed_topic_names: member.metadata.topics.into_iter().collect(),
        subscribed_topic_regex: member.metadata.regex,
        assignment: described::Assignment {
            topic_partitions: member.assignment.into_iter().map(topic).collect(),
        },
        target_assignment: described::TargetAssignment {
            topic_partitions: member.target.into_iter().map(target).collect(),
        },
        member_type,
    }
}
